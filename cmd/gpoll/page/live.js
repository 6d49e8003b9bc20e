// The page's session: a GpollSource of the shipped client, over a network with faults on demand.

import { root } from './dom.js';
import { Socket, fetch } from './path.js';

export const mount = new URL(root.mount, location.href).href;

/** The client that the server itself serves. @type {typeof import('../../../js/gpoll.js')} */
const client = await import(`${mount}/client.js`);
export const { GpollSource } = client;

// What failed in this tab before may have been a fault on demand: each load of the page begins anew.
try { sessionStorage.clear(); } catch { /* this browser keeps nothing */ }

/** @typedef {import('../../../js/gpoll.js').Status} Status */

/** The order in which transports are tried. */
export const ALL = /** @type {const} */ (['websocket', 'sse', 'long-poll']);

/** @type {InstanceType<typeof GpollSource> | undefined} */ let source;
/** @type {() => void} */ let takeBack = () => {};
/** @type {import('../../../js/gpoll.js').Transport | ''} */ let chosen = ''; // '': all
/** @type {string[]} */ let topics = [];
let place = root.after; // after which a new client begins

/** @typedef {{message: any, gap: any, status: Status, source: InstanceType<typeof GpollSource>, topics: string[]}} Events */
/** @type {{[K in keyof Events]: ((e: Events[K]) => void)[]}} */
const listeners = { message: [], gap: [], status: [], source: [], topics: [] };

/** @template {keyof Events} K @param {K} type @param {(e: Events[K]) => void} f */
export const on = (type, f) => { listeners[type].push(f); };

/** @template {keyof Events} K @param {K} type @param {Events[K]} e */
const tell = (type, e) => { for (const f of listeners[type]) f(e); };

/** Up to where the page has what it is owed. */
export const position = () => source?.position || place;
export const running = () => !!source && source.readyState !== GpollSource.CLOSED;
export const status = () => source?.status;

/** Connects, behind what the page has. */
export function start() {
	if (running()) return;
	const s = source = new GpollSource(mount, { after: place || undefined, transports: chosen ? [chosen] : [...ALL], WebSocket: Socket, fetch: /** @type {any} */ (fetch) });
	takeBack = s.subscribe(topics);
	s.onmessage = (e) => tell('message', e);
	s.ongap = (e) => tell('gap', e);
	s.onstatus = (e) => tell('status', e);
	s.onerror = (e) => e.topics && tell('status', e);
	tell('source', s);
	tell('status', s.status);
}

/** Disconnects. start goes on where this left off. */
export function stop() {
	if (!source) return;
	place = source.position || place;
	source.close();
}

/** @param {import('../../../js/gpoll.js').Transport | ''} transport that alone may be used; '' lets all */
export function use(transport) {
	if (transport === chosen) return;
	const was = running();
	chosen = transport;
	stop();
	if (was) start();
}

/** @param {string[]} names */
export function subscribe(names) {
	const old = takeBack;
	topics = names;
	if (running() && source) takeBack = source.subscribe(names);
	old();
	tell('topics', names);
}
