/**
 * What a page says to the server, and what the server asks it: the part of GpollSource that is loaded at the first of
 * both. docs/protocol.md, "Commands" and "Requests of the server".
 */

/**
 * @typedef {object} Attach what carries the client at the moment
 * @property {number} opened
 * @property {WebSocket} [ws]
 * @property {AbortController} life
 */
/**
 * What this module uses of a GpollSource.
 * @typedef {object} Source
 * @property {Attach} [_attach]
 * @property {string} _id
 * @property {string} _token
 * @property {number} _newest request of the server
 * @property {number} readyState
 * @property {((data: string | Uint8Array) => unknown) | null} [onrequest]
 * @property {(body: string, init: RequestInit) => Promise<Response>} _post
 */
/**
 * @typedef {object} Command
 * @property {string} id
 * @property {string} frame
 * @property {string} [client] the client id by which it has to come
 * @property {Attach} [by] what has brought it
 * @property {(value: any) => void} resolve
 * @property {(reason: any) => void} reject
 */

const pipelined = 32; // commands under way on a WebSocket
const batched = 100, batchBytes = 6e4; // in one request
const frameBytes = 65e3;

/**
 * payload is data as a command carries it.
 * @param {unknown} data
 */
function payload(data) {
  if (typeof data == "string") return { data };
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) :
    ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : undefined;
  if (!bytes) throw new TypeError("gpoll: data is a string, an ArrayBuffer or a view of one; use JSON.stringify for objects");
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { data64: btoa(text) };
}

export class Upstream {
  #source;
  #Fault;
  #dataOf;
  /** @type {Command[]} */
  #queue = [];
  #prefix = [...crypto.getRandomValues(new Uint8Array(10))].map(b => b.toString(16).padStart(2, "0")).join("") + "-";
  #last = 0;
  #posting = false;
  #alone = false; // one command at a time
  #until = 0; // none goes out before
  #failed = 0; // requests in a row

  /**
   * @param {Source} source
   * @param {typeof import("./gpoll.js").GpollError} fault the module is given what it needs of gpoll.js, which loads it
   * @param {(p: {data?: string, data64?: string}) => string | Uint8Array} dataOf
   */
  constructor(source, fault, dataOf) {
    this.#source = source;
    this.#Fault = fault;
    this.#dataOf = dataOf;
  }

  /**
   * Gives a command, and resolves to its answer.
   * @param {string} verb
   * @param {{data?: unknown, topic?: string, error?: string}} body
   * @param {{signal?: AbortSignal, id?: string, client?: string}} [o]
   * @returns {Promise<any>}
   */
  command(verb, body, { signal, id = this.#prefix + ++this.#last, client } = {}) {
    return new Promise((resolve, reject) => {
      const { data, ...rest } = body;
      const frame = JSON.stringify({ [verb]: rest.error ? rest : { ...rest, ...payload(data) }, id });
      if (this.#source.readyState == 2) throw new this.#Fault("stop", "closed");
      signal?.throwIfAborted();
      if (new TextEncoder().encode(frame).length > frameBytes)
        throw new RangeError("gpoll: a command has at most 65,000 bytes, and this one more; send it in parts");
      /** @type {Command} */
      const c = { id, frame, client, resolve, reject };
      this.#queue.push(c);
      signal?.addEventListener("abort", () => this.#settle(c, signal.reason));
      this.#pump();
    });
  }

  /** The client is attached, maybe by another id. */
  attached() {
    for (const c of [...this.#queue])
      if (c.client && c.client != this.#source._id)
        this.#settle(c, new this.#Fault("stop", "no-request", "the server has forgotten the client that it asked"));
    this.#pump();
  }

  /** @param {import("./gpoll.js").GpollError} fault */
  finish(fault) {
    for (const c of [...this.#queue]) this.#settle(c, fault);
  }

  /**
   * @param {Command} c
   * @param {unknown} [fault]
   * @param {unknown} [value]
   */
  #settle(c, fault, value) {
    const i = this.#queue.indexOf(c);
    if (i < 0) return;
    this.#queue.splice(i, 1);
    if (!this.#queue.length) this.#alone = false;
    if (fault) c.reject(fault);
    else c.resolve(value);
  }

  /** Sends what waits, through the door that is open: the WebSocket, or one POST at a time. */
  #pump() {
    const a = this.#source._attach, ms = this.#until - Date.now();
    if (!a?.opened || a.life.signal.aborted) return;
    const waiting = this.#queue.filter(c => c.by != a);
    if (!waiting.length) return;
    if (ms > 0) {
      setTimeout(() => this.#pump(), ms);
      return;
    }
    if (a.ws) {
      const room = (this.#alone ? 1 : pipelined) - (this.#queue.length - waiting.length);
      for (const c of waiting.slice(0, Math.max(room, 0))) {
        c.by = a;
        a.ws.send(c.frame);
      }
    } else if (!this.#posting) this.#bring(a, waiting);
  }

  /**
   * Brings commands by a request.
   * @param {Attach} a
   * @param {Command[]} waiting
   */
  async #bring(a, waiting) {
    let size = 0;
    let most = waiting.findIndex(c => (size += 3 * c.frame.length) > batchBytes);
    if (most < 0) most = batched;
    const batch = waiting.slice(0, this.#alone ? 1 : Math.min(Math.max(most, 1), batched));
    for (const c of batch) c.by = a;
    const source = this.#source, token = source._token;
    this.#posting = true;
    try {
      const r = await source._post("[" + batch.map(c => c.frame) + "]", { signal: AbortSignal.timeout(6e4) });
      for (const f of await r.json()) this.answered(f, batch.length);
      this.#failed = 0;
    } catch (e) {
      const fault = e instanceof this.#Fault ? e : new this.#Fault("back", "broken");
      if (fault.course == "token" && token && token == source._token) { // an attach asks for another one
        source._token = "";
        a.life.abort(new this.#Fault("again", "again"));
      }
      const final = fault.course == "stop" || fault.course == "down" || fault.course == "token" && !token;
      if (final && batch.length > 1) this.#alone = true; // to learn which is to blame
      else if (final) this.#settle(batch[0], fault);
      else this.#until = Date.now() + (fault.retry || Math.random() * Math.min(500 * 2 ** this.#failed++, 3e4));
    }
    for (const c of batch) if (c.by == a) c.by = undefined;
    this.#posting = false;
    this.#pump();
  }

  /**
   * Takes in what came of a command, which came to the server in a batch of so many.
   * @param {Record<string, any>} f
   * @param {number} batch
   */
  answered(f, batch) {
    const answer = f.sent || f.published || f.reply || f.replied, e = f.error;
    const c = this.#queue.find(c => c.id == (answer || e)?.id);
    if (!c) return;
    if (answer) this.#settle(c, undefined, f.reply ? this.#dataOf(answer) : answer.position);
    else if (/^(rate|unavailable|unknown-outcome|shutdown|closed|unknown-client)$/.test(e.code) || e.code == "internal" && batch > 1) {
      c.by = undefined;
      this.#alone = true; // and at the server's pace
      this.#until = Date.now() + (e.retry_ms || (e.code == "internal" ? 0 : 1e3));
    } else this.#settle(c, new this.#Fault("stop", e.code, e.message));
    this.#pump();
  }

  /**
   * Answers a request of the server. It comes again until it is answered, and is done once.
   * @param {{id: string, data?: string, data64?: string}} q
   */
  asked(q) {
    if (+q.id <= this.#source._newest) return;
    this.#source._newest = +q.id;
    this.#answer(q);
  }

  /** @param {{id: string, data?: string, data64?: string}} q */
  async #answer(q) {
    const source = this.#source, client = source._id;
    /** @type {{data?: unknown, error?: string}} */
    let reply;
    try {
      if (!source.onrequest) throw new Error("this client answers no requests");
      reply = { data: await source.onrequest(this.#dataOf(q)) ?? "" };
      payload(reply.data);
    } catch (e) {
      reply = { error: String(/** @type {any} */ (e)?.message || e) };
    }
    if (client == source._id) this.command("reply", reply, { id: q.id, client }).catch(() => { });
  }
}
