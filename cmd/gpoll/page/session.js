// One gpoll session in the JSON form, over WebSocket, Server-Sent Events or long-poll. The client id and the cursor
// belong to the session and not to a connection, so the transport may change at any moment: the next connection reads
// on after the last message that was handed out.
//
// This is the page's own small client, to be read in one sitting.

/**
 * @typedef {'websocket' | 'sse' | 'long-poll'} Transport
 * @typedef {'connecting' | 'open' | 'reconnecting' | 'ended'} State
 * @typedef {{id: string, topic?: string, data?: string, data64?: string}} Message
 * @typedef {{from: string, to: string, reason: string}} Gap
 *
 * @typedef {object} Handlers
 * @property {(state: State, detail: string) => void} state  detail is a sentence, or ''
 * @property {(message: Message, transport: Transport) => void} message
 * @property {(gap: Gap) => void} gap  messages from..to may be missing; to with seq 0 is the rest of that epoch
 * @property {(position: string) => void} position  the cursor has moved; every message up to it has been handed out
 * @property {(from: Transport, to: Transport, why: string) => void} fallback  from failed twice, and to is tried instead
 */

const MAX_DELAY = 30_000; // ms between two attempts
const STABLE = 10_000; // ms after which a connection counts as good, and the next failure as the first
const POLL_FLOOR = 250; // ms between two polls that brought nothing
const POLL_OPEN = 400; // ms after which a poll that has not failed is taken to be waiting
const OVERTAKEN = 5_000; // ms after a change in which a request of the former connection may still reach the server
const FIRST_BYTE = 3_000; // ms for the first answer of a stream
const FAILURES = 2; // of a transport, one after the other, before the next transport is tried
const PROBE = '0$00000000-0000-4000-8000-000000000000'; // a client id that nobody has

/** What is tried when a transport does not work here. @type {Partial<Record<Transport, Transport>>} */
const NEXT = { websocket: 'sse', sse: 'long-poll' };

/** Codes after which trying again is wrong; the other errors are worth another attempt. */
const FINAL = new Set(['unauthorized', 'superseded', 'removed', 'too-large', 'protocol', 'origin', 'host', 'not-found', 'method',
	'bad-client-id', 'bad-position', 'bad-topic', 'topic-forbidden', 'too-many-topics', 'bad-request', 'query-too-long', 'body-on-get']);

/** What a WebSocket close code means. @type {Record<number, string>} */
const CLOSE_CODES = { 1001: 'shutdown', 1002: 'protocol', 1003: 'protocol', 1007: 'protocol', 1008: 'protocol', 1009: 'too-large', 1011: 'internal',
	4001: 'unauthorized', 4004: 'removed', 4008: 'slow', 4009: 'superseded', 4010: 'unknown-client', 4029: 'rate' };

/** @type {Record<string, string>} */
const SENTENCES = { shutdown: 'The server is shutting down.', unauthorized: 'The server asks for authorization.', removed: 'The server removed this client.',
	slow: 'This client was too slow.', superseded: 'Another connection took this session over.', rate: 'Too many requests.',
	internal: 'The server had an error.', 'too-large': 'A message was too large.', protocol: 'The server refused what the page sent.' };

/** The end of a connection, with the reason. */
class End extends Error {
	/** @param {string} code @param {string} message  of the server, or ''  @param {number} [retryMs] */
	constructor(code, message, retryMs = 0) {
		super(SENTENCES[code] ?? sentence(message || 'the connection is lost'));
		this.code = code;
		this.retryMs = retryMs;
	}
}

export class Session {
	#mount; #on; #heartbeat; #pollWait;
	/** @type {Transport} */ #transport;
	/** @type {string[]} */ #topics;
	#id = '0';
	#cursor = ''; // every message up to it has been handed out
	#newest = ''; // the last message handed out: what is not after it is a repeat
	#spread = 100; // ms over which the server wants first attempts spread
	/** @type {AbortController?} */ #attach = null; // aborted to change over, and to stop
	#running = false;
	#changed = -OVERTAKEN; // when this session last gave a connection up itself
	#opened = 0; // when the present connection opened, 0 before

	/**
	 * @param {{mount: string, transport: Transport, topics: string[], after: string, heartbeat: number, pollWait: number}} options
	 *   after is the position to begin after, '' for now; times are in ms
	 * @param {Handlers} handlers
	 */
	constructor(options, handlers) {
		this.#mount = new URL(options.mount, location.href).href;
		this.#transport = options.transport;
		this.#topics = options.topics;
		this.#cursor = options.after;
		this.#heartbeat = options.heartbeat;
		this.#pollWait = options.pollWait;
		this.#on = handlers;
	}

	get running() { return this.#running; }

	/** Connects, and keeps connected until stop or a final answer of the server. */
	start() {
		if (this.#running) return;
		this.#running = true;
		this.#run();
	}

	/** Disconnects. start goes on where this left off. */
	stop() {
		if (!this.#running) return;
		this.#running = false;
		this.#change();
		this.#on.state('ended', 'You disconnected.');
	}

	/** @param {Transport} transport */
	use(transport) {
		if (transport === this.#transport) return;
		this.#transport = transport;
		this.#change();
	}

	/** @param {string[]} topics */
	subscribe(topics) {
		if (topics.join() === this.#topics.join()) return;
		this.#topics = topics;
		this.#change();
	}

	#change() {
		this.#changed = performance.now();
		this.#attach?.abort();
	}

	async #run() {
		let failures = 0;
		let useless = 0; // connections of this transport, one after the other, that did not open while the server was there
		let state = /** @type {State} */ ('connecting');
		let detail = '';
		while (this.#running) {
			const attach = this.#attach = new AbortController();
			this.#opened = 0;
			this.#on.state(state, detail);
			const end = await this.#connect(attach.signal).catch((e) => e instanceof End ? e : new End('network', 'the server cannot be reached'));
			const opened = this.#opened;
			attach.abort(); // timers and streams of this connection end with it
			if (this.#attach !== attach || !this.#running) return; // stopped, and perhaps started anew
			if (end.code === 'changed') { // the transport or the topics: at once, and no failure
				[state, detail, failures, useless] = ['connecting', '', 0, 0];
				continue;
			}
			// A request that was given up may overtake the one that replaced it; then the session took itself over.
			const own = end.code === 'superseded' && performance.now() - this.#changed < OVERTAKEN;
			if (FINAL.has(end.code) && !own) {
				this.#running = false;
				this.#on.state('ended', end.message);
				return;
			}
			if (opened && performance.now() - opened > STABLE) failures = 0;
			[state, detail] = ['reconnecting', end.message];
			const next = NEXT[this.#transport];
			if (opened || !next) useless = 0;
			else {
				const probe = this.#attach = new AbortController();
				this.#on.state(state, detail);
				useless = await this.#there(probe.signal) ? useless + 1 : 0;
				if (this.#attach !== probe || !this.#running) return; // stopped, and perhaps started anew
				if (probe.signal.aborted) {
					[state, detail, failures, useless] = ['connecting', '', 0, 0];
					continue;
				}
				if (useless === FAILURES) {
					this.#on.fallback(this.#transport, next, end.message);
					this.#transport = next;
					[state, detail, failures, useless] = ['connecting', '', 0, 0];
					continue;
				}
			}
			if (end.code === 'unknown-client' && this.#id !== '0' && failures === 0) {
				this.#id = '0'; // register again and keep the cursor
				failures++;
				continue;
			}
			if (end.code === 'unknown-client') this.#id = '0';
			const most = failures === 0 && opened ? this.#spread : Math.min(MAX_DELAY, 500 * 2 ** Math.min(failures, 10));
			failures++;
			const delay = end.code === 'rate' ? end.retryMs || most : Math.random() * (end.retryMs || most);
			const pause = this.#attach = new AbortController();
			this.#on.state(state, detail);
			await sleep(delay, pause.signal);
			if (this.#attach !== pause) return;
		}
	}

	/** Reports whether the server serves: then a connection that does not open fails for its transport. @param {AbortSignal} signal */
	async #there(signal) {
		try {
			const headers = { 'Gpoll-Client-Id': PROBE };
			const response = await fetch(this.#mount, { headers, signal: AbortSignal.any([signal, AbortSignal.timeout(FIRST_BYTE)]), cache: 'no-store' });
			return response.headers.get('Gpoll-Error') === 'unknown-client';
		} catch {
			return false;
		}
	}

	/** Runs one connection to its end, which it throws or returns. @param {AbortSignal} signal @returns {Promise<End>} */
	async #connect(signal) {
		try {
			switch (this.#transport) {
				case 'websocket': return await this.#webSocket(signal);
				case 'sse': return await this.#events(signal);
				default: return await this.#poll(signal);
			}
		} catch (e) {
			throw signal.aborted && !(e instanceof End) ? new End('changed', '') : e;
		}
	}

	#open() {
		if (this.#opened) return;
		this.#opened = performance.now();
		this.#on.state('open', '');
	}

	/** One element of the JSON form. @param {any} e */
	#element(e) {
		if (e.gap) {
			if (e.gap.reason === 'future') this.#newest = ''; // the log is shorter than the cursor said
			this.#on.gap(e.gap);
			if (e.gap.reason !== 'future' && !e.gap.to.endsWith('-0')) this.#move(e.gap.to);
		} else if (e.id && isAfter(e.id, this.#newest)) {
			this.#newest = e.id;
			this.#on.message(e, this.#transport);
			this.#move(e.id);
		}
	}

	/** @param {string} position */
	#move(position) {
		if (!position) return;
		this.#cursor = position;
		this.#on.position(position);
	}

	// WebSocket: the client speaks first, and every frame is JSON.
	/** @param {AbortSignal} signal @returns {Promise<End>} */
	#webSocket(signal) {
		return new Promise((resolve, reject) => {
			const ws = new WebSocket(this.#mount.replace(/^http/, 'ws') + '/ws', 'gpoll.v1');
			const end = (/** @type {End} */ e) => {
				ws.onopen = ws.onmessage = ws.onclose = null;
				ws.close();
				reject(e);
			};
			signal.addEventListener('abort', () => end(new End('changed', '')));
			let heartbeat = this.#heartbeat;
			// Pings are not visible here. After a silence, ask for something that is answered.
			const watch = () => {
				const probe = setTimeout(() => ws.readyState === WebSocket.OPEN && ws.send('{"subscribe":[]}'), 1.2 * heartbeat);
				const dead = setTimeout(() => end(new End('network', 'the server has fallen silent')), 2.2 * heartbeat);
				return () => { clearTimeout(probe); clearTimeout(dead); };
			};
			const unopened = setTimeout(() => end(new End('network', 'the WebSocket does not open')), FIRST_BYTE);
			let heard = () => clearTimeout(unopened);
			signal.addEventListener('abort', () => heard());
			ws.onopen = () => ws.send(JSON.stringify({ hello: {
				'client-id': this.#id, topics: this.#topics, ...(this.#cursor && { after: this.#cursor }),
			} }));
			ws.onmessage = ({ data }) => {
				heard();
				heard = watch();
				const frame = JSON.parse(data);
				if (frame.welcome) {
					this.#id = frame.welcome['client-id'];
					heartbeat = frame.welcome.heartbeat_ms || heartbeat;
					this.#spread = frame.welcome.spread_ms || this.#spread;
					if (!this.#cursor) this.#move(frame.welcome.position);
					this.#open();
				} else if (frame.position) {
					this.#move(frame.position);
				} else {
					this.#element(frame);
				}
			};
			ws.onclose = ({ code, reason }) => {
				heard();
				if (!this.#opened && code === 1006) return end(new End('network', 'the WebSocket was refused, perhaps by a proxy that does not pass Upgrade on'));
				const retry = /retry_ms=(\d+)/.exec(reason);
				end(new End(CLOSE_CODES[code] || 'network', '', retry ? Number(retry[1]) : 0));
			};
		});
	}

	// Server-Sent Events by fetch: EventSource would put the client id into the address and hides why it was refused.
	/** @param {AbortSignal} signal @returns {Promise<End>} */
	async #events(signal) {
		const cut = new AbortController(); // by signal, or by silence
		signal.addEventListener('abort', () => cut.abort());
		let silence = setTimeout(() => cut.abort(new End('network', 'the event stream does not start')), FIRST_BYTE);
		try {
			const response = await this.#fetch('/events', { Accept: 'text/event-stream' }, cut.signal);
			const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
			let rest = '';
			let event = { type: '', data: /** @type {string[]} */ ([]), id: '' };
			for (;;) {
				const { value, done } = await reader.read();
				if (done) return new End('network', '');
				clearTimeout(silence);
				silence = setTimeout(() => cut.abort(new End('network', 'the server has fallen silent')), 2.2 * this.#heartbeat);
				const lines = (rest + value).split('\n');
				rest = lines.pop() ?? '';
				for (const line of lines) {
					const [, field, content] = /^([^:]*):? ?(.*?)\r?$/.exec(line) ?? [];
					if (line.trimEnd() === '') {
						const ended = this.#event(event);
						if (ended) return ended;
						event = { type: '', data: [], id: '' };
					} else if (field === 'data') event.data.push(content);
					else if (field === 'event') event.type = content;
					else if (field === 'id') event.id = content;
				}
			}
		} catch (e) {
			throw cut.signal.reason instanceof End ? cut.signal.reason : e;
		} finally {
			clearTimeout(silence);
			cut.abort();
		}
	}

	/** @param {{type: string, data: string[], id: string}} event @returns {End | undefined} the end, if this was it */
	#event({ type, data, id }) {
		const text = data.join('\n');
		const value = text && JSON.parse(text);
		switch (type) {
			case 'client-id':
				this.#id = value['client-id'];
				if (!this.#cursor) this.#move(id);
				this.#open();
				break;
			case 'gap':
				this.#element({ gap: value.gap ?? value });
				this.#move(id);
				break;
			case 'end':
				return new End(value.error, value.message, value.retry_ms);
			case 'position':
				this.#move(id);
				break;
			case '':
				if (value) this.#element(value); // else only a comment came
				break;
			default: // of a later server
		}
	}

	// Long-poll: ask, wait, ask again with the position of the answer.
	/** @param {AbortSignal} signal @returns {Promise<End>} */
	async #poll(signal) {
		for (;;) {
			const started = performance.now();
			const cut = new AbortController();
			const stop = () => cut.abort();
			signal.addEventListener('abort', stop);
			const waiting = setTimeout(() => this.#open(), POLL_OPEN);
			const silence = setTimeout(() => cut.abort(new End('network', 'the server has fallen silent')), 1.1 * this.#pollWait + 10_000);
			let batch;
			try {
				batch = await (await this.#fetch('', { Accept: 'application/json' }, cut.signal)).json();
			} catch (e) {
				throw cut.signal.reason instanceof End ? cut.signal.reason : e;
			} finally {
				clearTimeout(waiting);
				clearTimeout(silence);
				signal.removeEventListener('abort', stop);
			}
			if (signal.aborted) return new End('changed', ''); // the same cursor again, on the next transport
			const registered = this.#id === '0';
			if (batch['client-id']) this.#id = batch['client-id'];
			this.#open();
			for (const e of batch.messages ?? []) this.#element(e);
			this.#move(batch.position);
			if (!batch.messages?.length && !registered) await sleep(POLL_FLOOR - (performance.now() - started), signal);
		}
	}

	/** Asks the mount, and throws the End that a refusal means. @param {string} path @param {Record<string, string>} headers @param {AbortSignal} signal */
	async #fetch(path, headers, signal) {
		const query = new URLSearchParams({ format: 'json' });
		if (this.#cursor) query.set('after', this.#cursor);
		for (const topic of this.#topics) query.append('topic', topic);
		const response = await fetch(`${this.#mount}${path}?${query}`, { headers: { 'Gpoll-Client-Id': this.#id, ...headers }, signal, cache: 'no-store' });
		if (response.ok) return response;
		const refusal = await response.json().catch(() => ({}));
		throw new End(refusal.error ?? 'network', refusal.message ?? `the server answered ${response.status}`, refusal.retry_ms);
	}
}

/** What the server says of an error, as a sentence for people. @param {string} text */
export function sentence(text) {
	return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}

/** Reports whether position a comes after b; in another epoch, or without b, it does. @param {string} a @param {string} b */
function isAfter(a, b) {
	const [epochA, seqA] = a.split('-');
	const [epochB, seqB] = b.split('-');
	return epochA !== epochB || Number(seqA) > Number(seqB);
}

/** @param {number} ms @param {AbortSignal} signal  ends it early */
function sleep(ms, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, ms);
		signal.addEventListener('abort', () => { clearTimeout(timer); resolve(undefined); });
	});
}
