// The network between this page and the server, with faults on demand. The client takes it by its options WebSocket and
// fetch; it cannot tell these faults from real ones.

/** Lasting faults. */
const cut = { websocket: false, stream: false };
let dropping = false; // what comes next
let other = false; // network: the next poll meets it
/** What ends when the network is another one. @type {Set<(how: 'break' | 'change') => void>} */
const open = new Set();
/** @type {Set<() => void>} */ const watchers = new Set();

/** @param {() => void} f is called when a fault has begun, has ended or has done its work */
export const onChange = (f) => { watchers.add(f); };
const changed = () => { for (const f of watchers) f(); };

export const faults = () => ({ ...cut, dropping });

/** No WebSocket passes, until it is mended. @param {boolean} on */
export function cutWebSocket(on) {
	set({ websocket: on });
}

/** A proxy that holds the stream's bytes back, and passes no WebSocket either. @param {boolean} on */
export function bufferStream(on) {
	set({ websocket: on, stream: on });
}

/** @param {Partial<typeof cut>} now */
function set(now) {
	other = cut.websocket && now.websocket === false;
	Object.assign(cut, now);
	// A client leaves a transport that failed alone for ten minutes, unless the network turns out to be another one.
	for (const end of [...open]) end(other ? 'change' : 'break');
	changed();
}

/** Throws away what comes next, and with it the connection that brought it. */
export function dropNext() {
	dropping = true;
	changed();
}

/** @returns {boolean} whether this is to be thrown away */
function drops() {
	if (!dropping) return false;
	dropping = false;
	changed();
	return true;
}

/** A WebSocket, as much of it as the client uses. */
export class Socket {
	/** @type {((e: any) => void) | null} */ onopen = null;
	/** @type {((e: any) => void) | null} */ onmessage = null;
	/** @type {((e: any) => void) | null} */ onclose = null;
	/** @type {WebSocket | undefined} */ #ws;

	/** @param {string} url @param {string} protocol */
	constructor(url, protocol) {
		if (cut.websocket) {
			setTimeout(() => this.#broken());
			return;
		}
		const ws = this.#ws = new WebSocket(url, protocol);
		const end = () => {
			if (cut.websocket) this.#broken();
		};
		open.add(end);
		ws.onopen = (e) => {
			other = false;
			this.onopen?.(e);
		};
		ws.onmessage = (e) => /^{"id"/.test(e.data) && drops() ? this.#broken() : this.onmessage?.(e);
		ws.onclose = (e) => {
			open.delete(end);
			this.onclose?.(e);
		};
	}

	get protocol() { return this.#ws?.protocol ?? ''; }
	get readyState() { return this.#ws?.readyState ?? 3; }
	/** @param {string} frame */
	send(frame) { this.#ws?.send(frame); }
	close() { this.#ws?.close(); }

	#broken() {
		const ws = this.#ws;
		if (ws) ws.onmessage = null;
		ws?.close();
		this.onclose?.({ code: 1006, reason: '' });
		this.onclose = null;
	}
}

/** @param {string} url @param {RequestInit} init @returns {Promise<Response>} */
export async function fetch(url, init) {
	if (init.method === 'POST' && new URL(url).pathname.endsWith('/commands')) return globalThis.fetch(url, init);
	const stream = new Headers(init.headers).get('Accept') === 'text/event-stream';
	return stream ? events(await globalThis.fetch(url, init), init.signal) : poll(url, init);
}

/** An answer that something between here and the server has made up. */
const stranger = () => new Response('<!doctype html><title>Another network</title>', { headers: { 'Content-Type': 'text/html' } });

/** @param {string} url @param {RequestInit} init */
async function poll(url, init) {
	if (other) {
		other = false;
		return stranger();
	}
	/** @type {(how: 'break' | 'change') => void} */ let end = () => {};
	/** @type {Promise<Response>} */
	const ended = new Promise((resolve) => {
		end = (how) => {
			if (how === 'break') return;
			other = false;
			resolve(stranger());
		};
		open.add(end);
	});
	return Promise.race([ended, globalThis.fetch(url, init).then(answer)]).finally(() => open.delete(end));
}

/** @param {Response} r */
async function answer(r) {
	const text = await r.text();
	if (/"messages":\[\{/.test(text) && drops()) throw new TypeError('the answer was dropped');
	return new Response(text, { status: r.status, headers: r.headers });
}

/** @param {Response} r @param {AbortSignal | null} [signal] */
function events(r, signal) {
	if (!r.ok || !r.body) return r;
	/** @type {TransformStreamDefaultController<Uint8Array>} */ let out;
	const text = new TextDecoder();
	/** @param {'break' | 'change'} how */
	const end = (how) => {
		open.delete(end);
		// The word of a proxy that lets no stream pass: the client then takes the network for another one.
		if (how === 'change') out.enqueue(new TextEncoder().encode('\n\nevent: end\ndata: {"error":"no-stream","message":"another network"}\n\n'));
		else if (cut.stream) out.error(new TypeError('the stream broke'));
	};
	open.add(end);
	signal?.addEventListener('abort', () => open.delete(end));
	const through = new TransformStream({
		start(controller) { out = controller; },
		transform(bytes, controller) {
			if (cut.stream) return; // held back
			if (/^data: {"id"/m.test(text.decode(bytes)) && drops()) controller.error(new TypeError('the stream broke'));
			else controller.enqueue(bytes);
		},
	});
	return new Response(r.body.pipeThrough(through), { status: r.status, headers: r.headers });
}
