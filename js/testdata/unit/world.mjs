// A network for the tests, with time of its own. A World has a server whose three doors the test sets; a door is a function
// that gets each new connection. A connection has what the client said, and methods with which the server answers.

import assert from "node:assert/strict";
import { chance, forgetTimers, now, pass, settle } from "./clock.mjs";
import { GpollError, GpollSource } from "../../gpoll.js";
import "../../upstream.js"; // at once, so that the client does not wait for the disk
import "../../presence.js";
import "../../iterate.js";

export { assert, GpollError, GpollSource };
export const epoch = "9f86d081884c7d65";
export const at = seq => epoch + "-" + seq;
export const clientID = n => "0$6ba7b811-9dad-41d1-80b4-00c04fd4" + String(n).padStart(4, "0");
export const message = (seq, data = "m" + seq, topic = "news") => ({ id: at(seq), topic, data });

/** A WebSocket, as a browser has it and as the server sees it. */
class Socket {
  readyState = 0;
  protocol = "";
  said = []; // by the client
  left = false; // the client has closed it
  hears = () => { }; // what the server does at a frame
  begun = now();

  constructor(world, url, protocol) {
    Object.assign(this, { world, url, offered: protocol });
    world.sockets.push(this);
    queueMicrotask(() => world.doors.websocket(this));
  }
  send(text) {
    assert.notEqual(this.readyState, 0, "it sends on a WebSocket that is not open");
    if (this.readyState > 1) return; // as in a browser
    const frame = JSON.parse(text);
    this.said.push(frame);
    queueMicrotask(() => this.hears(frame));
  }
  close() {
    if (this.readyState > 1) return;
    this.left = true;
    this.readyState = 2;
    queueMicrotask(() => this.ends(1006));
  }

  get hello() { return this.said[0]?.hello; }
  accepts(protocol = "gpoll.v1") {
    if (this.readyState) return;
    this.readyState = 1;
    this.protocol = protocol;
    this.onopen?.({});
  }
  says(...frames) {
    if (this.readyState == 1) for (const f of frames) this.onmessage?.({ data: JSON.stringify(f) });
  }
  ends(code, reason = "") {
    if (this.readyState > 2) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** A request of HTTP. */
class Request {
  aborted = false;
  begun = now();

  constructor(world, url, init, resolve, reject) {
    const { pathname, searchParams } = new URL(url);
    const body = init.body && JSON.parse(init.body);
    Object.assign(this, {
      world, path: pathname, query: searchParams, body, method: init.method || "GET", keepalive: !!init.keepalive, credentials: init.credentials,
      headers: Object.fromEntries(init.headers), resolve, reject,
    });
    const abort = () => {
      this.aborted = true;
      this.stream?.error(init.signal.reason);
      reject(init.signal.reason);
    };
    init.signal?.addEventListener("abort", abort);
    this.done = () => init.signal?.removeEventListener("abort", abort);
  }
  get id() { return this.headers["gpoll-client-id"]; }
  /** What the request says of name, be it a GET or a POST. */
  says(name) { return this.body ? this.body[name] : this.query.get(name) ?? undefined; }
  get topics() { return this.body ? this.body.topics : this.query.getAll("topic"); }

  answers(status, body = "", type = "application/json") {
    this.done();
    this.answered = true;
    this.resolve(new Response(typeof body == "string" ? body : JSON.stringify(body), { status, headers: { "Content-Type": type } }));
  }
  refuses(status, error, more) { this.answers(status, { error, message: "a sentence", ...more }); }
  fails() {
    this.done();
    this.reject(new TypeError("fetch failed"));
  }

  /** An answer that goes on. */
  begins(type = "text/event-stream") {
    const body = new ReadableStream({ start: c => { this.stream = c; } });
    this.resolve(new Response(body, { headers: { "Content-Type": type } }));
  }
  bytes(bytes) { if (!this.aborted) this.stream.enqueue(bytes); }
  writes(text) { this.bytes(new TextEncoder().encode(text)); }
  event(name, id, data) {
    this.writes((name ? `event: ${name}\n` : "") + (id ? `id: ${id}\n` : "") + (data === undefined ? "data:\n" : `data: ${JSON.stringify(data)}\n`) + "\n");
  }
  element(e) { e.gap ? this.event("gap", e.gap.to, e.gap) : this.event("", e.id, e); }
  ends(error, more) {
    this.event("end", "", { error, message: "a sentence", ...more });
    this.stream.close();
  }
  cut() { if (!this.aborted) this.stream.error(new TypeError("network error")); }
}

export class World {
  sockets = [];
  requests = []; // polls and streams
  posts = []; // of commands
  lines = []; // what the page was told
  statuses = [];
  registered = 0;
  position = 40;
  page = new EventTarget();
  /** @type {{websocket: (s: any) => void, sse: (r: any) => void, poll: (r: any) => void, commands: (r: any) => void}} */
  doors = { websocket: s => good.websocket(s), sse: r => good.sse(r), poll: r => good.poll(r), commands: r => good.commands(r) };

  constructor(doors = {}) {
    forgetTimers();
    chance.value = 0.5;
    Object.assign(this.doors, doors);
    globalThis.sessionStorage = {};
    globalThis.addEventListener = (...a) => this.page.addEventListener(...a);
    globalThis.removeEventListener = (...a) => this.page.removeEventListener(...a);
  }

  /** A client of this server, and what the page hears of it in lines. */
  dial(options = {}) {
    const world = this;
    class WebSocket extends Socket { constructor(url, protocol) { super(world, url, protocol); } }
    const feed = new GpollSource("http://gpoll.test/poll", {
      WebSocket, fetch: (url, init) => new Promise((resolve, reject) => this.#arrives(new Request(this, url, init, resolve, reject))), ...options,
    });
    feed.addEventListener("message", e => this.lines.push(typeof e.data == "string" ? e.data : "bytes " + [...e.data]));
    feed.addEventListener("gap", e => this.lines.push("gap " + e.reason));
    feed.addEventListener("error", e => this.lines.push("error " + e.error.code + (e.topics ? " " + e.topics : "")));
    feed.addEventListener("status", e => this.statuses.push({ state: e.state, transport: e.transport, reasons: e.reasons.join(" "), at: now(), retry: e.retry }));
    return this.feed = feed;
  }
  #arrives(r) {
    const door = r.path == "/poll" ? "poll" : r.path == "/poll/events" ? "sse" : r.path == "/poll/commands" ? "commands" : "";
    assert.ok(door, "a request to " + r.path);
    (door == "commands" ? this.posts : this.requests).push(r);
    queueMicrotask(() => this.doors[door](r));
  }
  /** The id of the client that comes with id. */
  registers(id) { return id && id != "0" ? id : clientID(++this.registered); }
  get words() { return this.lines.join(", "); }
  get status() { const { state, transport, reasons } = this.feed.status; return [state, transport, ...reasons].filter(Boolean).join(" "); }
  /** Lets ms pass, while the server does what it does when nothing happens. */
  async quiet(ms) {
    for (const end = now() + ms; now() < end;) {
      await pass(Math.min(10e3, end - now()));
      for (const s of this.sockets) s.says({ position: at(this.position) });
      for (const r of this.requests) {
        if (r.aborted) continue;
        if (r.stream) r.event("position", at(this.position));
        else if (r.path == "/poll" && !r.answered) r.answers(200, batch(this.feed.id, at(this.position)));
      }
      await settle();
    }
  }
  /** The page is told of something. */
  async happens(type, fields = {}) {
    this.page.dispatchEvent(Object.assign(new Event(type), fields));
    await settle();
  }
}

/** What doors do. */
export const good = {
  websocket(s) {
    s.accepts();
    s.hears = frame => {
      const position = at(s.world.position);
      if (frame.hello) s.says({ welcome: { "client-id": s.world.registers(frame.hello["client-id"]), position: frame.hello.after || position, heartbeat_ms: 15000, spread_ms: 100 } });
      else if (frame.subscribe) s.says({ subscribed: { topics: frame.subscribe, position } });
      else if (frame.unsubscribe) s.says({ unsubscribed: { topics: frame.unsubscribe, position } });
      else if (frame.presence) s.says({ watching: { topics: frame.presence, position } });
      else if (frame.id) s.says(answer(frame));
    };
  },
  sse(r) {
    r.begins();
    r.event("client-id", r.says("after") || at(r.world.position), { "client-id": r.world.registers(r.id) });
  },
  poll(r) {
    if (r.id == "0") r.answers(200, batch(r.world.registers(r.id), r.says("after") || at(r.world.position)));
  },
  commands(r) {
    r.answers(200, Array.isArray(r.body) ? r.body.map(answer) : { left: true });
  },
};

/** The answer to a command that is done. */
export function answer(frame) {
  const { id } = frame;
  return frame.publish ? { published: { id, position: at(7) } } : frame.request ? { reply: { id, data: "re: " + frame.request.data } } :
    frame.reply ? { replied: { id } } : { sent: { id } };
}

/** The answer to a poll. */
export const batch = (id, position, messages = [], more = {}) => ({ "client-id": id, position, messages, more: false, ...more });

export const doors = {
  refuse: c => c.answers ? c.answers(403, "no", "text/plain") : c.ends(1006),
  silent: () => { },
  unreachable: c => c.fails ? c.fails() : c.ends(1006),
  badGateway: c => c.answers ? c.answers(502, "<html>", "text/html") : c.ends(1006),
};
