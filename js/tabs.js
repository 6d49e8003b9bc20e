/**
 * One connection for all tabs of a browser: a SharedSource is a GpollSource to its page, and only one of them, the leader,
 * has a connection.
 *
 * Who holds a Web Lock leads; the browser gives it to another tab when that one closes. The leader hands on what comes by
 * a BroadcastChannel (#hand), and the others take it in (#hear) as if it came from the server: each tab has the cursor of
 * a GpollSource. Where a tab cannot have heard everything, because it slept, or a new leader began elsewhere, it reads the
 * log itself (#read) until it is where the leader is (#settle).
 */

import { GpollSource, GpollError } from "./gpoll.js";

/** @typedef {import("./gpoll.js").Options & {share?: string}} Options */
/** @typedef {import("./gpoll.js").Status} Status */
/** @typedef {import("./gpoll.js").Presence} Presence */
/** @typedef {{topics: string[], watch: string[]}} Want what a tab listens to */
/**
 * What the leader has handed on: a tab that has all batches up to the n-th is at position.
 * @typedef {{n: number, position: string, elements: any[]}} Batch
 */
/**
 * How things stand: all that a tab has to know of a leader.
 * @typedef {{name: string, n: number, id: string, position: string, status: any, granted: string[], wants: [string, Want][]}} Standing
 */
/** @typedef {{id: string, verb: string, body: any}} Command */
/** @typedef {{course: any, code: string, message: string}} Fault a GpollError that can be posted */
/**
 * @typedef {{stands?: Standing, batch?: Batch, by?: string, present?: Presence, want?: [string, Want], bye?: string, ping?: 1,
 *   command?: Command, answer?: {id: string, value?: any, fault?: Fault}, refused?: {verb: string, topics: string[], fault: Fault}}} Note
 */

const heartbeat = 5e3; // ms between two looks whether the leader lives
const again = new GpollError("again", "again");

/** Reports whether all that is up to q is up to p. @param {string} p @param {string} q */
const covers = (p, q) => !q || p && p.slice(0, 16) == q.slice(0, 16) && Number(p.slice(17)) >= Number(q.slice(17));
/** @param {any} error @returns {Fault} */
const faultOf = ({ course = "stop", code = "bad", message }) => ({ course, code, message });
/** @param {Fault} fault */
const errorOf = ({ course, code, message }) => new GpollError(course, code, message);
const random = () => [...crypto.getRandomValues(new Uint8Array(10))].map(b => b.toString(16).padStart(2, "0")).join("");

/** @type {any} with what the modules share of a GpollSource */
const Base = GpollSource;

export class SharedSource extends Base {
  #tab = random();
  #share;
  #last;
  #commands = 0;
  /** @type {Map<string, Command & {resolve: (value: any) => void, reject: (reason: any) => void}>} */
  #pending = new Map();
  /** @type {Map<string, number>} */
  #watches = new Map(); // topics, and how many of the page watch each
  #mine = /^$/; // matches the topics of this tab
  /** @type {Set<string>} */
  #owed = new Set(); // those of them that a leader had

  // What the tabs know of each other.
  /** @type {AbortController | undefined} */
  #life; // from the beginning, or a return, to a rest
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** @type {Standing | undefined} */
  #leader; // maybe this tab
  /** @type {Map<string, Want>} */
  #wants = new Map(); // of all tabs
  #heard = 0; // when the leader said something last
  #pinged = 0; // when this tab asked it to
  #looked = 0;

  // The leader's own.
  #leads = false;
  #n = 0;
  /** @type {any[]} */
  #batch = [];
  /** @type {Map<string, () => void>} */
  #watching = new Map();
  /** @type {Map<string, Presence>} */
  #present = new Map();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #asking;

  /**
   * @param {string | URL} url
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super(url, options);
    this._rests = true;
    this._id = "";
    this._strayed = 0;
    /** @type {string[]} */
    this._granted = [];
    this.#last = options.last;
    this.#share = "gpoll 1 " + this.url + " " + (options.share || "");
    this.#listen("add");
    queueMicrotask(() => this.#begin());
  }

  get id() { return this.#leads ? this._id : this.#leader?.id || ""; }
  /** Whether this tab has the connection. */
  get leads() { return this.#leads; }

  close() {
    if (this.#leads) this.#leave();
    super.close();
  }

  /**
   * @param {string | string[]} topics
   * @param {(p: Presence) => void} f
   */
  presence(topics, f) {
    const names = [topics].flat(), stop = super.presence([...names], f);
    for (const name of names) this.#watches.set(name, (this.#watches.get(name) || 0) + 1);
    this._change();
    return () => {
      for (const name of names.splice(0)) {
        const count = this.#watches.get(name) || 0;
        if (count > 1) this.#watches.set(name, count - 1);
        else this.#watches.delete(name);
      }
      stop();
      this._change();
    };
  }

  // -- The life of a tab -----------------------------------------------------------------------------------------------

  /** @param {"add" | "remove"} verb */
  #listen(verb) {
    /** @type {any} */
    const page = globalThis;
    for (const type of ["pagehide", "freeze"]) page[verb + "EventListener"](type, this.#rest, true);
    for (const type of ["pageshow", "resume"]) page[verb + "EventListener"](type, this.#begin, true);
  }

  #begin = () => {
    if (this.readyState == 2 || this.#life) return;
    const { signal } = this.#life = new AbortController();
    if (!navigator.locks || !globalThis.BroadcastChannel) return this.#lead(this._id); // each tab has a connection
    const channel = this.#channel = new BroadcastChannel(this.#share);
    channel.onmessage = e => this.#note(e.data);
    signal.addEventListener("abort", () => channel.close());
    this.#hold(this.#share + " " + this.#tab, { signal }, () => { // now the others can see its end
      this._change();
      this.#stand(false);
    }).catch(() => { });
    const timer = setInterval(() => this.#look(), heartbeat);
    signal.addEventListener("abort", () => clearInterval(timer));
    setTimeout(() => !signal.aborted && !this.#leader && this.#read(), 2e3);
  };

  /** The page sleeps. @param {any} e */
  #rest = e => {
    if (e.type == "pagehide" && !e.persisted) return; // it closes
    this.#post({ bye: this.#tab });
    this.#leave();
    this.#follow();
    this.#life?.abort();
    this.#life = this.#leader = undefined;
  };

  /** Other tabs go on as the client of the server that this one was. */
  #leave() {
    if (this.#others().length) this._id = "";
  }

  #end() {
    this.#listen("remove");
    this.#post({ bye: this.#tab });
    this.#life?.abort();
    clearInterval(this.#asking);
    for (const c of this.#pending.values()) c.reject(this.status.error);
    this.#pending.clear();
  }

  /**
   * Holds a lock until the tab rests.
   * @param {string} name
   * @param {LockOptions} options
   * @param {() => void} f is called once it is held
   */
  #hold(name, options, f) {
    const { signal } = /** @type {AbortController} */ (this.#life);
    return navigator.locks.request(name, options, () => new Promise(done => {
      if (signal.aborted) return done(0);
      signal.addEventListener("abort", () => done(0));
      f();
    }));
  }

  /**
   * Leads as soon as nobody else does, or at once.
   * @param {boolean} steal
   */
  #stand(steal) {
    const { signal } = /** @type {AbortController} */ (this.#life);
    // What is frozen may come back, and use the id of the client.
    this.#hold(this.#share, steal ? { steal } : { signal }, () => this.#lead(steal ? "" : this.#leader?.id || this._id)).catch(() => {
      if (signal.aborted) return;
      this._id = "";
      this.#follow(); // the lock was stolen
      this.#stand(false);
    });
  }

  /** Is the leader alive? A visible tab takes the lead from one that is frozen. */
  #look() {
    const now = Date.now(), slept = now - this.#looked > 2 * heartbeat;
    this.#looked = now;
    if (this.#leads || document.hidden) return;
    if (!slept && this.#pinged > this.#heard) {
      this.#pinged = 0;
      return this.#stand(true);
    }
    this.#pinged = now;
    this.#post({ ping: 1 });
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
    if (answer) this.#answered(answer);
    if (this.#leads) {
      if (ping) this.#announce();
      if (command) this.#obey(command);
    } else {
      if (stands) this.#learn(stands);
      if (batch && by == this.#leader?.name) this.#hear(batch);
      if (present) import("./presence.js").then(p => p.told(/** @type {any} */ (this), { position: "", topics: [present] }));
      if (refused) this._refuse(errorOf(refused.fault), refused.verb, refused.topics);
    }
  }

  /** What this tab wants has changed, or what the leader needs. */
  _change() {
    const topics = this.topics;
    this.#mine = RegExp("^(" + topics.join("|").replace(/[.*>]/g, (/** @type {string} */ c) => c == "." ? "\\." : c == "*" ? "[^.]*" : ".*") + ")$");
    for (const topic of this.#owed) if (!topics.includes(topic)) this.#owed.delete(topic);
    const want = { topics, watch: [...this.#watches.keys()] };
    if (JSON.stringify(want) != JSON.stringify(this.#wants.get(this.#tab)) || !this.#leader) this.#post({ want: [this.#tab, want] });
    this.#wanted(this.#tab, want);
    super._change();
  }

  /**
   * @param {string} tab
   * @param {Want} want
   */
  #wanted(tab, want) {
    const known = this.#wants.has(tab);
    this.#wants.set(tab, want);
    if (!this.#leads) return;
    if (!known) this.#guard(tab);
    this.#adjust();
    if (tab == this.#tab) return;
    super._change();
    this.#announce();
    for (const p of this.#present.values()) if (want.watch.includes(p.topic)) this.#post({ present: p, by: this.#tab });
  }

  /** @param {string} tab */
  #gone(tab) {
    this.#wants.delete(tab);
    if (!this.#leads) return;
    this.#adjust();
    super._change();
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
   * @param {string} id of the client that was the leader's before, and goes on; "": none
   */
  #lead(id) {
    this.#leads = true;
    this.#n = 0;
    this._id = id;
    this._strayed = Date.now(); // a last poll of the leader before may come late, and supersede this one's
    this._granted = [];
    super._tell("connecting");
    for (const tab of this.#others()) this.#guard(tab);
    this.#adjust();
    this.#announce();
    for (const c of this.#pending.values()) this.#obey(c);
    this._rests = false;
    this._attach?.life.abort(again);
    this._wake?.();
  }

  /** Gives the connection up. */
  #follow() {
    this.#leads = false;
    this._rests = true;
    this._attach?.life.abort(again);
    this.#batch = [];
    clearInterval(this.#asking);
    for (const end of this.#watching.values()) end();
    this.#watching.clear();
  }

  /** What the client subscribes to: the leader to what any tab wants. */
  get _topics() { return this.#leads ? this.#union("topics") : this.topics; }

  /** @param {"topics" | "watch"} what */
  #union(what) { return [...new Set([...this.#wants.values()].flatMap(want => want[what]))]; }

  #adjust() {
    const want = this.#union("watch");
    for (const name of want) {
      if (!this.#watching.has(name)) this.#watching.set(name, super.presence(name, (/** @type {Presence} */ p) => {
        this.#present.set(name, p);
        this.#post({ present: p, by: this.#tab });
      }));
    }
    for (const [name, end] of this.#watching) {
      if (want.includes(name)) continue;
      this.#watching.delete(name);
      this.#present.delete(name);
      end();
    }
    clearInterval(this.#asking);
    this.#asking = setInterval(() => { // nothing tells when the server has granted topics
      if (this._granted.length == this._topics.length) clearInterval(this.#asking);
      if (this._granted + "" != this.#leader?.granted + "") this.#announce();
    }, 200);
  }

  #announce() {
    this.#flush(); // the position is behind what was handed on
    const { state, transport, reasons, retry, error } = this.status;
    this.#leader = {
      name: this.#tab, n: this.#n, id: this._id, position: this.position, granted: this._granted, wants: [...this.#wants],
      status: { state, transport, reasons, retry, fault: error && faultOf(error) },
    };
    this.#owe();
    this.#post({ stands: this.#leader });
  }

  /**
   * Hands an element of the stream on, with those of the same moment.
   * @param {any} element
   */
  #hand(element) {
    if (!this.#batch.length) queueMicrotask(() => this.#flush());
    this.#batch.push(element);
  }

  #flush() {
    const elements = this.#batch.splice(0);
    if (elements.length) this.#post({ batch: { n: ++this.#n, position: this.position, elements }, by: this.#tab });
  }

  /** @param {Command} command */
  async #obey({ id, verb, body }) {
    /** @type {NonNullable<Note["answer"]>} */
    let answer;
    try {
      answer = { id, value: await super._command(verb, body, { id }) };
    } catch (e) {
      if (!this.#leads) return; // the next leader does it
      answer = { id, fault: faultOf(e) };
    }
    if (!this.#answered(answer)) this.#post({ answer, by: this.#tab });
  }

  /**
   * @param {GpollError} error
   * @param {string} verb
   * @param {string[]} topics
   */
  _refuse(error, verb, topics) {
    const what = verb == "presence" ? "watch" : "topics";
    if (this.#leads) {
      for (const [tab, want] of this.#wants) this.#wants.set(tab, { ...want, [what]: want[what].filter(name => !topics.includes(name)) });
      this.#post({ refused: { verb, topics, fault: faultOf(error) }, by: this.#tab });
    }
    const mine = topics.filter(name => what == "watch" ? this.#watches.delete(name) : this.topics.includes(name));
    if (mine.length) super._refuse(error, verb, mine);
    this._change();
  }

  // -- The others ----------------------------------------------------------------------------------------------------------

  /** @param {Standing} stands */
  #learn(stands) {
    const before = this.#leader, { state, fault, ...rest } = stands.status;
    const want = this.#wants.get(this.#tab);
    if (!want) return; // it has not begun
    this.#leader = stands;
    if (this._id == stands.id) this._id = ""; // that client is the leader now
    this.#wants = new Map(stands.wants).set(this.#tab, want);
    if (before?.name != stands.name) {
      this.#post({ want: [this.#tab, want] });
      for (const { id, verb, body } of this.#pending.values()) this.#post({ command: { id, verb, body } });
    } else if (before.n == stands.n && this._rests) this._scan(stands.position); // nothing came in between
    if (state == "connected") {
      if (!this._at && !this.#last) this._scan(stands.position); // it begins with what comes
      if (!this.#whole()) this.#read();
      this.#owe();
    }
    if (this._rests) super._tell(state, { ...rest, error: fault && errorOf(fault) });
    this.#settle();
  }

  /** @param {Batch} batch */
  #hear({ n, position, elements }) {
    const leader = /** @type {Standing} */ (this.#leader), next = n == leader.n + 1;
    Object.assign(leader, { n, position });
    if (!this._rests) return this.#settle();
    if (!next) return this.#read(); // some batches came while this tab slept
    for (const element of elements) this._take(element);
    this._scan(position);
  }

  /** The topics that the leader has are owed from now on. */
  #owe() {
    for (const topic of this.topics) if (this.#leader?.granted.includes(topic)) this.#owed.add(topic);
  }

  /** Reports whether the leader's batches tell all that is owed to this tab. */
  #whole() {
    return [...this.#owed].every(topic => this.#leader?.granted.includes(topic)) && covers(this._at, this.#leader?.position || "");
  }

  /** Reads the log with a connection of its own. */
  #read() {
    if (!this._rests || this.readyState == 2) return;
    this._rests = false;
    this._wake?.();
  }

  /** Rests again once the leader's batches tell all. */
  #settle() {
    if (this.#leads || this._rests || !this._attach?.opened || this.#leader?.status.state != "connected" || !this.#whole()) return;
    this._post('{"leave":true}', { keepalive: true }).catch(() => { });
    this._id = "";
    this._rests = true;
    this._attach.life.abort(again);
  }

  // -- What a GpollSource does, of which the other tabs hear ---------------------------------------------------------------

  /** @param {any} element */
  _take(element) {
    const { gap } = element;
    if (this.#leads) this.#hand(element);
    if (gap?.from && covers(this._at, gap.from)) // to a leader that was behind this tab
      element = { gap: { ...gap, from: this._at.slice(0, 17) + (Number(this._at.slice(17)) + 1) } };
    if (element.topic && !this.#mine.test(element.topic)) this._scan(element.id);
    else super._take(element);
    this.#check();
  }

  /** @param {string} position */
  _scan(position) {
    super._scan(position);
    this.#check();
  }

  /**
   * @param {Status["state"]} state
   * @param {Partial<Status>} [more]
   */
  _tell(state, more) {
    super._tell(state, more);
    if (state == "closed") this.#end();
    else if (this.#leads) this.#announce();
    else this.#check();
  }

  #check() {
    if (!this.#leads && !this._rests) queueMicrotask(() => this.#settle());
  }

  // -- Commands ------------------------------------------------------------------------------------------------------------

  /**
   * @param {string} verb
   * @param {any} body
   * @param {{signal?: AbortSignal, id?: string}} [o]
   * @returns {Promise<any>}
   */
  _command(verb, body, { signal } = {}) {
    return new Promise((resolve, reject) => {
      if (this.readyState == 2) throw new GpollError("stop", "closed");
      signal?.throwIfAborted();
      const id = this.#tab + "-" + ++this.#commands;
      this.#pending.set(id, { id, verb, body, resolve, reject });
      signal?.addEventListener("abort", () => this.#pending.delete(id) && reject(signal.reason));
      if (this.#leads) this.#obey({ id, verb, body });
      else if (this.#leader) this.#post({ command: { id, verb, body } });
    });
  }

  /** @param {NonNullable<Note["answer"]>} answer */
  #answered({ id, value, fault }) {
    const c = this.#pending.get(id);
    if (fault) c?.reject(errorOf(fault));
    else c?.resolve(value);
    return this.#pending.delete(id);
  }
}
