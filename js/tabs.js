/**
 * One connection for all tabs of a browser: a SharedSource is a GpollSource to its page, and only one of them, the leader,
 * has a connection.
 *
 * Who holds a Web Lock leads; the browser gives it to another tab when that one closes. The leader hands on what comes by
 * a BroadcastChannel. Each tab has a cursor of its own: where it cannot have heard everything, because it slept, or a new
 * leader began elsewhere, it reads the log itself until it is where the leader is.
 */

import { GpollSource, GpollError } from "./gpoll.js";

/** @typedef {import("./gpoll.js").Options & {share?: string}} Options */
/** @typedef {import("./gpoll.js").Status} Status */
/** @typedef {import("./gpoll.js").Presence} Presence */
/** @typedef {{topics: string[], watch: string[]}} Want what a tab listens to */
/**
 * What the leader has handed on: batch n, behind which a tab that has all batches is at position.
 * @typedef {{n: number, position: string, events: News[]}} Batch
 */
/** @typedef {{type: "message" | "gap", fields: any}} News */
/**
 * How things stand: all that a tab has to know of a leader.
 * @typedef {{name: string, n: number, id: string, position: string, status: Status, granted: string[], wants: [string, Want][]}} Standing
 */
/** @typedef {{id: string, verb: "send" | "publish" | "request", args: unknown[]}} Command */
/**
 * @typedef {{stands?: Standing, batch?: Batch, by?: string, present?: Presence, want?: [string, Want], bye?: string, ping?: 1,
 *   command?: Command, answer?: {id: string, value?: any, fault?: Fault}, refused?: {topics: string[], fault: Fault}}} Note
 */
/** @typedef {{course: any, code: string, message: string}} Fault a GpollError that can be posted */
/** @typedef {GpollSource & {_id: string, _granted: string[]}} Source */
/** @typedef {Command & {resolve: (value: any) => void, reject: (reason: any) => void}} Pending */

const heartbeat = 5e3; // ms between two looks whether the leader lives

/** @param {string} position */
const epochOf = position => position.slice(0, 16);
/** @param {string} position */
const seqOf = position => Number(position.slice(17));
/** Reports whether all that is up to q is up to p. @param {string} p @param {string} q */
const covers = (p, q) => !q || p && epochOf(p) == epochOf(q) && seqOf(p) >= seqOf(q);
/** @param {any} error @returns {Fault} */
const faultOf = ({ course = "stop", code = "bad", message }) => ({ course, code, message });
/** @param {Fault} fault */
const errorOf = ({ course, code, message }) => new GpollError(course, code, message);
/** @param {string[]} names */
const matcher = names => RegExp("^(" + names.join("|").replace(/[.*>]/g, c => c == "." ? "\\." : c == "*" ? "[^.]*" : ".*") + ")$");

export class SharedSource extends EventTarget {
  /** @readonly @type {0} */ static CONNECTING = 0;
  /** @readonly @type {1} */ static OPEN = 1;
  /** @readonly @type {2} */ static CLOSED = 2;

  /** @type {0 | 1 | 2} */
  readyState = 0;
  /** @type {Status} */
  status = { state: "connecting", transport: "", reasons: [] };
  /** @type {((e: any) => void) | null | undefined} */ onmessage;
  /** @type {((e: any) => void) | null | undefined} */ ongap;
  /** @type {((e: any) => void) | null | undefined} */ onopen;
  /** @type {((e: any) => void) | null | undefined} */ onerror;
  /** @type {((e: any) => void) | null | undefined} */ onstatus;
  /** @type {GpollSource["onrequest"]} */ onrequest;

  /** @type {Options} */
  #options;
  #share;
  #tab = [...crypto.getRandomValues(new Uint8Array(10))].map(b => b.toString(16).padStart(2, "0")).join("");
  #commands = 0;
  /** @type {Map<string, Pending>} */
  #pending = new Map();

  /** @type {Map<string, number>} */
  #topics = new Map(); // and how many have subscribed to each
  /** @type {Map<string, Set<(p: Presence) => void>>} */
  #watchers = new Map();
  /** @type {Map<string, Presence>} */
  #present = new Map();
  /** @type {Set<import("./iterate.js").Queue>} */
  #queues = new Set();

  // The cursor of this tab.
  #at = "";
  /** @type {Set<string>} */
  #owed = new Set(); // topics that a leader had
  /** @type {GpollSource | undefined} */
  #own; // reads where the leader's batches do not tell all

  // What the tabs know of each other.
  /** @type {AbortController | undefined} */
  #life; // from the beginning or a pageshow to a pagehide
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** @type {Standing | undefined} */
  #leader;
  #heard = 0; // when the leader said something last
  #pinged = 0; // when this tab asked it to
  #looked = 0;
  /** @type {Map<string, Want>} */
  #wants = new Map(); // of all tabs

  // The leader's own.
  /** @type {Source | undefined} */
  #source;
  /** @type {Map<string, () => void>} */
  #subscribed = new Map();
  /** @type {Map<string, () => void>} */
  #watching = new Map();
  #n = 0;
  /** @type {News[]} */
  #batch = [];
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #asking;

  /**
   * @param {string | URL} url
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.url = new URL(url, location.href).href.replace(/\/*([?#].*)?$/, "");
    this.withCredentials = !!options.withCredentials;
    this.#options = options;
    this.#at = options.after || "";
    this.#share = "gpoll 1 " + this.url + " " + (options.share || "");
    for (const topic of [options.topics || []].flat()) this.#topics.set(topic, 1);
    for (const type of ["message", "gap", "open", "error", "status"])
      this.addEventListener(type, e => /** @type {any} */ (this)["on" + type]?.(e));
    this.#listen("add"); // before the leader's source does
    queueMicrotask(() => this.#begin());
  }

  get id() { return this.#leader?.id || ""; }
  get position() { return this.#at; }
  get topics() { return [...this.#topics.keys()]; }
  /** Whether this tab has the connection. */
  get leads() { return !!this.#source; }

  /**
   * @param {string | string[]} topics
   * @param {(e: any) => void} [f]
   */
  subscribe(topics, f) {
    const names = [topics].flat(), pattern = matcher(names);
    /** @param {any} e */
    const hear = e => pattern.test(e.topic) && f?.(e);
    for (const name of names) this.#topics.set(name, (this.#topics.get(name) || 0) + 1);
    this.addEventListener("message", hear);
    this.#wish();
    return () => {
      this.removeEventListener("message", hear);
      for (const name of names.splice(0)) {
        const count = this.#topics.get(name) || 0;
        if (count > 1) this.#topics.set(name, count - 1);
        else this.#topics.delete(name), this.#owed.delete(name);
      }
      this.#wish();
    };
  }

  /**
   * @param {string | string[]} topics
   * @param {(p: Presence) => void} f
   */
  presence(topics, f) {
    const names = [topics].flat();
    for (const name of names) {
      const fns = this.#watchers.get(name) || new Set();
      this.#watchers.set(name, fns.add(f));
      const known = this.#present.get(name);
      if (known) f(known);
    }
    this.#wish();
    return () => {
      for (const name of names.splice(0)) {
        const fns = this.#watchers.get(name);
        if (fns?.delete(f) && !fns.size) this.#watchers.delete(name);
      }
      this.#wish();
    };
  }

  /**
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  send(data, o) { return this.#command("send", [data], o); }

  /**
   * @param {string} topic
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  publish(topic, data, o) { return this.#command("publish", [topic, data], o); }

  /**
   * @param {unknown} data
   * @param {{signal?: AbortSignal}} [o]
   */
  request(data, o) { return this.#command("request", [data], o); }

  close() { this.#finish(new GpollError("stop", "closed")); }

  async *[Symbol.asyncIterator]() {
    /** @type {import("./iterate.js").Queue} */
    const queue = { events: [] };
    this.#queues.add(queue);
    try {
      yield* (await import("./iterate.js")).iterate(/** @type {any} */ (this), queue, () => { });
    } finally {
      this.#queues.delete(queue);
    }
  }

  // -- The life of a tab -----------------------------------------------------------------------------------------------

  #begin = () => {
    if (this.readyState == 2 || this.#life) return;
    const life = this.#life = new AbortController(), { signal } = life;
    if (!navigator.locks || !globalThis.BroadcastChannel) return this.#lead(""); // each tab has a connection
    const channel = this.#channel = new BroadcastChannel(this.#share);
    channel.onmessage = e => this.#note(e.data);
    signal.addEventListener("abort", () => channel.close());
    const own = navigator.locks.request(this.#share + " " + this.#tab, { signal }, () => new Promise(free => signal.addEventListener("abort", free)));
    own.catch(() => { });
    this.#wish();
    this.#stand(false);
    const timer = setInterval(() => this.#look(), heartbeat);
    signal.addEventListener("abort", () => clearInterval(timer));
    setTimeout(() => !signal.aborted && !this.#leader && !this.#source && this.#read(), 2e3);
  };

  /**
   * Leads as soon as nobody else does, or at once.
   * @param {boolean} steal
   */
  #stand(steal) {
    const life = /** @type {AbortController} */ (this.#life), { signal } = life;
    /** @type {() => void} */
    let free = () => { };
    const held = navigator.locks.request(this.#share, steal ? { steal } : { signal }, () => new Promise(done => {
      if (signal.aborted) return done(0);
      free = () => done(0);
      signal.addEventListener("abort", free);
      this.#lead(steal ? "" : this.#leader?.id || ""); // what is frozen may come back, and use its id
    }));
    held.catch(() => { // stolen, or the life is over
      free();
      if (signal.aborted) return;
      this.#drop(false);
      this.#stand(false);
    });
  }

  /** Is the leader alive? A visible tab takes the lead from one that is frozen. */
  #look() {
    const now = Date.now(), slept = now - this.#looked > 2 * heartbeat;
    this.#looked = now;
    if (this.#source || document.hidden) return;
    if (!slept && this.#pinged > this.#heard) {
      this.#pinged = 0;
      return this.#stand(true);
    }
    this.#pinged = now;
    this.#post({ ping: 1 });
  }

  /** @param {"add" | "remove"} verb */
  #listen(verb) {
    for (const type of ["pagehide", "freeze"]) globalThis[/** @type {"addEventListener"} */ (verb + "EventListener")](type, this.#rest, true);
    for (const type of ["pageshow", "resume"]) globalThis[/** @type {"addEventListener"} */ (verb + "EventListener")](type, this.#begin, true);
  }

  /** @param {any} e */
  #rest = e => {
    if (e.type == "pagehide" && !e.persisted) return this.close();
    this.#post({ bye: this.#tab });
    this.#drop(!this.#others().length);
    this.#own?.close();
    this.#own = undefined;
    this.#life?.abort();
    this.#life = this.#leader = undefined;
  };

  /** @param {GpollError} fault */
  #finish(fault) {
    if (this.readyState == 2) return;
    this.#listen("remove");
    this.#post({ bye: this.#tab });
    this.#drop(!this.#others().length);
    this.#own?.close();
    this.#life?.abort();
    this.#tell({ state: "closed", transport: "", reasons: [], error: fault });
    for (const c of this.#pending.values()) c.reject(fault);
    this.#pending.clear();
  }

  #others() { return [...this.#wants.keys()].filter(tab => tab != this.#tab); }

  // -- What tabs say to each other ---------------------------------------------------------------------------------------

  /** @param {Note} note */
  #post(note) {
    if (this.#life && !this.#life.signal.aborted) this.#channel?.postMessage(note);
  }

  /** @param {Note} note */
  #note(note) {
    const { stands, batch, by, present, want, bye, ping, command, answer, refused } = note;
    if (by || stands) this.#heard = Date.now();
    if (want) this.#wanted(...want);
    if (bye) this.#gone(bye);
    if (answer && this.#pending.has(answer.id)) this.#answered(answer);
    if (this.#source) {
      if (ping) this.#announce();
      if (command) this.#obey(command);
    } else {
      if (stands) this.#follow(stands);
      if (batch && by == this.#leader?.name) this.#hear(batch);
      if (present) this.#told(present);
      if (refused) this.#refused(refused.topics, refused.fault);
    }
  }

  /** Tells the leader, or its source, what this tab wants. */
  #wish() {
    const want = { topics: this.topics, watch: [...this.#watchers.keys()] };
    this.#wanted(this.#tab, want);
    this.#post({ want: [this.#tab, want] });
    if (this.#own && this.#own.topics + "" != want.topics + "") this.#read(true);
  }

  /**
   * @param {string} tab
   * @param {Want} want
   */
  #wanted(tab, want) {
    const known = this.#wants.has(tab);
    this.#wants.set(tab, want);
    if (!this.#source) return;
    if (!known) this.#guard(tab);
    this.#adjust();
    if (tab == this.#tab) return;
    this.#announce();
    for (const p of this.#present.values()) if (want.watch.includes(p.topic)) this.#post({ present: p, by: this.#tab });
  }

  /** @param {string} tab */
  #gone(tab) {
    this.#wants.delete(tab);
    if (this.#source) this.#adjust();
  }

  /**
   * The leader learns of the end of a tab by the lock that it holds.
   * @param {string} tab
   */
  #guard(tab) {
    const signal = this.#life?.signal;
    if (tab != this.#tab && this.#channel)
      navigator.locks.request(this.#share + " " + tab, { signal }, () => this.#gone(tab)).catch(() => { });
  }

  // -- The leader ----------------------------------------------------------------------------------------------------------

  /**
   * Takes the connection over.
   * @param {string} id of the client that was the leader's before, which goes on; "": none
   */
  #lead(id) {
    this.#own?.close();
    this.#own = undefined;
    const topics = this.#union("topics");
    const source = this.#source = /** @type {Source} */ (this.#connect(topics));
    source._id = id;
    this.#n = 0;
    this.#leader = undefined;
    for (const topic of topics) this.#subscribed.set(topic, source.subscribe(topic));
    source.onmessage = ({ topic, data, position }) => this.#hand("message", { topic, data, position, lastEventId: position });
    source.ongap = ({ from, to, reason }) => this.#hand("gap", { from, to, reason });
    source.onstatus = () => {
      if (source.status.state == "closed") return this.#finish(/** @type {GpollError} */ (source.status.error));
      this.#announce();
    };
    source.onerror = ({ topics, error }) => {
      if (!topics) return;
      for (const name of topics) this.#subscribed.delete(name);
      this.#post({ refused: { topics, fault: faultOf(error) }, by: this.#tab });
      this.#refused(topics, faultOf(error));
    };
    source.onrequest = data => {
      if (!this.onrequest) throw new Error("this client answers no requests");
      return this.onrequest(data);
    };
    for (const tab of this.#others()) this.#guard(tab);
    this.#adjust();
    this.#announce();
    for (const c of this.#pending.values()) this.#obey(c);
  }

  /**
   * Gives the connection up.
   * @param {boolean} leave the server, for no other tab goes on
   */
  #drop(leave) {
    const source = this.#source;
    if (!source) return;
    this.#source = undefined;
    this.#subscribed.clear();
    this.#watching.clear();
    clearInterval(this.#asking);
    source.onmessage = source.ongap = source.onstatus = source.onerror = null;
    if (!leave) source._id = "";
    source.close();
  }

  /** @param {"topics" | "watch"} what */
  #union(what) { return [...new Set([...this.#wants.values()].flatMap(want => want[what]))]; }

  /** Subscribes to what the tabs want. */
  #adjust() {
    const source = /** @type {Source} */ (this.#source);
    /** @type {[Map<string, () => void>, string[], (name: string) => () => void][]} */
    const both = [
      [this.#subscribed, this.#union("topics"), name => source.subscribe(name)],
      [this.#watching, this.#union("watch"), name => source.presence(name, p => {
        this.#post({ present: p, by: this.#tab });
        this.#told(p);
      })],
    ];
    for (const [have, want, add] of both) {
      for (const name of want) if (!have.has(name)) have.set(name, add(name));
      for (const [name, end] of have) {
        if (want.includes(name)) continue;
        end();
        have.delete(name);
        if (have == this.#watching) this.#present.delete(name);
      }
    }
    clearInterval(this.#asking);
    this.#asking = setInterval(() => { // nothing tells when the server has granted them
      if (this.#granted().length == source.topics.length) clearInterval(this.#asking);
      if (this.#granted() + "" != this.#leader?.granted + "") this.#announce();
    }, 200);
  }

  #granted() { return this.#source?._granted || []; }

  #announce() {
    this.#flush(); // the position is behind what was handed on
    const { id, status, position } = /** @type {Source} */ (this.#source);
    const { error, ...rest } = status;
    /** @type {Standing} */
    const stands = { name: this.#tab, n: this.#n, id, position, granted: this.#granted(), status: rest, wants: [...this.#wants] };
    this.#leader = stands;
    this.#at = position || this.#at;
    this.#owe();
    this.#post({ stands: { ...stands, status: { ...rest, error: error && /** @type {any} */ (faultOf(error)) } } });
    this.#tell(status);
  }

  /**
   * Hands an event on: to the own page at once, and to the other tabs with those of the same moment.
   * @param {"message" | "gap"} type
   * @param {any} fields
   */
  #hand(type, fields) {
    if (!this.#batch.length) queueMicrotask(() => this.#flush());
    this.#batch.push({ type, fields });
    this.#at = fields.position || fields.to || this.#at;
    this.#give(type, fields);
  }

  #flush() {
    const events = this.#batch.splice(0);
    if (events.length && this.#source) this.#post({ batch: { n: ++this.#n, position: this.#source.position, events }, by: this.#tab });
  }

  /** @param {Command} command */
  async #obey({ id, verb, args }) {
    /** @type {Note["answer"]} */
    let answer;
    try {
      const value = await /** @type {any} */ (this.#source)[verb](...args, { id });
      answer = { id, value };
    } catch (e) {
      if (!this.#source) return; // the next leader does it
      answer = { id, fault: faultOf(e) };
    }
    if (this.#pending.has(id)) this.#answered(answer);
    else this.#post({ answer, by: this.#tab });
  }

  // -- The others ----------------------------------------------------------------------------------------------------------

  /** @param {Standing} stands */
  #follow(stands) {
    const before = this.#leader, { error, state } = stands.status, want = this.#wants.get(this.#tab);
    this.#leader = stands;
    this.#wants = new Map(stands.wants);
    if (want) this.#wants.set(this.#tab, want);
    if (before?.name != stands.name) {
      this.#post({ want: [this.#tab, /** @type {Want} */ (want)] });
      for (const { id, verb, args } of this.#pending.values()) this.#post({ command: { id, verb, args } });
    } else if (before.n == stands.n && !this.#own && covers(stands.position, this.#at)) this.#at = stands.position; // nothing came in between
    if (!this.#at && !this.#options.last && state == "connected") this.#at = stands.position; // it begins with what comes
    if (state == "connected" && !this.#whole()) this.#read();
    this.#owe();
    this.#settle();
    this.#tell(error ? { ...stands.status, error: errorOf(error) } : stands.status);
  }

  /** @param {Batch} batch */
  #hear(batch) {
    const leader = /** @type {Standing} */ (this.#leader), next = batch.n == leader.n + 1;
    leader.n = batch.n;
    leader.position = batch.position;
    if (this.#own) return this.#settle();
    if (!next) return this.#read(); // some batches came while this tab slept
    for (const { type, fields } of batch.events) this.#take(type, fields);
    if (!this.#at || epochOf(this.#at) != epochOf(batch.position) || covers(batch.position, this.#at)) this.#at = batch.position;
  }

  /** The topics that the leader has are owed from now on. */
  #owe() {
    for (const topic of this.#topics.keys()) if (this.#leader?.granted.includes(topic)) this.#owed.add(topic);
  }

  /** Reports whether the leader's batches tell all that is owed to this tab. */
  #whole() {
    return [...this.#owed].every(topic => this.#leader?.granted.includes(topic)) && covers(this.#at, this.#leader?.position || "");
  }

  /**
   * Reads the log with a connection of its own, until this tab is where the leader is.
   * @param {boolean} [anew]
   */
  #read(anew) {
    if (this.#own && !anew || this.readyState == 2) return;
    this.#own?.close();
    const { last, transports } = this.#options;
    // The first answer to a poll has all recent messages.
    const own = this.#own = this.#connect(this.topics, last && !this.#at ? ["long-poll"] : transports);
    own.onmessage = ({ topic, data, position }) => this.#take("message", { topic, data, position, lastEventId: position });
    own.ongap = ({ from, to, reason }) => this.#take("gap", { from, to, reason });
    own.onopen = () => queueMicrotask(() => {
      if (own == this.#own) this.#at ||= own.position;
      this.#settle();
    });
  }

  /**
   * @param {string[]} topics
   * @param {Options["transports"]} [transports]
   */
  #connect(topics, transports = this.#options.transports) {
    return new GpollSource(this.url, { ...this.#options, topics, after: this.#at, transports });
  }

  #settle() {
    const own = this.#own;
    if (!own || !own.readyState) return;
    if (covers(own.position, this.#at)) this.#at = own.position;
    if (!this.#leader || !this.#whole()) return;
    this.#own = undefined;
    own.onmessage = own.ongap = own.onopen = null;
    own.close();
  }

  /**
   * Takes in what may have come before.
   * @param {"message" | "gap"} type
   * @param {any} fields
   */
  #take(type, fields) {
    const at = fields.position || fields.to;
    if (at && this.#at && covers(this.#at, at)) return;
    this.#at = at || this.#at;
    this.#give(type, fields);
    queueMicrotask(() => this.#settle());
  }

  /**
   * @param {string[]} topics
   * @param {Fault} fault
   */
  #refused(topics, fault) {
    const mine = topics.filter(name => this.#topics.delete(name));
    if (!mine.length) return;
    for (const name of mine) this.#owed.delete(name);
    this.#wish();
    this.#emit("error", { ...this.status, error: errorOf(fault), topics: mine });
  }

  // -- To the page ---------------------------------------------------------------------------------------------------------

  /**
   * @param {"message" | "gap"} type
   * @param {any} fields
   */
  #give(type, fields) {
    if (type == "gap" || !fields.topic || matcher(this.topics).test(fields.topic)) this.#emit(type, fields);
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

  /** @param {Status} status */
  #tell(status) {
    const before = this.readyState;
    if (before == 2 || JSON.stringify(status) == JSON.stringify(this.status)) return;
    this.status = status;
    this.readyState = status.state == "connected" ? 1 : status.state == "closed" ? 2 : 0;
    this.#emit("status", status);
    if (this.readyState == 1 && before != 1) this.#emit("open", status);
    if (status.error && status.error.code != "closed") this.#emit("error", status);
  }

  /** @param {Presence} p */
  #told(p) {
    this.#present.set(p.topic, p);
    for (const f of this.#watchers.get(p.topic) || []) f(p);
  }

  // -- Commands ------------------------------------------------------------------------------------------------------------

  /**
   * @param {Command["verb"]} verb
   * @param {unknown[]} args
   * @param {{signal?: AbortSignal}} [o]
   * @returns {Promise<any>}
   */
  #command(verb, args, { signal } = {}) {
    return new Promise((resolve, reject) => {
      if (this.readyState == 2) throw new GpollError("stop", "closed");
      signal?.throwIfAborted();
      const id = this.#tab + "-" + ++this.#commands;
      this.#pending.set(id, { id, verb, args, resolve, reject });
      signal?.addEventListener("abort", () => this.#pending.delete(id) && reject(signal.reason));
      if (this.#source) this.#obey({ id, verb, args });
      else if (this.#leader) this.#post({ command: { id, verb, args } });
    });
  }

  /** @param {NonNullable<Note["answer"]>} answer */
  #answered({ id, value, fault }) {
    const c = this.#pending.get(id);
    this.#pending.delete(id);
    if (fault) c?.reject(errorOf(fault));
    else c?.resolve(value);
  }
}
