// The list of what the page receives.

import { $, eachFrame, numbered, root } from './dom.js';
import { on, position, status } from './live.js';
import { gapRow, messageRow, skipRow } from './rows.js';
import { gapSentence } from './words.js';

const CAP = 500; // rows that are kept
const ANNOUNCE = 5_000; // ms between two announcements to screen readers

const count = { received: 0, gaps: 0 };
/** Rows that are drawn in the next frame. @type {any[]} */ let waiting = [];

// Numbers count the messages of all topics. Those that do not come here are not lost: the page says where they went.
const nowhere = { epoch: '', seq: 0 };
let shown = root.after ? { epoch: numbered(root.after)[0], seq: numbered(root.after)[1] } : nowhere; // up to here all is said

/** Notes that the messages after shown, up to seq, are not for this page. @param {string} epoch @param {number} seq */
function skip(epoch, seq) {
	if (shown === nowhere || epoch !== shown.epoch || seq <= shown.seq) return;
	const last = waiting.at(-1);
	if (last?.skip) last.skip.to = seq;
	else push({ skip: { from: shown.seq + 1, to: seq } });
}

on('message', (message) => {
	count.received++;
	const [epoch, seq] = numbered(message.position);
	skip(epoch, seq - 1);
	shown = { epoch, seq };
	push({ message, by: status()?.transport, at: new Date() });
});

on('gap', (gap) => {
	count.gaps++;
	const [epoch, seq] = numbered(gap.to);
	shown = gap.reason === 'future' || !seq ? nowhere : { epoch, seq };
	push({ gap, at: new Date() });
});

/** @param {any} row */
function push(row) {
	waiting.push(row);
	if (waiting.length > CAP) waiting.shift(); // what a hidden tab would drop again at once
	draw();
}

const draw = eachFrame(() => {
	if (waiting.length === 0) return;
	const rows = waiting;
	waiting = [];
	const newest = /** @type {HTMLElement | null} */ ($('log').lastElementChild);
	if (rows[0].skip && newest?.dataset.from) newest.replaceWith(skipRow(Number(newest.dataset.from), rows.shift().skip.to));
	$('log').append(...rows.map((row) => row.skip ? skipRow(row.skip.from, row.skip.to) : row.gap ? gapRow(row.gap, row.at) : messageRow(row.message, row.by, row.at)));
	while ($('log').childElementCount > CAP) $('log').firstElementChild.remove();
	$('empty').hidden = true;
	if ($('follow').checked) follow();
	announce(rows);
});

// A screen reader hears each message while they come one at a time, and a number when they come fast.
let unheard = { messages: 0, last: '' };
let announced = -ANNOUNCE;
let announcing = 0;

/** @param {any[]} rows */
function announce(rows) {
	for (const row of rows) {
		if (row.skip || row.message && $('demo').ariaPressed === 'true') continue; // five a second are no news
		unheard.messages++;
		unheard.last = row.gap ? gapSentence(row.gap) : typeof row.message.data === 'string' ? row.message.data.slice(0, 200) : 'Binary message';
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

// The figures of the session, and the messages for others behind the newest one.
let before = 0;
setInterval(() => {
	const [epoch, seq] = numbered(position());
	if (seq) {
		skip(epoch, seq);
		shown = { epoch, seq };
	}
	$('received').textContent = count.received.toLocaleString();
	$('gaps').textContent = count.gaps.toLocaleString();
	$('rate').textContent = (count.received - before).toLocaleString();
	$('position').textContent = seq >= 0 ? `${epoch.slice(0, 6)}…-${seq}` : '–';
	$('position').title = position();
	before = count.received;
}, 1_000);
