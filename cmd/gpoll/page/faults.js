// The buttons that break the network and the server.

import { $, authorization, root, say } from './dom.js';
import { on, status } from './live.js';
import * as path from './path.js';
import { NAMES, sentence } from './words.js';

$('cut').addEventListener('click', () => path.cutWebSocket(!path.faults().websocket));
$('buffer').addEventListener('click', () => path.bufferStream(!path.faults().stream));
$('drop').addEventListener('click', () => path.dropNext());
$('restart').addEventListener('click', async () => {
	const said = await fetch(root.restart, { method: 'POST', headers: authorization() }).then(async (r) => {
		const body = await r.json().catch(() => ({}));
		return r.ok ? 'The server’s log has begun anew. A gap tells it before the next message.' :
			r.status === 401 ? 'The publish token is wrong: the log goes on.' : sentence(body.message ?? `the server answered ${r.status}`);
	}, () => 'The server cannot be reached: the log goes on.');
	say($('faults-say'), said);
});

let dropping = false;

function show() {
	const now = path.faults();
	const by = NAMES[status()?.transport ?? ''];
	$('cut').setAttribute('aria-pressed', String(now.websocket));
	$('buffer').setAttribute('aria-pressed', String(now.stream));
	$('drop').disabled = now.dropping;
	let text = by ? `The network is whole: the session goes by ${by}.` : '';
	if (now.dropping) text = 'What comes next will be thrown away.';
	else if (dropping) text = `It was thrown away, and its connection broken. ${by ? 'It came again.' : ''}`;
	else if (now.stream && by !== 'Long-poll') text = 'No WebSocket passes, and the stream’s bytes are held back. The client waits five seconds for them …';
	else if (now.stream) text = 'No WebSocket passes, and the stream’s bytes are held back: the session goes by long-poll.';
	else if (now.websocket && by) text = `No WebSocket passes: the session goes by ${by}.`;
	dropping = now.dropping || dropping && !by;
	say($('faults-say'), text);
}

path.onChange(show);
on('status', show);
