// The rows of the feed. What a message says only ever becomes a text node.

import { element, time } from './dom.js';
import { gapSentence } from './words.js';

const SHOWN = 1_000; // characters of a message that are shown before "Show all"

/** @type {Record<string, string>} */
const LABELS = { websocket: 'ws', sse: 'sse', 'long-poll': 'poll' };

/** @typedef {{data: string | Uint8Array, topic: string, position: string}} Message */

/** @param {Message} message @param {string} by @param {Date} at */
export function messageRow(message, by, at) {
	const row = element('li', 'message');
	row.dataset.id = message.position;
	const seq = element('span', 'seq', `#${message.position.split('-')[1]}`);
	seq.title = `Position ${message.position}`;
	const text = typeof message.data === 'string' ? message.data : binary(message.data);
	const data = element('div', typeof message.data === 'string' ? 'data' : 'data binary', text.slice(0, SHOWN));
	const body = element('div', 'body');
	if (message.topic) body.append(element('span', 'topic', message.topic));
	body.append(data);
	row.append(element('div', 'meta', time(at), element('span', `by ${by}`, LABELS[by] ?? '?'), seq), body);
	if (text.length > SHOWN) {
		const more = /** @type {HTMLButtonElement} */ (element('button', 'more', `Show all ${text.length.toLocaleString()} characters`));
		more.type = 'button';
		more.onclick = () => {
			data.textContent = text;
			more.remove();
		};
		row.append(more);
	}
	return row;
}

/** The bytes as a person can read them. @param {Uint8Array} bytes */
function binary(bytes) {
	const hex = [...bytes.slice(0, 64)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
	return `${bytes.length.toLocaleString()} bytes: ${hex}${bytes.length > 64 ? ' …' : ''}`;
}

/** @param {import('../../../js/gpoll.js').GapEvent} gap @param {Date} at */
export function gapRow(gap, at) {
	const row = element('li', 'gap', element('div', 'meta', time(at), element('span', 'by', 'gap')), element('div', 'data', gapSentence(gap)));
	row.dataset.reason = gap.reason;
	return row;
}

/** @param {number} from @param {number} to */
export function skipRow(from, to) {
	const row = element('li', 'skipped', from === to ? `#${from} went to a topic you do not receive.` : `#${from} to #${to} went to topics you do not receive.`);
	row.dataset.from = String(from);
	return row;
}
