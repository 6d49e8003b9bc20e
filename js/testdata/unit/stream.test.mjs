// The stream of messages and gaps: the rules of client/cursor.go, over each transport.

import { test } from "node:test";
import { now, pass, settle } from "./clock.mjs";
import { assert, at, batch, clientID, doors, epoch, good, message, World } from "./world.mjs";

const gap = (from, to, reason = "evicted") => ({ gap: { from: at(from), to: at(to), reason } });
const other = seq => "03ac674216f3e15c-" + seq;
const transports = ["websocket", "sse", "long-poll"];

/** A world with a client that is connected, and say, which says elements and positions by the transport. */
async function connected(transport, options, doors) {
  const w = new World(doors);
  w.dial({ transports: [transport], topics: ["news"], ...options });
  await settle();
  await pass(1100); // for the poll that waits
  assert.equal(w.status, "connected " + transport);
  const say = async (...elements) => {
    if (transport == "websocket") w.sockets.at(-1).says(...elements);
    else if (transport == "sse") for (const e of elements) e.position ? w.requests.at(-1).event("position", e.position) : w.requests.at(-1).element(e);
    else {
      const { position } = elements.findLast(e => e.position) || {};
      const last = elements.findLast(e => e.id || e.gap?.to);
      w.requests.at(-1).answers(200, batch(w.feed.id, position || last?.id || last?.gap.to || w.feed.position, elements.filter(e => !e.position)));
    }
    await settle();
    await pass(300);
  };
  const cut = async () => {
    if (transport == "websocket") w.sockets.at(-1).ends(1006);
    else if (transport == "sse") w.requests.at(-1).cut();
    else w.requests.at(-1).fails();
    await pass(2000);
  };
  const after = () => w.sockets.at(-1)?.hello.after ?? w.requests.at(-1).says("after");
  return { w, say, cut, after };
}

for (const transport of transports) {
  test(`${transport}: messages come once, in order`, async () => {
    const { w, say, cut, after } = await connected(transport);
    await say(message(41), message(43));
    await say(message(41), message(42), message(43), message(44));
    assert.equal(w.words, "m41, m43, m44");
    assert.equal(w.feed.position, at(44));
    await cut();
    assert.equal(after(), at(44));
    await say(message(44), message(45));
    assert.match(w.words, /^m41, m43, m44, error \w+, m45$/);
  });

  test(`${transport}: a scanned position moves the cursor, and never back`, async () => {
    const { w, say, cut, after } = await connected(transport);
    await say({ position: at(50) });
    assert.equal(w.feed.position, at(50));
    await say({ position: at(45) });
    await say({ position: other(99) }); // without a gap it would hide one
    assert.equal(w.feed.position, at(50));
    await say(message(49), message(51));
    assert.equal(w.words, "m51");
    await cut();
    assert.equal(after(), at(51));
  });

  test(`${transport}: a gap is told once, and behind it the cursor is its end`, async () => {
    const { w, say, cut, after } = await connected(transport);
    await say(message(41), gap(42, 60));
    assert.equal(w.words, "m41, gap evicted");
    assert.equal(w.feed.position, at(60));
    await cut();
    assert.equal(after(), at(60));
    w.lines.length = 0;
    await say(gap(42, 60), message(59), message(61));
    assert.equal(w.words, "m61");
    await say(gap(62, 70, "broker"), gap(71, 80, "expired"), message(81));
    assert.equal(w.words, "m61, gap broker, gap expired, m81");
  });

  test(`${transport}: an epoch begins with one gap, which the server says again until there is a position`, async () => {
    const { w, say, cut, after } = await connected(transport);
    await say(message(41));
    const end = { gap: { from: at(42), to: at(0), reason: "epoch" } };
    if (transport == "long-poll") { // a batch has a position
      await say(end, { id: other(5), data: "new" });
      assert.equal(w.words, "m41, gap epoch, new");
    } else {
      await say(end);
      assert.equal(w.feed.position, at(41), "the next position tells where");
      await cut();
      assert.equal(after(), at(41));
      w.lines.length = 0;
      await say(end, { id: other(5), data: "new" });
      assert.equal(w.words, "new", "the gap was told before");
    }
    assert.equal(w.feed.position, other(5));
    w.lines.length = 0;
    await say({ id: other(5), data: "new" }, { id: other(6), data: "newer" }, message(42));
    assert.match(w.words, /^newer/);
  });

  test(`${transport}: a gap of the future has no range, and a position may end it`, async () => {
    const { w, say } = await connected(transport);
    await say({ gap: { reason: "future" } }, { position: at(12) });
    assert.equal(w.words, "gap future");
    assert.equal(w.feed.position, at(12));
    await say(message(13));
    assert.equal(w.words, "gap future, m13");
  });

  test(`${transport}: events have what the types say`, async () => {
    const { w, say } = await connected(transport);
    const events = [];
    w.feed.onmessage = e => events.push(e);
    w.feed.ongap = e => events.push(e);
    await say({ id: at(41), topic: "news", data: "a\nb" }, { id: at(42), data64: "/wA=" }, { id: at(43), data: "" }, gap(44, 45));
    const [a, b, c, d] = events;
    assert.ok(a instanceof Event && a.type == "message");
    assert.deepEqual([a.data, a.topic, a.position, a.lastEventId], ["a\nb", "news", at(41), at(41)]);
    assert.deepEqual([b.data, b.topic], [Uint8Array.of(0xff, 0), ""]);
    assert.deepEqual([c.data, c.topic], ["", ""]);
    assert.deepEqual([d.type, d.from, d.to, d.reason], ["gap", at(44), at(45), "evicted"]);
  });

  test(`${transport}: a page may begin after a position, or with recent messages`, async () => {
    const { after } = await connected(transport, { after: at(7), last: 5 });
    assert.equal(after(), at(7));
    const w = new World({
      websocket: s => {
        s.accepts();
        s.hears = () => s.says({ welcome: { "client-id": clientID(1), position: at(40), heartbeat_ms: 15000, spread_ms: 100 } }, message(38), message(40), message(41));
      },
      sse: r => {
        r.begins();
        r.event("client-id", at(37), { "client-id": clientID(1) });
        for (const seq of [38, 40, 41]) r.element(message(seq));
      },
      poll: r => {
        if (r.id == "0") r.answers(200, batch(clientID(1), at(40), [message(38), message(40)]));
        else if (r.says("after") == at(40)) r.answers(200, batch(clientID(1), at(41), [message(41)]));
      },
    });
    w.dial({ transports: [transport], topics: ["news"], last: 5 });
    await settle();
    assert.equal(w.words, "m38, m40, m41");
    const said = w.sockets[0]?.hello ?? { last: +w.requests[0].says("last"), after: w.requests[0].says("after") };
    assert.equal(said.last, 5);
    assert.equal(said.after, undefined);
  });

  test(`${transport}: for await yields messages and gaps, and ends with the client`, async () => {
    const { w, say } = await connected(transport);
    const got = [];
    let ended = "";
    const loop = (async () => { for await (const e of w.feed) got.push(e.type == "gap" ? "gap" : e.data); })().then(() => ended = "end", e => ended = e.code);
    await settle();
    await say(message(41), gap(42, 43), message(44));
    assert.deepEqual(got, ["m41", "gap", "m44"]);
    if (transport == "websocket") w.sockets[0].ends(4004, "removed");
    else if (transport == "sse") w.requests[0].ends("removed");
    else w.requests.at(-1).refuses(404, "removed");
    await settle();
    await loop;
    assert.equal(ended, "removed", "it throws what has ended the client");

    const left = await connected(transport);
    const all = (async () => { const all = []; for await (const e of left.w.feed) all.push(e.data); return all; })();
    await settle();
    await left.say(message(41));
    left.w.feed.close();
    assert.deepEqual(await all, ["m41"]);
  });

  test(`${transport}: while a loop does not keep up, the client reads no more, and then goes on without a loss`, async () => {
    const { w, say, after } = await connected(transport);
    let proceed, count = 0, last = 40;
    const loop = (async () => {
      for await (const e of w.feed) {
        assert.equal(+e.data.slice(1), ++last);
        if (++count == 1) await new Promise(done => proceed = done);
        if (count == 1100) break;
      }
    })();
    await settle();
    const many = (from, n) => Array.from({ length: n }, (_, i) => message(from + i));
    await say(...many(41, 500));
    await say(...many(541, 500));
    const connection = () => w.sockets.length + w.requests.length;
    assert.equal(count, 1);
    await say(...many(1041, 30));
    const n = connection();
    if (transport == "websocket") assert.ok(w.sockets[0].left);
    await w.quiet(60e3);
    assert.equal(connection(), n, "it waits for the loop");
    const read = +w.feed.position.split("-")[1];
    assert.ok(read > 1040 && read <= 1070, `${read}`);
    proceed();
    await pass(1000);
    assert.equal(after(), at(read));
    await say(...many(read + 1, 100));
    await pass(100);
    assert.equal(count, 1100);
    await loop;
    assert.equal(w.status, "connected " + transport);
    await say(...many(read + 101, 500));
    await say(...many(read + 601, 700)); // nobody loops any more
    assert.equal(w.status, "connected " + transport);
    assert.equal(w.lines.length, read - 40 + 1300);
  });
}

test("a loop that is left does not hold the client up", async () => {
  const { w, say } = await connected("websocket");
  const loop = w.feed[Symbol.asyncIterator]();
  const first = loop.next();
  await settle();
  await say(message(41));
  assert.equal((await first).value.data, "m41");
  await say(...Array.from({ length: 1100 }, (_, i) => message(42 + i)));
  assert.ok(w.sockets[0].left);
  await loop.return();
  await pass(100);
  assert.equal(w.status, "connected websocket");
  assert.equal(w.sockets.length, 2);
});

test("a listener that throws hurts nobody else", async () => {
  const { w, say } = await connected("websocket");
  const thrown = [];
  const hear = e => thrown.push(e.message);
  const had = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", hear);
  try {
    w.feed.onmessage = e => { if (e.data == "m41") throw new Error("of the page"); };
    await say(message(41), message(42));
    await settle();
  } finally {
    process.off("uncaughtException", hear);
    for (const f of had) process.on("uncaughtException", f);
  }
  assert.deepEqual(thrown, ["of the page"]);
  assert.equal(w.words, "m41, m42");
  assert.equal(w.status, "connected websocket");
});

test("events may be cut anywhere, also in a character", async () => {
  const text = `event: client-id\nid: ${at(40)}\ndata: {"client-id":"${clientID(1)}"}\n\n: a remark\n\nid: ${at(41)}\r\n` +
    `data: {"id":"${at(41)}","topic":"news","data":"é€😀: x"}\r\n\r\nevent: position\nid: ${at(44)}\ndata:\n\n` +
    `event: of a later version\ndata: {}\n\nid: ${at(45)}\ndata: {"id":"${at(45)}","data64":"/wA="}\n\n`;
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 7, bytes.length]) {
    const w = new World({
      sse: r => {
        r.begins();
        for (let i = 0; i < bytes.length; i += size) r.bytes(bytes.slice(i, i + size));
      },
    });
    w.dial({ transports: ["sse"] });
    for (let i = 0; i < 100 && w.lines.length < 2; i++) await settle();
    assert.equal(w.words, "é€😀: x, bytes 255,0", "in pieces of " + size);
    assert.equal(w.feed.id, clientID(1));
    assert.equal(w.feed.position, at(45));
  }
});

test("a poll that is answered with nothing is followed after 250 ms, and one with something at once", async () => {
  const w = new World();
  w.dial({ transports: ["long-poll"] });
  await settle();
  const begun = now();
  const times = () => w.requests.slice(1).map(r => r.begun - begun);
  assert.deepEqual(times(), [0], "the registration is followed at once");
  w.requests[1].answers(200, batch(w.feed.id, at(40)));
  await pass(249);
  assert.deepEqual(times(), [0]);
  await pass(1);
  assert.deepEqual(times(), [0, 250]);
  w.requests[2].answers(200, batch(w.feed.id, at(41), [message(41)]));
  await settle();
  assert.deepEqual(times(), [0, 250, 250]);
  await pass(400);
  w.requests[3].answers(200, batch(w.feed.id, at(41)));
  await settle();
  assert.deepEqual(times(), [0, 250, 250, 650], "it had waited long enough");
});

test("a poll says that it is connected when nothing has refused it for a second", async () => {
  const w = new World({ websocket: doors.refuse, sse: doors.refuse });
  w.dial();
  await settle();
  w.requests.at(-1).fails();
  await settle();
  assert.equal(w.feed.status.state, "waiting");
  await pass(51);
  await pass(999);
  assert.equal(w.feed.status.state, "waiting");
  await pass(1);
  assert.equal(w.status, "connected long-poll ws_refused sse_refused");
});

test("more topics than a query has room for come by POST", async () => {
  const topics = Array.from({ length: 100 }, (_, i) => "a-topic-with-a-long-name-" + i);
  for (const transport of ["sse", "long-poll"]) {
    const w = new World();
    w.dial({ transports: [transport], topics, last: 3 });
    await settle();
    assert.equal(w.status, "connected " + transport);
    const [r] = w.requests;
    assert.equal(r.method, "POST");
    assert.equal(r.query.size, 0);
    assert.equal(r.headers["content-type"], "application/json");
    assert.equal(r.headers["gpoll-client-id"], "0");
    assert.deepEqual(r.body, { topics, last: 3, asked: 0, format: "json" });
  }
});

test("requests say what the protocol asks for, and no id in the URL", async () => {
  const w = new World();
  const feed = w.dial({ transports: ["sse"], topics: ["a", "b"], headers: { "X-Tenant": "t" }, withCredentials: true });
  await settle();
  w.requests[0].cut();
  await pass(1000);
  const [first, second] = w.requests;
  assert.equal(first.method, "GET");
  assert.equal(first.path, "/poll/events");
  assert.deepEqual([...first.query], [["format", "json"], ["topic", "a"], ["topic", "b"], ["asked", "0"]]);
  assert.equal(first.headers.accept, "text/event-stream");
  assert.equal(first.headers["x-tenant"], "t");
  assert.equal(first.credentials, "include");
  assert.deepEqual([...second.query], [["format", "json"], ["topic", "a"], ["topic", "b"], ["after", at(40)], ["asked", "0"]]);
  assert.equal(second.id, feed.id);
  const plain = new World();
  plain.dial({ transports: ["long-poll"] });
  await settle();
  assert.equal(plain.requests[0].credentials, "same-origin");
  assert.equal(plain.requests[0].headers.accept, "application/json");
  assert.equal(plain.requests[0].path, "/poll");
});

test("the address is that of the mount, however it is written", async () => {
  const had = globalThis.location;
  for (const [said, is] of [["http://gpoll.test/poll", "http://gpoll.test/poll"], ["http://gpoll.test/poll/", "http://gpoll.test/poll"],
    ["http://gpoll.test/poll?x#y", "http://gpoll.test/poll"], [new URL("http://gpoll.test/a/poll//?"), "http://gpoll.test/a/poll"],
    ["/poll", "https://page.test/poll"], ["poll", "https://page.test/dir/poll"]]) {
    const w = new World();
    globalThis.location = { href: "https://page.test/dir/page?q" };
    try {
      const { GpollSource } = await import("../../gpoll.js");
      const feed = new GpollSource(said, { WebSocket: class { constructor(url) { w.address = url; } close() { } } });
      assert.equal(feed.url, is);
      await settle();
      assert.equal(w.address, is.replace("http", "ws") + "/ws");
      feed.close();
    } finally {
      globalThis.location = had;
    }
  }
});
