// The codes of docs/protocol.md in words.

/** @type {Record<string, string>} */
export const NAMES = { websocket: 'WebSocket', sse: 'SSE', 'long-poll': 'Long-poll' };

/** Why a transport is not used: section 16. @type {Record<string, string>} */
const REASONS = {
	ws_refused: 'WebSocket is refused on the way',
	ws_silent: 'the WebSocket handshake gets no answer',
	ws_died_young: 'each WebSocket breaks right after it opens',
	sse_refused: 'the event stream is refused',
	sse_buffered: 'something on the way holds the stream’s bytes back',
	sse_died_young: 'each event stream breaks right after it begins',
	poll_blocked: 'polls are answered by something that is not gpoll',
	unreachable: 'the server cannot be reached',
};

/** @param {string} code */
export const reason = (code) => REASONS[code] ?? code;

/** Why messages may be missing: section 10. @type {Record<string, string>} */
const CAUSES = {
	evicted: 'the server keeps only so many messages',
	expired: 'the server keeps messages only for so long',
	epoch: 'the server’s log has begun anew',
	broker: 'the broker lost them',
	future: 'this page was ahead of the server',
};

/** @param {{from: string, to: string, reason: string}} gap */
export function gapSentence({ from, to, reason }) {
	const cause = CAUSES[reason] ?? reason;
	const [first, last] = [from, to].map((p) => p.split('-')[1]);
	if (reason === 'future' || !last) return `Reading goes on from the newest message: ${cause}.`;
	if (last === '0') return `Messages from #${first} on may be missing: ${cause}.`;
	return first === last ? `Message #${first} may be missing: ${cause}.` : `Messages #${first} to #${last} may be missing: ${cause}.`;
}

/** What ended an attempt: section 11, and the client's own words. @type {Record<string, string>} */
const FAULTS = {
	closed: 'You disconnected.',
	shutdown: 'The server is shutting down.',
	unauthorized: 'The server asks for authorization.',
	removed: 'The server removed this client.',
	slow: 'This client was too slow.',
	superseded: 'Another connection took this session over.',
	rate: 'Too many requests.',
	internal: 'The server had an error.',
	unreachable: 'The server cannot be reached.',
	silent: 'Nothing came for too long.',
	stranger: 'Something that is not gpoll answered.',
	broken: 'The connection broke.',
};

/** @param {{code: string, message: string}} error */
export const faultSentence = ({ code, message }) => FAULTS[code] ?? sentence(message);

/** @param {string} text */
export function sentence(text) {
	const end = /[.!?]$/.test(text) ? '' : '.';
	return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

/** What cures it: docs/proxies.md. @type {Record<string, string[]>} */
export const CURES = {
	ws_refused: [
		'nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;',
		'Apache: upgrade=websocket behind ProxyPass',
		'Varnish: pass Upgrade and Connection in vcl_pipe',
	],
	ws_silent: ['A firewall or proxy swallows the handshake: let Upgrade pass, or go on by SSE.'],
	ws_died_young: ['A proxy ends tunnels early: HAProxy: timeout tunnel 60s; nginx: proxy_read_timeout 60s;'],
	sse_refused: ['Let GET requests with Accept: text/event-stream pass to the server, and do not change their answers.'],
	sse_buffered: [
		'nginx: proxy_buffering off; (where X-Accel-Buffering is ignored)',
		'Varnish: return (pipe) for text/event-stream',
		'Any other: do not buffer and do not compress text/event-stream',
	],
	sse_died_young: ['A time-out on the way is shorter than the heartbeat: nginx: proxy_read_timeout 60s; HAProxy: timeout server 60s'],
	poll_blocked: ['Something answers in the place of the server: pass the path of the mount on to it.'],
	unreachable: ['The server does not answer: is it running, and does the proxy point at it?'],
	origin: [
		'nginx: proxy_set_header Host $http_host;',
		'Apache: ProxyPreserveHost On',
		'or start gpoll with -public-origin and the address that browsers see',
	],
};
