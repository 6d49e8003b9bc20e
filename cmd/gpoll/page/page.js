// The page: shows what a Session receives, and sends with POST. Messages only ever become text nodes.

import { Session, sentence } from './session.js';

const CAP = 500; // rows that are kept
const SHOWN = 1_000; // characters of a message that are shown before "Show all"
const ANNOUNCE = 3_000; // ms between two announcements to screen readers

/** @type {Record<string, string>} */ const NAMES = { connecting: 'Connecting', open: 'Open', reconnecting: 'Reconnecting', ended: 'Ended' };
/** @type {Record<string, string>} */ const OVER = { websocket: 'over WebSocket', sse: 'over SSE', 'long-poll': 'by long-poll' };
/** @type {Record<string, string>} */ const LABELS = { websocket: 'ws', sse: 'sse', 'long-poll': 'poll' };
/** @type {Record<string, string>} */ const CAUSES = { evicted: 'the server keeps only so many messages', expired: 'the server keeps messages only for so long',
	epoch: 'the server has started anew', broker: 'the broker lost them', future: 'this page was ahead of the server' };

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
const root = /** @type {Record<string, string>} */ (document.documentElement.dataset);
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

// What the address asks for, so that a link or a reload keeps the choice: /?transport=sse&topics=news,team/red
const query = new URLSearchParams(location.search);
const transports = /** @type {any[]} */ ([...document.querySelectorAll('[name=transport]')]);
const transport = transports.find((t) => t.value === query.get('transport')) ?? transports[0];
transport.checked = true;
const chosen = () => transports.find((t) => t.checked).value;
$('topics').value = topicsIn(query.get('topics') ?? '').join(', ');

const session = new Session({
	mount: root.mount, transport: transport.value, topics: topicsIn($('topics').value), after: root.after,
	heartbeat: Number(root.heartbeat), pollWait: Number(root.pollWait),
}, {
	state(state, detail) {
		$('state').dataset.state = state;
		$('state-name').textContent = NAMES[state];
		$('state-detail').textContent = state === 'open' ? OVER[chosen()] : detail;
		$('toggle').textContent = session.running ? 'Disconnect' : 'Connect';
	},
	message(message, by) {
		count.received++;
		const [epoch, seq] = numbered(message.id);
		skip(epoch, seq - 1);
		shown = { epoch, seq };
		push({ message, by, at: new Date() });
	},
	gap(gap) {
		count.gaps++;
		const [epoch, seq] = numbered(gap.to);
		shown = gap.reason === 'future' || seq === 0 ? nowhere : { epoch, seq };
		push({ gap, at: new Date() });
	},
	position(position) {
		count.position = position;
		const [epoch, seq] = numbered(position);
		skip(epoch, seq);
		shown = { epoch, seq };
		draw();
	},
	fallback(from, to, why) {
		const now = transports.find((t) => t.value === to);
		now.checked = true;
		$('fallback').textContent = `${name(from)} failed twice, so the page tries ${name(to)}. ${why}`;
		$('fallback').hidden = false;
	},
});

/** @param {string} value  of a transport */
function name(value) { return transports.find((t) => t.value === value).nextElementSibling.textContent; }

// Numbers count the messages of all topics. Those that do not come here are not lost: the page says where they went.
const nowhere = { epoch: '', seq: 0 };
let shown = root.after ? { epoch: numbered(root.after)[0], seq: numbered(root.after)[1] } : nowhere; // up to here all is said

/** @param {string} position @returns {[string, number]} */
function numbered(position) {
	const [epoch, seq] = position.split('-');
	return [epoch, Number(seq)];
}

/** Notes that the messages after shown, up to seq, are not for this page. @param {string} epoch @param {number} seq */
function skip(epoch, seq) {
	if (shown === nowhere || epoch !== shown.epoch || seq <= shown.seq) return;
	const last = waiting.at(-1);
	if (last?.skip) last.skip.to = seq;
	else push({ skip: { from: shown.seq + 1, to: seq } });
}

// Rows are collected and drawn once a frame; what a hidden tab would drop again at once is not kept.
const count = { received: 0, gaps: 0, position: '' };
/** @type {any[]} */ let waiting = [];
let drawing = false;

/** @param {any} row */
function push(row) {
	waiting.push(row);
	if (waiting.length > CAP) waiting.shift();
	draw();
}

function draw() {
	if (drawing) return;
	drawing = true;
	requestAnimationFrame(() => {
		drawing = false;
		$('received').textContent = count.received.toLocaleString();
		$('gaps').textContent = count.gaps.toLocaleString();
		const [epoch, seq] = count.position.split('-');
		$('position').textContent = seq ? `${epoch.slice(0, 6)}…-${seq}` : '–';
		$('position').title = count.position;
		if (waiting.length === 0) return;
		const rows = waiting;
		waiting = [];
		const newest = /** @type {HTMLElement | null} */ ($('log').lastElementChild);
		if (rows[0].skip && newest?.dataset.from) newest.replaceWith(skipRow({ skip: { ...rows.shift().skip, from: Number(newest.dataset.from) } }));
		$('log').append(...rows.map((row) => row.skip ? skipRow(row) : row.gap ? gapRow(row) : messageRow(row)));
		while ($('log').childElementCount > CAP) $('log').firstElementChild.remove();
		$('empty').hidden = true;
		if ($('follow').checked) follow();
		announce(rows);
	});
}

/** @param {string} tag @param {string} name @param {string} [text] */
function element(tag, name, text = '') {
	const e = document.createElement(tag);
	e.className = name;
	e.textContent = text;
	return e;
}

/** @param {Date} at */
function time(at) {
	const e = /** @type {HTMLTimeElement} */ (element('time', 'time', clock.format(at)));
	e.dateTime = at.toISOString();
	return e;
}

/** @param {{message: import('./session.js').Message, by: import('./session.js').Transport, at: Date}} row */
function messageRow({ message, by, at }) {
	const row = element('li', 'message');
	row.dataset.id = message.id;
	const meta = element('div', 'meta');
	meta.append(time(at), element('span', `by ${by}`, LABELS[by]));
	const seq = element('span', 'seq', `#${message.id.split('-')[1]}`);
	seq.title = `Position ${message.id}`;
	meta.append(seq);
	const text = message.data64 === undefined ? message.data ?? '' : binary(message.data64);
	const data = element('div', message.data64 === undefined ? 'data' : 'data binary', text.slice(0, SHOWN));
	const body = element('div', 'body');
	if (message.topic) body.append(element('span', 'topic', message.topic));
	body.append(data);
	row.append(meta, body);
	if (text.length > SHOWN) {
		const more = /** @type {HTMLButtonElement} */ (element('button', 'more', `Show all ${text.length.toLocaleString()} characters`));
		more.type = 'button';
		more.onclick = () => { data.textContent = text; more.remove(); };
		row.append(more);
	}
	return row;
}

/** The bytes as a person can read them. @param {string} data64 */
function binary(data64) {
	const bytes = atob(data64);
	const hex = [...bytes.slice(0, 64)].map((c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join(' ');
	return `${bytes.length.toLocaleString()} bytes: ${hex}${bytes.length > 64 ? ' …' : ''}`;
}

/** @param {{gap: import('./session.js').Gap, at: Date}} row */
function gapRow({ gap, at }) {
	const row = element('li', 'gap');
	row.dataset.reason = gap.reason;
	const meta = element('div', 'meta');
	meta.append(time(at), element('span', 'by', 'gap'));
	row.append(meta, element('div', 'data', gapSentence(gap)));
	return row;
}

/** @param {{skip: {from: number, to: number}}} row */
function skipRow({ skip: { from, to } }) {
	const row = element('li', 'skipped', from === to ? `#${from} went to a topic you do not receive.` : `#${from} to #${to} went to topics you do not receive.`);
	row.dataset.from = String(from);
	return row;
}

/** @param {import('./session.js').Gap} gap */
function gapSentence({ from, to, reason }) {
	const cause = CAUSES[reason] ?? reason;
	const [first, last] = [from, to].map((p) => String(p ?? '').split('-')[1]);
	if (reason === 'future') return `Reading goes on from the newest message: ${cause}.`;
	if (last === '0') return `Messages from #${first} on may be missing: ${cause}.`;
	return first === last ? `Message #${first} may be missing: ${cause}.` : `Messages #${first} to #${last} may be missing: ${cause}.`;
}

// A screen reader hears each message while they come one at a time, and a number when they come fast.
let unheard = { messages: 0, last: '' };
let announced = -ANNOUNCE;
let announcing = 0;

/** @param {any[]} rows */
function announce(rows) {
	for (const row of rows) {
		if (row.skip) continue;
		unheard.messages++;
		unheard.last = row.gap ? gapSentence(row.gap) : row.message.data?.slice(0, 200) ?? 'Binary message';
	}
	if (announcing || unheard.messages === 0) return;
	announcing = window.setTimeout(() => {
		announcing = 0;
		announced = performance.now();
		$('announcer').textContent = unheard.messages === 1 ? unheard.last : `${unheard.messages} new messages`;
		unheard = { messages: 0, last: '' };
	}, Math.max(0, announced + ANNOUNCE - performance.now()));
}

function follow() {
	$('scroll').scrollTop = $('scroll').scrollHeight;
}

$('follow').addEventListener('change', () => $('follow').checked && follow());
// Reading older messages and being pulled away is no pleasure: scrolling up stops, scrolling to the end goes on.
$('scroll').addEventListener('scroll', () => {
	const { scrollTop, scrollHeight, clientHeight } = $('scroll');
	$('follow').checked = scrollHeight - scrollTop - clientHeight < 40;
}, { passive: true });
new ResizeObserver(() => $('follow').checked && follow()).observe($('scroll'));

$('clear').addEventListener('click', () => {
	waiting = [];
	$('log').replaceChildren();
	$('empty').hidden = false;
});

let before = 0;
setInterval(() => {
	$('rate').textContent = (count.received - before).toLocaleString();
	before = count.received;
}, 1_000);

/** The topics in a list divided by commas or blanks, each once, sorted. @param {string} text */
function topicsIn(text) {
	return [...new Set(text.split(/[\s,]+/).filter(Boolean))].sort();
}

function remember() {
	const now = new URLSearchParams();
	if (chosen() !== transports[0].value) now.set('transport', chosen());
	const topics = topicsIn($('topics').value);
	if (topics.length > 0) now.set('topics', topics.join(','));
	history.replaceState(null, '', now.size > 0 ? `?${now}` : location.pathname);
	readCommand();
}

for (const t of transports) {
	t.addEventListener('change', () => {
		$('fallback').hidden = true;
		session.use(t.value);
		remember();
	});
}

$('connection').addEventListener('submit', (/** @type {any} */ event) => {
	event.preventDefault();
	const topics = topicsIn($('topics').value);
	const wrong = topics.find((t) => !/^[A-Za-z0-9_.:/~@-]{1,255}$/.test(t));
	$('topics').setCustomValidity(wrong ? `“${wrong}” is not a topic: use letters, digits and _.:/~@-` : '');
	if (!$('topics').reportValidity()) return;
	$('topics').value = topics.join(', ');
	session.subscribe(topics);
	session.start(); // a session that ended over a topic begins again
	remember();
});
$('topics').addEventListener('input', () => $('topics').setCustomValidity(''));

$('toggle').addEventListener('click', () => session.running ? session.stop() : session.start());

// Sending

$('message').addEventListener('keydown', (/** @type {any} */ event) => {
	if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
		event.preventDefault();
		$('send').requestSubmit();
	}
});
$('message').addEventListener('input', () => {
	$('message').setCustomValidity('');
	const lines = $('message').value.split('\n').length;
	$('message').rows = Math.min(lines, 6);
});

$('send').addEventListener('submit', async (/** @type {any} */ event) => {
	event.preventDefault();
	const text = $('message').value;
	const size = new TextEncoder().encode(text).length;
	if (size > Number(root.maxMessage)) {
		$('message').setCustomValidity(`The message has ${size.toLocaleString()} bytes; the server takes ${Number(root.maxMessage).toLocaleString()}.`);
		$('message').reportValidity();
		return;
	}
	const topic = $('topic').value.trim();
	const headers = { 'Content-Type': 'text/plain; charset=utf-8', ...($('token') && { Authorization: `Bearer ${$('token').value}` }) };
	result('Sending …');
	try {
		const response = await fetch(root.send + (topic ? `?${new URLSearchParams({ topic })}` : ''), { method: 'POST', headers, body: text });
		const body = await response.json();
		if (!response.ok) return result(response.status === 401 ? 'The publish token is wrong: the message was not sent.' : sentence(body.message), true);
		result(`Sent as #${body.position.split('-')[1]}${topic ? ` to ${topic}` : ''}.`);
		if ($('message').value === text) {
			$('message').value = '';
			$('message').rows = 1;
		}
		$('message').focus();
	} catch {
		result('The server cannot be reached: the message was not sent.', true);
	}
});

/** @param {string} text */
function result(text, failed = false) {
	$('send-result').textContent = text;
	$('send-result').classList.toggle('failed', failed);
}

// From a terminal

const auth = $('token') ? ' -H "Authorization: Bearer $GPOLL_PUBLISH_TOKEN"' : '';
$('curl-send').textContent = `curl${auth} -d 'hello' '${new URL(root.send, location.href)}'`;

function readCommand() {
	const topics = topicsIn($('topics').value).map((t) => `topic=${encodeURIComponent(t)}`).join('&');
	$('curl-read').textContent = `curl -N '${new URL(root.mount, location.href)}/events${topics && `?${topics}`}'`;
}

readCommand();
session.start();
