// Who is present in the page's topics, as the client tells it.

import { $, element } from './dom.js';
import { on } from './live.js';

const SHOWN = 24; // members that are drawn

/** @typedef {import('../../../js/gpoll.js').GpollSource} Source */
/** @type {Source | undefined} */ let source;
/** @type {string[]} */ let topics = [];
/** @type {() => void} */ let end = () => {};
/** @type {Map<string, import('../../../js/gpoll.js').Presence>} */ const known = new Map();

on('source', (s) => {
	source = s;
	watch();
});
on('topics', (names) => {
	topics = names;
	if (source) watch();
});

function watch() {
	end();
	end = () => {};
	known.clear();
	draw();
	if (!source || topics.length === 0) return;
	end = source.presence([...topics], (p) => {
		known.set(p.topic, p);
		draw();
	});
}

function draw() {
	$('presence-hint').hidden = topics.length > 0;
	$('present').replaceChildren(...topics.map((topic) => {
		const p = known.get(topic);
		const members = element('ul', 'members', ...(p?.members ?? []).slice(0, SHOWN).map(({ id, user }) => {
			const member = element('li', 'member', user ?? id.slice(0, 4));
			member.style.setProperty('--hue', String(parseInt(id.slice(0, 4), 16) % 360 || 0));
			return member;
		}));
		members.setAttribute('aria-label', `Members of ${topic}`);
		const more = (p?.count ?? 0) - members.childElementCount;
		if (more > 0) members.append(element('li', 'more-members', `and ${more.toLocaleString()} more`));
		const said = !p ? 'asking …' : p.count === 1 ? 'this page alone' : `${p.count.toLocaleString()} here, this page among them`;
		const entry = element('div', 'present', element('p', '', element('span', 'topic', topic), ' ', said), members);
		entry.dataset.count = String(p?.count ?? 0);
		return entry;
	}));
}
