// The visitor's choices: transport and topics, connected or not. They stand in the address, so that a link or a reload
// keeps them: /?transport=sse&topics=news,team/red

import { $, root, say } from './dom.js';
import * as live from './live.js';
import { NAMES, faultSentence, reason } from './words.js';

const query = new URLSearchParams(location.search);
const transports = /** @type {any[]} */ ([...document.querySelectorAll('[name=transport]')]);
(transports.find((t) => t.value === query.get('transport')) ?? transports[0]).checked = true;
const chosen = () => transports.find((t) => t.checked).value;
const plain = $('topics').value; // what is there without a choice
$('topics').value = topicsIn(query.get('topics') ?? plain).join(', ');

/** The topics in a list divided by commas or blanks, each once, sorted. @param {string} text */
function topicsIn(text) {
	return [...new Set(text.split(/[\s,]+/).filter(Boolean))].sort();
}

function remember() {
	const now = new URLSearchParams(location.search);
	now.delete('transport');
	now.delete('topics');
	if (chosen()) now.set('transport', chosen());
	const topics = topicsIn($('topics').value);
	if (topics.join() !== plain) now.set('topics', topics.join(','));
	history.replaceState(null, '', now.size > 0 ? `?${now}` : location.pathname);
	readCommand();
}

for (const t of transports) {
	t.addEventListener('change', () => {
		live.use(t.value);
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
	live.subscribe(topics);
	live.start(); // a session that ended begins again
	remember();
});
$('topics').addEventListener('input', () => $('topics').setCustomValidity(''));

$('toggle').addEventListener('click', () => live.running() ? live.stop() : live.start());

/** @type {Record<string, string>} */
const STATES = { connecting: 'Connecting', connected: 'Connected', waiting: 'Reconnecting', closed: 'Disconnected' };
/** @type {Record<string, string>} */
const OVER = { websocket: 'over WebSocket', sse: 'over SSE', 'long-poll': 'by long-poll' };

live.on('status', ({ state, transport, reasons, error }) => {
	$('state').dataset.state = state;
	say($('state-name'), STATES[state]);
	say($('state-detail'), transport ? OVER[transport] : error ? faultSentence(error) : '');
	say($('toggle'), live.running() ? 'Disconnect' : 'Connect');
	$('fallback').hidden = state !== 'connected' || reasons.length === 0;
	if (!$('fallback').hidden) say($('fallback'), `${NAMES[transport]}, because ${reasons.map(reason).join(', and ')}.`);
});

// From a terminal

const auth = $('token') ? ' -H "Authorization: Bearer $GPOLL_PUBLISH_TOKEN"' : '';
$('curl-send').textContent = `curl${auth} -d 'hello' '${new URL(root.send, location.href)}'`;

function readCommand() {
	const topics = topicsIn($('topics').value).map((t) => `topic=${encodeURIComponent(t)}`).join('&');
	$('curl-read').textContent = `curl -N '${live.mount}/events${topics && `?${topics}`}'`;
}

readCommand();

/** Connects, as the address asks. */
export function begin() {
	live.use(chosen());
	live.subscribe(topicsIn($('topics').value));
	live.start();
}
