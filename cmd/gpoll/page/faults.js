// The buttons that break the network and the server.

import { $, authorization, root, say } from './dom.js';
import { on, status } from './live.js';
import * as path from './path.js';
import { NAMES, sentence } from './words.js';

/** What a fault did that is over; until the next one. */
let done = '';

/** @param {string} id @param {() => void} press */
function button(id, press) {
	$(id).addEventListener('click', () => {
		done = '';
		press();
	});
}

button('cut', () => path.cutWebSocket(!path.faults().websocket));
button('buffer', () => path.bufferStream(!path.faults().stream));
button('drop', () => path.dropNext());
button('restart', async () => {
	done = await fetch(root.restart, { method: 'POST', headers: authorization() }).then(async (r) => {
		const body = await r.json().catch(() => ({}));
		return r.ok ? 'The server’s log has begun anew, and a gap said so before the next message.' :
			r.status === 401 ? 'The publish token is wrong: the log goes on.' : sentence(body.message ?? `the server answered ${r.status}`);
	}, () => 'The server cannot be reached: the log goes on.');
	show();
});

let dropping = false;

function show() {
	const now = path.faults();
	const by = status()?.transport ?? '';
	$('cut').setAttribute('aria-pressed', String(now.websocket));
	$('buffer').setAttribute('aria-pressed', String(now.stream));
	$('drop').disabled = now.dropping;
	if (dropping && !now.dropping) done = 'A response was thrown away, and its connection with it. The client comes back and asks again.';
	dropping = now.dropping;
	say($('faults-say'), done || effect(now, by));
}

/** @param {ReturnType<typeof path.faults>} now @param {string} by */
function effect(now, by) {
	if (now.dropping) return 'What comes next will be thrown away.';
	if (now.stream && by !== 'long-poll') return 'No WebSocket passes, and the stream’s bytes are held back. The client waits five seconds for them …';
	if (now.stream) return 'No WebSocket passes, and the stream’s bytes are held back: the session goes by long-poll.';
	if (!by) return '';
	return now.websocket ? `No WebSocket passes: the session goes by ${NAMES[by]}.` : `The network is whole: the session goes by ${NAMES[by]}.`;
}

path.onChange(show);
on('status', show);
