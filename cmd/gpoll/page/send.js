// The form that sends a message, by POST as any program may.

import { $, authorization, root } from './dom.js';
import { sentence } from './words.js';

/**
 * Publishes a message, and returns its Position. It throws a sentence.
 * @param {string} text @param {string} [topic] @returns {Promise<string>}
 */
export async function publish(text, topic = '') {
	const headers = { 'Content-Type': 'text/plain; charset=utf-8', ...authorization() };
	const response = await fetch(root.send + (topic ? `?${new URLSearchParams({ topic })}` : ''), { method: 'POST', headers, body: text })
		.catch(() => { throw new Error('The server cannot be reached: the message was not sent.'); });
	const body = await response.json().catch(() => ({}));
	if (response.ok && body.position) return body.position;
	throw new Error(response.status === 401 ? 'The publish token is wrong: the message was not sent.' :
		sentence(body.message ?? `the server answered ${response.status}: the message was not sent`));
}

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
	result('Sending …');
	try {
		const position = await publish(text, topic);
		result(`Sent as #${position.split('-')[1]}${topic ? ` to ${topic}` : ''}.`);
		if ($('message').value === text) {
			$('message').value = '';
			$('message').rows = 1;
		}
		$('message').focus();
	} catch (e) {
		result(/** @type {Error} */ (e).message, true);
	}
});

/** @param {string} text */
function result(text, failed = false) {
	$('send-result').textContent = text;
	$('send-result').classList.toggle('failed', failed);
}
