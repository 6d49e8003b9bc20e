// A publisher of this page's own, five messages a second, and the account of what became of each.

import { $, eachFrame, numbered, say } from './dom.js';
import { on, position } from './live.js';
import { publish } from './send.js';

const PAUSE = 200; // ms between two messages
const FEW = 20; // messages whose POST has no answer yet

const mine = [...crypto.getRandomValues(new Uint8Array(3))].map((b) => b.toString(16).padStart(2, '0')).join('');
const form = new RegExp(`^tick (\\d+) of ${mine}$`);

/** @typedef {{at: number, position: string}} Tick when it was sent, and its Position once that is known */
/** What has not come yet, by number. @type {Map<number, Tick>} */
const owed = new Map();
/** What may have been published or not. @type {Map<number, Tick>} */
const unsure = new Map();
/** @type {import('../../../js/gpoll.js').GapEvent[]} */ const gaps = [];
const count = { sent: 0, received: 0, twice: 0, told: 0, silent: 0 };
let newest = 0;
let posting = 0;
let timer = 0;
/** @type {number[]} */ let took = []; // ms from send to receipt

/** The times from send to receipt since the last call, in ms. */
export function latencies() {
	const all = took;
	took = [];
	return all;
}

async function tick() {
	if (posting >= FEW || !position()) return; // what was there before the session is not owed
	const n = ++newest;
	/** @type {Tick} */ const t = { at: performance.now(), position: '' };
	owed.set(n, t);
	count.sent++;
	posting++;
	try {
		t.position = await publish(`tick ${n} of ${mine}`);
	} catch (e) {
		if (owed.delete(n)) {
			count.sent--;
			unsure.set(n, t);
		}
		run(false);
		say($('demo-result'), /** @type {Error} */ (e).message);
	}
	posting--;
	draw();
}

/** Only a click begins it: a link to this page must not publish. @param {boolean} on */
function run(on) {
	clearInterval(timer);
	timer = on ? window.setInterval(tick, PAUSE) : 0;
	$('demo').setAttribute('aria-pressed', String(on));
	say($('demo-label'), on ? 'Stop sending' : 'Send 5 messages a second');
	say($('demo-result'), '');
	draw();
}

on('message', ({ data }) => {
	const n = typeof data === 'string' ? Number(form.exec(data)?.[1]) : 0;
	if (!n) return;
	const t = owed.get(n) ?? unsure.get(n);
	if (!t) {
		count.twice++;
	} else {
		if (!owed.delete(n)) {
			unsure.delete(n);
			count.sent++;
		}
		count.received++;
		took.push(performance.now() - t.at);
	}
	draw();
});

on('gap', (gap) => {
	gaps.push(gap);
	if (gaps.length > 100) gaps.shift();
	draw();
});

/** @param {{from: string, to: string}} gap @param {string} position */
function covers({ from, to }, position) {
	const [[epoch, seq], [first, low], [last, high]] = [position, from, to].map(numbered);
	return epoch === first && seq >= low && (epoch !== last || high === 0 || seq <= high);
}

/** Says of what has not come whether the server told that it will not, or never did although the session is past it. */
function settle() {
	const [epoch, at] = numbered(position());
	for (const [n, t] of owed) {
		if (!t.position) continue;
		const told = gaps.some((gap) => covers(gap, t.position));
		const [own, seq] = numbered(t.position);
		if (!told && !(own === epoch && seq <= at)) continue;
		owed.delete(n);
		count[told ? 'told' : 'silent']++;
	}
}

const draw = eachFrame(() => {
	settle();
	say($('tally-sent'), count.sent.toLocaleString());
	say($('tally-received'), count.received.toLocaleString());
	say($('tally-way'), owed.size.toLocaleString());
	say($('tally-told'), count.told.toLocaleString());
	say($('tally-silent'), count.silent.toLocaleString());
	say($('tally-twice'), count.twice.toLocaleString());
	$('ways').dataset.kept = String(count.silent + count.twice === 0);
	$('verdict').hidden = count.received === 0;
	say($('verdict'), count.silent + count.twice > 0 ? 'A promise was broken: please report this.' :
		count.told > 0 ? 'Nothing lost in silence: the server told what is missing.' : 'Nothing lost, nothing twice.');
});

$('demo').addEventListener('click', () => run(!timer));
