/**
 * The browser client of gpoll: it stays attached to a server by WebSocket, SSE or long-poll, whichever the network lets
 * through, in one session that survives the change. The rules are those of docs/protocol.md, section 16, and of the Go
 * client.
 *
 * A message goes: #socket, #events or #polls (one attach each) → _take (the cursor drops what came before) → #emit.
 * A command goes by upstream.js, which is loaded at the first one, and presence by presence.js.
 */

/** @typedef {"websocket" | "sse" | "long-poll"} Transport */
/** @typedef {"back" | "register" | "token" | "down" | "life" | "stop" | "again"} Course what to do after an end */
/** @typedef {{id: string, topic?: string, data?: string, data64?: string, gap?: {from?: string, to?: string, reason: string}}} Element */
/** @typedef {{transport: Transport, lives: number, reason: any, until: number}} Rung */
/**
 * One attempt to be carried by a transport.
 * @typedef {object} Attach
 * @property {Rung} rung
 * @property {AbortController} life aborted with the fault that ends the attach
 * @property {number} opened when the server attached the client; 0: not yet
 * @property {number} heard when something came last
 * @property {number} limit how long nothing may come
 * @property {Wish} [wish] what the last request said
 * @property {Handshake} [beside] is under way; the first that works wins
 * @property {WebSocket} [ws]
 * @property {any[][]} asked frames about topics that have no answer yet
 * @property {ReturnType<typeof setTimeout>} [dog]
 * @property {ReturnType<typeof setTimeout>} [timer]
 */
/** @typedef {WebSocket & {open: Promise<unknown>}} Handshake */
/** @typedef {{id: string, authorization?: string, fallback?: string, body: {topics: string[], last?: any, presence?: string[] | "", [key: string]: any}}} Wish */

const young = 5e3; // ms: an attach that breaks before has died young
const leftBy = 6e5; // so long a transport that failed is left alone
const longest = 3e4; // wait between two attempts

/** What went wrong. code is the server's word for it, or "unreachable", "silent", "stranger", "broken" or "closed". */
export class GpollError extends Error {
  name = "GpollError";
  /**
   * @param {Course} course
   * @param {string} code
   * @param {string} [message]
   * @param {number} [retry] ms after which the server wants the client back
   */
  constructor(course, code, message = code, retry) {
    super(message);
    this.course = course;
    this.code = code;
    this.retry = retry || 0;
  }
}

const again = new GpollError("again", "again");
const broken = new GpollError("life", "broken");
const silent = new GpollError("down", "silent");
/** @param {string} what */
const stranger = what => new GpollError("down", "stranger", "not of gpoll: " + what);

/**
 * refusal is the server's word that it refuses a request, or ends an attach. status is that of HTTP or of a close frame.
 * See section 11 of docs/protocol.md.
 * @param {string} code
 * @param {string} message
 * @param {number} retry
 * @param {number} status
 */
const refusal = (code, message, retry, status) => new GpollError(
  /unknown-c|expired|buffer-f/.test(code) ? "register" :
    code == "unauthorized" ? "token" :
      /not-web|no-str/.test(code) ? "down" :
        /forbid|origin|supers|removed|refused|large|left/.test(code) ? "stop" :
          /slow|timeout|unavail|shutdown|closed|rate|clients|internal/.test(code) ? "back" :
            status == 1008 ? "life" :
              /^(40[^48]|4[13].|42[^9]|100[2379])$/.test("" + status) ? "stop" : "back", code, message, retry);

const now = Date.now; // runs on while the machine sleeps
const idle = () => /** @type {any} */ (globalThis).scheduler?.yield?.(); // the page wants to be drawn, too
/** @param {string} position */
const epochOf = position => position.slice(0, 16);
/** @param {string} position */
const seqOf = position => +position.slice(17);
/**
 * What a message or a command carries.
 * @param {{data?: string, data64?: string}} p
 */
const dataOf = p => p.data64 == null ? p.data ?? "" : Uint8Array.from(atob(p.data64), c => c.charCodeAt(0));

/**
 * A GpollSource is one client of a gpoll server.
 */
export class GpollSource extends EventTarget {
  /** @readonly @type {0} */ static CONNECTING = 0;
  /** @readonly @type {1} */ static OPEN = 1;
  /** @readonly @type {2} */ static CLOSED = 2;

  /** @type {0 | 1 | 2} */
  readyState = 0;
  /** @type {import("./gpoll.js").Status} */
  status = { state: "connecting", transport: "", reasons: [] };

  /** @type {import("./gpoll.js").Options} */
  #options;
  #Socket;
  /** @type {Rung[]} */
  #ladder = [];
  /** @type {Attach | undefined} */
  _attach;
  /** @type {Handshake | undefined} */
  #climbed;
  /** @type {any[]} */
  #told = []; // the reasons that the server knows
  _id = "";
  _token = "";
  #renewed = false;
  _strayed = -longest;
  #spread = 100;
  #backoff = 0;
  #heartbeat = 15e3;
  /** @type {(() => void) | undefined} */
  _wake; // ends the wait between two attempts
  #parked = false; // the page is in the back/forward cache
  _rests = false; // another tab listens for this one
  /** @type {Set<import("./iterate.js").Queue>} */
  #queues = new Set(); // of the loops over this

  // The cursor. #adrift: the log has gone on elsewhere, and the next Position tells where.
  _at = "";
  #adrift = false;
  #lastGap = "";
  #start = ""; // where the stream began, while messages of Options.last come that are older

  /** @type {Map<string, number>} */
  #topics = new Map(); // and how many have subscribed to each
  /** @type {Map<string, {fns: Set<(p: any) => void>, told?: {count: number, members: Map<string, any>}}>} */
  _watched = new Map();
  _presenceAt = "";
  #changing = false;
  /** @type {string[]} */
  _granted = [];

  _newest = 0; // request of the server
  /** @type {import("./upstream.js").Upstream | undefined} */
  _up;

  /**
   * @param {string | URL} url
   * @param {import("./gpoll.js").Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.url = new URL(url, globalThis.location?.href).href.replace(/\/*([?#].*)?$/, "");
    this.withCredentials = !!options.withCredentials;
    this.#options = options;
    this._at = options.after || "";
    for (const topic of [options.topics || []].flat()) this.#topics.set(topic, 1);
    for (const type of ["message", "gap", "open", "error", "status"])
      this.addEventListener(type, e => /** @type {any} */ (this)["on" + type]?.(e));
    this.#Socket = options.WebSocket || globalThis.WebSocket;
    for (const transport of options.transports || /** @type {Transport[]} */ (["websocket", "sse", "long-poll"]))
      if (transport != "websocket" || this.#Socket) this.#ladder.push({ transport, lives: 3, reason: "", until: 0 });
    try { // what failed a page ago is not tried again at once
      this.#ladder = JSON.parse(sessionStorage[this.url + options.transports]);
    } catch { }
    this.#listen("add");
    queueMicrotask(() => this.#run()); // the page sets its handlers first
  }

  /** @type {((e: any) => void) | null | undefined} */ onmessage;
  /** @type {((e: any) => void) | null | undefined} */ ongap;
  /** @type {((e: any) => void) | null | undefined} */ onopen;
  /** @type {((e: any) => void) | null | undefined} */ onerror;
  /** @type {((e: any) => void) | null | undefined} */ onstatus;
  /** @type {import("./gpoll.js").GpollSource["onrequest"]} */ onrequest;

  get id() { return this._id; }
  get position() { return this._at || this.#start; }
  get topics() { return [...this.#topics.keys()]; }
  get _topics() { return this.topics; }

  /**
   * @param {string | string[]} topics
   * @param {(m: any) => void} [f]
   */
  subscribe(topics, f) {
    const names = [topics].flat();
    const pattern = RegExp("^(" + names.join("|").replace(/[.*>]/g, c => c == "." ? "\\." : c == "*" ? "[^.]*" : ".*") + ")$");
    /** @param {any} e */
    const hear = e => pattern.test(e.topic) && f?.(e);
    for (const name of names) this.#topics.set(name, (this.#topics.get(name) || 0) + 1);
    this.addEventListener("message", hear);
    this._change();
    return () => {
      this.removeEventListener("message", hear);
      for (const name of names.splice(0)) {
        const count = this.#topics.get(name) || 0;
        count > 1 ? this.#topics.set(name, count - 1) : this.#topics.delete(name);
      }
      this._change();
    };
  }

  /**
   * @param {string | string[]} topics
   * @param {(p: any) => void} f
   */
  presence(topics, f) {
    const stop = this.#presence(p => p.watch(this, [topics].flat(), f));
    return () => { stop.then(stop => stop()); };
  }

  /**
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  send(data, o) { return this._command("send", { data }, o); }

  /**
   * @param {string} topic
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  publish(topic, data, o) { return this._command("publish", { topic, data }, o); }

  /**
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  request(data, o) { return this._command("request", { data }, o); }

  close() { this.#finish(new GpollError("stop", "closed")); }

  async *[Symbol.asyncIterator]() {
    /** @type {import("./iterate.js").Queue} */
    const queue = { events: [] };
    this.#queues.add(queue);
    try {
      yield* (await import("./iterate.js")).iterate(this, queue, () => this._wake?.());
    } finally {
      this.#queues.delete(queue);
      this._wake?.();
    }
  }

  // -- The session -----------------------------------------------------------------------------------------------------

  async #run() {
    try {
      this._tell("connecting");
      while (this.readyState < 2) {
        const wait = await this.#walk();
        if (wait) await this.#sleep(wait);
      }
    } catch (fault) {
      this.#finish(/** @type {GpollError} */ (fault));
    }
  }

  /**
   * Goes down the ladder to the first transport that works, stays there until the attach ends, and returns how long to wait
   * before the next walk. It throws why there is none.
   */
  async #walk() {
    while (this.#parked || this._rests || this.#crowded()) await this.#sleep(leftBy);
    /** @type {Handshake | undefined} */
    let beside;
    let fault = broken;
    try {
      for (const rung of this.#ladder) {
        if (rung.until > now() && !this.#climbed) continue;
        /** @type {Attach} */
        const a = { rung, life: new AbortController(), opened: 0, heard: now(), limit: 0, asked: [], beside };
        this._attach = a;
        try {
          await Promise.race([
            new Promise((_, no) => a.life.signal.onabort = () => no(a.life.signal.reason)),
            rung.transport == "websocket" ? this.#socket(a) : rung.transport == "sse" ? this.#events(a) : this.#polls(a),
          ]);
        } catch (e) {
          fault = a.life.signal.aborted ? a.life.signal.reason : e instanceof GpollError ? e : broken;
        }
        a.life.abort(fault);
        clearTimeout(a.dog);
        clearTimeout(a.timer);
        beside = a.beside == this.#climbed ? undefined : a.beside;
        if (this.readyState > 1) return 0;
        const wait = this.#react(a, rung, fault);
        this._strayed = now();
        if (wait >= 0) return wait;
      }
      if (beside) { // nothing else works, so there is time for it
        this._attach = undefined;
        if (await beside.open.then(() => 1, () => 0)) {
          this.#climbed = beside;
          beside = undefined;
          return 0;
        }
      }
    } finally {
      beside?.close();
    }
    for (const r of this.#ladder) r.until = 0;
    return this.#pause(fault);
  }

  /**
   * Decides what follows the end of an attach: -1 is the transport below, else ms until the next walk. Throws the end.
   * @param {Attach} a
   * @param {Rung} rung
   * @param {GpollError} fault
   */
  #react(a, rung, fault) {
    const age = a.opened && now() - a.opened;
    let course = fault.course;
    if (age >= 1e4) this.#backoff = 0; // without a fault for so long, the waits begin anew
    if (age >= young) Object.assign(rung, { lives: 3, reason: "", until: 0 });
    if (course == "again") return 0;
    if (/^(topic-forbidden|bad-topic|too-many-topics)$/.test(fault.code) && this.#takeBack(fault)) return 0;
    if (fault.code == "silent" && rung.transport != "websocket") this.#told = this.#reasons(rung);
    if (a.opened && course == "down") {
      for (const r of this.#ladder) r.until = 0;
      course = "back"; // it did work: this is the network
    } else if (course == "life" && age >= young) course = "back";
    else if (fault.code == "superseded" && now() - this._strayed < longest) course = "back"; // maybe by a late one of its own
    else if (course == "token") {
      if (!this.#options.token || this.#renewed) course = fault.code == "stranger" ? "down" : "stop";
      this.#renewed = true;
      this._token = "";
    }
    if (fault.code == "silent" && a.opened && rung.transport != "websocket") this.#heartbeat *= 2; // others do not say theirs
    if (course == "stop") throw fault;
    if (course == "register") this._id = "";
    if (course == "down") rung.lives = 0;
    if (course == "life") rung.lives--;
    if ((course == "down" || course == "life") && rung.lives <= 0) {
      const prefix = rung.transport == "websocket" ? "ws_" : "sse_";
      rung.reason = rung.transport == "long-poll" ? "poll_blocked" : prefix +
        (course == "life" ? "died_young" : fault.code != "silent" ? "refused" : prefix == "ws_" ? "silent" : "buffered");
      return -1;
    }
    return this.#pause(fault);
  }

  /** @param {GpollError} fault */
  #pause(fault) {
    this.#backoff = this.#backoff ? Math.min(2 * this.#backoff, longest) : this.#spread;
    const retry = fault.retry || Math.random() * this.#backoff + 1;
    const reasons = this.#reasons();
    if (!reasons.length && fault.code == "unreachable") reasons.push(fault.code);
    this._tell("waiting", { reasons, error: fault, retry });
    return retry;
  }

  /** @param {number} ms */
  #sleep(ms) {
    this._attach = undefined;
    return new Promise(done => {
      const timer = setTimeout(done, ms);
      this._wake = () => done(clearTimeout(timer));
    });
  }

  /**
   * The reasons why what stands above a rung is not used.
   * @param {Rung} [rung]
   */
  #reasons(rung) {
    return this.#above(rung).map(r => r.reason).filter(Boolean);
  }

  /** @param {Rung} [rung] none: below all */
  #above(rung) { return this.#ladder.slice(0, this.#ladder.findIndex(r => r == rung) >>> 0); }

  /**
   * @param {import("./gpoll.js").Status["state"]} state
   * @param {Partial<import("./gpoll.js").Status>} [more]
   */
  _tell(state, more) {
    /** @type {import("./gpoll.js").Status} */
    const status = { state, transport: "", reasons: this.#reasons(), ...more };
    const before = this.readyState;
    if (JSON.stringify(status) == JSON.stringify(this.status)) return;
    this.status = status;
    this.readyState = state == "connected" ? 1 : state == "closed" ? 2 : 0;
    this.#emit("status", status);
    if (this.readyState == 1 && before != 1) this.#emit("open", status);
    if (status.error && status.error.code != "closed") this.#emit("error", status);
  }

  /**
   * @param {string} type
   * @param {object} fields
   */
  #emit(type, fields) {
    const e = Object.assign(new Event(type), fields);
    for (const q of this.#queues) {
      if (type == "message" || type == "gap") q.events.push(/** @type {any} */ (e));
      q.wake?.();
    }
    this.dispatchEvent(e);
  }

  /** @param {GpollError} fault */
  #finish(fault) {
    if (this.readyState > 1) return;
    this.#listen("remove");
    if (fault.code == "closed" && this._id) this._post('{"leave":true}', { keepalive: true }).catch(() => { });
    this._attach?.life.abort(fault);
    this._tell("closed", { error: fault });
    this._up?.finish(fault);
    this._wake?.();
  }

  // The page's life. A page that comes back, from sleep, from the back/forward cache or to its network, looks at once
  // whether its connection still lives: by the time that has passed, for timers have stood still.

  /** @param {"add" | "remove"} verb */
  #listen(verb) {
    for (const type of ["pagehide", "pageshow", "online", "resume", "visibilitychange"])
      /** @type {any} */ (globalThis)[verb + "EventListener"]?.(type, this.#live, true);
  }

  /** @param {any} e */
  #live = e => {
    const a = this._attach;
    if (e.type == "pagehide") {
      if (!e.persisted) return this.close();
      this.#parked = true;
      return a?.life.abort(again); // a page with a connection is not kept
    }
    if (e.type == "pageshow") this.#parked = false;
    if (e.type == "online" || e.type == "pageshow") { // maybe by another network, which lets more through
      for (const r of this.#ladder) r.until = 0;
      this.#backoff = 0;
      setTimeout(() => this._wake?.(), Math.random() * this.#spread);
    }
    if (a?.limit) this.#watch(a, a.limit);
  };

  // -- Attaches --------------------------------------------------------------------------------------------------------

  /**
   * Ends a when nothing has come for limit ms. After a sleep, what came meanwhile is read first.
   * @param {Attach} a
   * @param {number} limit
   */
  #watch(a, limit) {
    a.limit = limit;
    /** @param {boolean} [last] */
    const look = last => {
      const left = a.heard + a.limit - now();
      if (left <= 0 && last) a.life.abort(silent);
      else a.dog = setTimeout(look, left > 0 ? left : 100, left <= 0);
    };
    clearTimeout(a.dog);
    look();
  }

  /**
   * What a request says of the client.
   * @param {Attach} a
   * @returns {Promise<Wish>}
   */
  async #wish(a) {
    if (this.#options.token && !this._token) {
      try {
        this._token = await this.#options.token();
      } catch (e) {
        throw new GpollError("back", "token", e + "");
      }
    }
    const { last, token } = this.#options, after = this.position, watched = [...this._watched.keys()];
    a.heard = now();
    return a.wish = {
      id: this._id || "0",
      authorization: token && "Bearer " + this._token,
      fallback: this.#reasons(a.rung).filter(r => !this.#told.includes(r)).join() || undefined,
      body: {
        topics: this._topics,
        after: after || undefined,
        last: after ? undefined : last,
        asked: this._id ? this._newest : 0,
        presence: watched[0] && watched,
        "presence-after": watched[0] && this._presenceAt || undefined,
      },
    };
  }

  /**
   * The server has attached the client.
   * @param {Attach} a
   * @param {string} id
   */
  #opened(a, id) {
    if (a.life.signal.aborted) return;
    this._granted = /** @type {Wish} */ (a.wish).body.topics;
    if (a.opened) return;
    const { rung } = a;
    a.opened = now();
    if (this._id != id) this._newest = 0;
    this._id = id;
    this.#renewed = false;
    if (a.beside && a.beside != this.#climbed) a.beside.close();
    a.beside = undefined;
    rung.reason = "";
    rung.until = 0;
    for (const r of this.#above(rung)) if (r.reason && r.until <= now()) r.until = now() + leftBy;
    try { sessionStorage[this.url + this.#options.transports] = JSON.stringify(this.#ladder); } catch { }
    this.#told = this.#reasons(rung);
    this.#later(a);
    this._tell("connected", { transport: rung.transport, reasons: this.#told });
    this._change();
    this._up?.attached();
  }

  /**
   * Tries the better transports again when it is time: a WebSocket beside the attach, SSE in its place.
   * @param {Attach} a
   */
  #later(a) {
    const left = this.#above(a.rung).filter(r => r.until).sort((r, s) => r.until - s.until)[0];
    if (left && !a.life.signal.aborted) a.timer = setTimeout(() => {
      if (left.transport != "websocket") return a.life.abort(again);
      left.until = now() + leftBy;
      this.#climb(a, this.#shake());
      this.#later(a);
    }, Math.max(left.until - now(), 3e3)); // a handshake that is under way may still succeed
  }

  /**
   * Lets a WebSocket take the place of a when its handshake has succeeded, if that is in time.
   * @param {Attach} a
   * @param {Handshake} [h]
   */
  #climb(a, h) {
    h?.open.then(() => {
      if (h.readyState > 1) return; // a was first
      if (a.life.signal.aborted) return a.beside || h.close(); // what is beside has gone on to the next attach
      this.#climbed = h;
      a.life.abort(again);
    }, () => { });
  }

  #shake() {
    const ws = /** @type {Handshake} */ (new this.#Socket(this.url.replace(/^http/, "ws") + "/ws", "gpoll.v1"));
    ws.open = new Promise((done, no) => {
      setTimeout(() => ws.protocol || ws.close(), 1e4);
      ws.onopen = () => ws.protocol ? done(0) : ws.close();
      ws.onclose = () => no(stranger("the WebSocket handshake"));
    });
    ws.open.catch(() => { });
    return ws;
  }

  /**
   * Carries the client by gpoll.v1.
   * @param {Attach} a
   */
  async #socket(a) {
    let ws = this.#climbed;
    this.#climbed = undefined;
    if (!ws) {
      a.beside = ws = this.#shake();
      await Promise.race([ws.open, new Promise((_, no) => a.timer = setTimeout(no, 2e3, silent))]);
      a.beside = undefined;
    }
    const s = ws;
    a.life.signal.addEventListener("abort", () => {
      s.onmessage = s.onclose = null;
      s.close();
    });
    const { id, body, ...rest } = await this.#wish(a);
    this.#watch(a, 5e3);
    s.send(JSON.stringify({ hello: { "client-id": id, ...rest, ...body } }));
    a.ws = s;
    await new Promise((_, no) => {
      s.onclose = e => {
        const code = /^[a-z-]+/.exec(e.reason)?.[0], retry = Number(/retry_ms=(\d+)/.exec(e.reason)?.[1]);
        no(code || e.code > 1001 && e.code != 1006 ? refusal(code || "close-" + e.code, e.reason, retry, e.code) : broken);
      };
      s.onmessage = e => {
        a.heard = now();
        try {
          this.#frame(a, JSON.parse(e.data));
        } catch {
          no(broken);
        }
      };
      if (s.readyState > 1) no(broken);
    });
  }

  /**
   * Takes in what the server says: a frame, or an event or a part of a batch in its form.
   * @param {Attach} a
   * @param {any} f
   */
  #frame(a, f) {
    if (a.life.signal.aborted) return;
    const { welcome, watching, error, request, presence } = f, granted = f.subscribed || f.unsubscribed || watching;
    if (f.id || f.gap) {
      this._take(f);
      if (this.#crowded()) a.life.abort(again);
    } else if (welcome) {
      this.#spread = welcome.spread_ms || this.#spread;
      this.#watch(a, (this.#heartbeat = welcome.heartbeat_ms || this.#heartbeat) * 2.2);
      if (a.wish?.body.last) this.#start = welcome.position;
      else this._scan(welcome.position);
      this.#opened(a, welcome["client-id"]);
    } else if (granted) {
      a.asked.shift();
      if (!watching) this._granted = /** @type {Wish} */ (a.wish).body.topics;
      this._scan(granted.position);
    } else if (f.position) this._scan(f.position);
    else if (presence) return this.#presence(p => p.told(this, presence));
    else if (request) return this.#upstream(u => u.asked(request));
    else if (error && !error.id) {
      const [verb, names] = a.asked.shift() || ["", []];
      this._refuse(new GpollError("stop", error.code, error.message), verb, names);
    } else this._up?.answered(f, 1);
  }

  /**
   * Makes a request of HTTP.
   * @param {string} path
   * @param {RequestInit} init
   * @param {{id: string, authorization?: string, fallback?: string}} wish
   * @param {Record<string, string>} [more] headers
   */
  async _fetch(path, init, { id, authorization, fallback }, more) {
    const headers = new Headers({ ...this.#options.headers, ...more, "Gpoll-Client-Id": id });
    if (init.body) headers.set("Content-Type", "application/json");
    if (authorization) headers.set("Authorization", authorization);
    if (fallback) headers.set("Gpoll-Fallback", fallback);
    const r = await (this.#options.fetch || fetch)(this.url + path, {
      ...(init.body && { method: "POST" }), ...init, headers, cache: "no-store", credentials: this.withCredentials ? "include" : "same-origin",
    }).catch(e => { throw new GpollError("back", "unreachable", e + ""); });
    if (r.ok) return r;
    const { status } = r, { error, message, retry_ms } = await r.json().catch(() => ({}));
    if (error) throw refusal(error, message, retry_ms, status);
    const fault = stranger("status " + status);
    if (status == 401) fault.course = "token";
    if (status > 499 || status == 408 || status == 429) fault.course = "life";
    throw fault;
  }

  /**
   * @param {string} body
   * @param {RequestInit} [init]
   */
  _post(body, init) {
    return this._fetch("/commands", { ...init, body }, { id: this._id, authorization: this._token && "Bearer " + this._token });
  }

  /**
   * Makes a poll or an SSE request: a GET, or a POST where there are too many topics for a query.
   * @param {Attach} a
   * @param {string} path
   * @param {string} Accept
   */
  async #read(a, path, Accept) {
    const w = await this.#wish(a), { signal } = a.life, q = new URLSearchParams({ format: "json" });
    for (const [key, value] of Object.entries(w.body))
      if (value != null) for (const v of [value].flat()) q.append(key == "topics" ? "topic" : key, v);
    return (q + "").length < 1500 ? this._fetch(path + "?" + q, { signal }, w, { Accept }) :
      this._fetch(path, { body: JSON.stringify({ ...w.body, format: "json" }), signal }, w, { Accept });
  }

  /**
   * Carries the client by SSE.
   * @param {Attach} a
   */
  async #events(a) {
    this.#climb(a, a.beside);
    this.#watch(a, 5e3); // for the first event; after that time something on the way keeps events back
    const r = await this.#read(a, "/events", "text/event-stream"), type = r.headers.get("Content-Type") + "";
    if (!/^text\/event-stream/.test(type) || !r.body) throw stranger(type);
    const reader = r.body.getReader(), text = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw broken; // a stream ends with an event that says so
      if (a.opened) a.heard = now();
      const events = (rest + text.decode(value, { stream: true }).replace(/\r/g, "")).split("\n\n");
      rest = events.pop() + "";
      for (const lines of events) {
        const { event, id, data } = Object.fromEntries(lines.split("\n").map(line => line.split(/: ?(.*)/)));
        const f = data && JSON.parse(data);
        if (event == "end") throw refusal(f.error, f.message, f.retry_ms, 0);
        if (f || event) this.#frame(a, event == "client-id" ? { welcome: { ...f, position: id } } : event ? { [event]: f || id } : f);
      }
      await idle();
    }
  }

  /**
   * Carries the client by long-poll.
   * @param {Attach} a
   */
  async #polls(a) {
    this.#climb(a, a.beside);
    for (;;) {
      const begun = now(), id = this._id;
      this.#watch(a, this.#heartbeat * 2.7);
      const granted = setTimeout(() => id && this.#opened(a, id), 1e3); // for what is refused, is refused at once
      const r = await this.#read(a, "", "application/json").finally(() => clearTimeout(granted));
      const batch = await r.json().catch(e => { throw e instanceof SyntaxError ? stranger("a poll") : broken; });
      const { messages, requests = [], presence, position } = batch;
      if (!messages[0]) this._scan(position);
      this.#opened(a, batch["client-id"]);
      for (const e of messages) {
        this.#frame(a, e);
        if (/00$/.test(e.id)) await idle();
      }
      this.#frame(a, { position });
      for (const request of requests) await this.#frame(a, { request }); // the next poll says that they are known
      await this.#frame(a, { presence });
      if (a.life.signal.aborted) return;
      const floor = 250 + begun - now();
      if (id && floor > 0 && !messages[0] && !requests[0] && !presence) await new Promise(done => setTimeout(done, floor));
    }
  }

  // -- What a page that only listens does not load ----------------------------------------------------------------------

  /**
   * @param {string} verb
   * @param {any} body
   * @param {object} [o]
   * @returns {Promise<any>}
   */
  async _command(verb, body, o) {
    return this.#upstream(u => u.command(verb, body, o));
  }

  /** @param {(u: import("./upstream.js").Upstream) => any} f */
  async #upstream(f) {
    const { Upstream } = await import("./upstream.js");
    return f(this._up ||= new Upstream(this, GpollError, dataOf));
  }

  /**
   * @template T
   * @param {(p: typeof import("./presence.js")) => T} f
   */
  async #presence(f) { return f(await import("./presence.js")); }

  // -- The stream ------------------------------------------------------------------------------------------------------

  /** A loop over the messages does not keep up: the client leaves the rest to the server's window until it does. */
  #crowded() {
    return [...this.#queues].some(q => q.events.length > 1024);
  }

  /** @param {string} p */
  #passed(p) { return !this.#adrift && epochOf(p) == epochOf(this._at) && seqOf(p) <= seqOf(this._at); }

  /**
   * Adopts a Position up to which the server has sent everything. An epoch begins with a gap: without one, the Position of
   * another epoch is not believed, for it would hide the gap.
   * @param {string} [p]
   */
  _scan(p) {
    if (!p || p == this._at || this.#passed(p) || !this.#adrift && this._at && epochOf(p) != epochOf(this._at)) return;
    this._at = p;
    this.#adrift = false;
  }

  /**
   * Takes a message or a gap in, in the order of the stream.
   * @param {Element} e
   */
  _take(e) {
    const { id, gap, topic = "" } = e;
    if (gap) {
      const { from = "", to = "", reason } = gap, key = from + to + reason;
      if (this.#adrift ? key == this.#lastGap : to && seqOf(to) && reason != "epoch" && this.#passed(to)) return;
      this.#adrift = reason == "epoch" || reason == "future" || !seqOf(to);
      if (!this.#adrift) this._at = to;
      this.#lastGap = key;
      return this.#emit("gap", { from, to, reason });
    }
    if (this.#passed(id)) return;
    this._at = id;
    this.#adrift = false;
    this.#emit("message", { data: dataOf(e), topic, position: id, lastEventId: id });
  }

  /** The topics have changed: one frame or one request for all changes of a moment. */
  _change() {
    if (this.#changing) return;
    this.#changing = true;
    queueMicrotask(() => {
      this.#changing = false;
      const a = this._attach, want = this._topics, watch = [...this._watched.keys()];
      if (!a?.wish || a.life.signal.aborted) return;
      const { topics, presence = [] } = a.wish.body;
      /** @param {string[]} from @param {string[]} to */
      const lacks = (from, to) => to.filter(t => !from.includes(t));
      /** @type {any[][]} */
      const frames = [["subscribe", lacks(topics, want)], ["unsubscribe", lacks(want, topics)]].filter(f => f[1].length);
      if (presence + "" != watch + "") frames.push(["presence", watch]);
      if (!frames[0]) return;
      if (!a.opened) return; // until the client knows its id: another request would register another client
      if (!a.ws) return a.life.abort(again);
      for (const f of frames) a.ws.send(JSON.stringify({ [f[0]]: f[1] }));
      a.asked.push(...frames);
      Object.assign(a.wish.body, { topics: want, presence: watch });
    });
  }

  /**
   * The server refuses what was asked of topics. They are taken back, and the rest goes on.
   * @param {GpollError} error
   * @param {string} verb
   * @param {string[]} topics
   */
  _refuse(error, verb, topics) {
    for (const name of topics) (verb == "presence" ? this._watched : this.#topics).delete(name);
    this.#emit("error", { ...this.status, error, topics });
  }

  /** @param {GpollError} fault */
  #takeBack(fault) {
    const late = this._topics.filter(t => !this._granted.includes(t));
    if (!this._id || !late.length) return false;
    this._refuse(fault, "subscribe", late);
    return true;
  }
}
