// Topics and presence: what the client subscribes to and watches, and what the server refuses of it.

import { test } from "node:test";
import { pass, settle } from "./clock.mjs";
import { assert, at, batch, good, message, World } from "./world.mjs";

const transports = ["websocket", "sse", "long-poll"];

async function connected(transport, options, doors) {
  const w = new World(doors);
  w.dial({ transports: [transport], ...options });
  await settle();
  await pass(1100);
  assert.equal(w.status, "connected " + transport);
  return w;
}

/** What the server knows of the topics, by the frames or the last request. */
function known(w) {
  const s = w.sockets.at(-1);
  if (!s) return w.requests.at(-1).topics;
  let topics = s.hello.topics;
  for (const f of s.said) topics = topics.concat(f.subscribe || []).filter(t => !f.unsubscribe?.includes(t));
  return topics;
}
function watched(w) {
  const f = w.sockets.at(-1)?.said.findLast(f => f.presence || f.hello?.presence);
  return f ? f.presence ?? f.hello.presence : w.requests.at(-1).query.getAll("presence");
}

/** Says messages by whatever carries the client. */
async function say(w, ...elements) {
  const s = w.sockets.at(-1), r = w.requests.at(-1);
  if (s) s.says(...elements);
  else if (r.stream) elements.forEach(e => r.element(e));
  else r.answers(200, batch(w.feed.id, elements.at(-1).id, elements));
  await settle();
}

for (const transport of transports) {
  test(`${transport}: topics are counted, and the changes of a moment are one`, async () => {
    const w = await connected(transport, { topics: ["first"] });
    const requests = w.requests.length, { id } = w.feed;
    const a = w.feed.subscribe("news"), b = w.feed.subscribe(["news", "sport"]), c = w.feed.subscribe("brief");
    c();
    assert.deepEqual(w.feed.topics, ["first", "news", "sport"]);
    await pass(1100);
    assert.deepEqual(known(w), ["first", "news", "sport"]);
    if (transport == "websocket") assert.deepEqual(w.sockets[0].said.slice(1), [{ subscribe: ["news", "sport"] }]);
    else assert.equal(w.requests.length, requests + 1);
    b();
    b(); // once is enough
    await pass(1100);
    assert.deepEqual(known(w), ["first", "news"], "news has another subscriber");
    a();
    await pass(1100);
    assert.deepEqual(known(w), ["first"]);
    assert.equal(w.feed.id, id);
    assert.equal(w.status, "connected " + transport);
    assert.equal(w.words, "");
    const again = w.feed.subscribe("news"); // and back in a moment
    again();
    const n = w.requests.length + (w.sockets[0]?.said.length || 0);
    await pass(1100);
    assert.equal(w.requests.length + (w.sockets[0]?.said.length || 0), n);
  });

  test(`${transport}: a subscriber hears the messages of its topics, and nothing after it has stopped`, async () => {
    const w = await connected(transport);
    const heard = [];
    const note = name => e => heard.push(name + " " + e.data);
    const stop = w.feed.subscribe("a", note("a"));
    w.feed.subscribe(["b", "c.*.x"], note("bc"));
    w.feed.subscribe("d.>", note("d"));
    await pass(1100);
    const topics = ["a", "b", "c.1.x", "c.1.2.x", "d", "d.1", "d.1.2", "ab", "cx1xx", ""];
    await say(w, ...topics.map((topic, i) => message(41 + i, topic, topic)));
    assert.deepEqual(heard, ["a a", "bc b", "bc c.1.x", "d d.1", "d d.1.2"]);
    assert.equal(w.lines.length, topics.length, "onmessage hears all");
    stop();
    await pass(1100);
    await say(w, message(60, "late", "a"));
    assert.ok(!heard.includes("a late"));
  });

  test(`${transport}: what changes before the first answer goes with it, and registers no other client`, async () => {
    const w = new World();
    const late = c => setTimeout(() => good[transport == "long-poll" ? "poll" : transport](c), 500);
    Object.assign(w.doors, { websocket: late, sse: late, poll: r => r.id == "0" ? late(r) : good.poll(r) });
    w.dial({ transports: [transport], topics: "first" });
    await settle();
    w.feed.subscribe("second");
    w.feed.presence("first", () => { });
    await settle();
    assert.equal(w.sockets.length + w.requests.length, 1);
    await pass(2000);
    assert.equal(w.registered, 1);
    assert.equal(w.status, "connected " + transport);
    assert.deepEqual(known(w), ["first", "second"]);
    assert.deepEqual(watched(w), ["first"]);
  });

  test(`${transport}: a subscription outlives the connection`, async () => {
    const w = await connected(transport, { topics: "a" });
    w.feed.subscribe("b");
    await pass(1100);
    if (transport == "websocket") w.sockets[0].ends(1006);
    else w.requests.at(-1).stream ? w.requests.at(-1).cut() : w.requests.at(-1).fails();
    await pass(2000);
    assert.equal(w.status, "connected " + transport);
    assert.deepEqual(known(w), ["a", "b"]);
  });

  test(`${transport}: topics that the server refuses are taken back, and the rest goes on`, async () => {
    const closed = r => r.topics.includes("closed");
    const w = await connected(transport, { topics: "open" }, {
      websocket: s => {
        good.websocket(s);
        const hears = s.hears;
        s.hears = f => f.subscribe?.includes("closed") ? s.says({ error: { code: "topic-forbidden", message: "a sentence" } }) : hears(f);
      },
      sse: r => closed(r) ? r.refuses(403, "topic-forbidden") : good.sse(r),
      poll: r => closed(r) ? r.refuses(403, "topic-forbidden") : good.poll(r),
    });
    const errors = [];
    w.feed.onerror = e => errors.push([e.type, e.error.code, e.error.message, e.topics, e.state]);
    w.feed.subscribe(["closed", "shut"]);
    await pass(1100);
    assert.deepEqual(errors.map(e => e.slice(0, 4)), [["error", "topic-forbidden", "a sentence", ["closed", "shut"]]]);
    assert.deepEqual(w.feed.topics, ["open"]);
    assert.equal(w.status, "connected " + transport);
    w.feed.subscribe("also");
    await pass(1100);
    assert.deepEqual(w.feed.topics, ["open", "also"]);
    await say(w, message(41, "m41", "also"));
    assert.equal(w.words, "error topic-forbidden closed,shut, m41");
    assert.equal(w.registered, 1);
  });

  test(`${transport}: topics that are refused at the beginning are the end`, async () => {
    const w = new World({
      websocket: s => { s.accepts(); s.hears = () => s.ends(4001, "topic-forbidden"); },
      sse: r => r.refuses(403, "topic-forbidden"), poll: r => r.refuses(403, "topic-forbidden"),
    });
    w.dial({ transports: [transport], topics: "closed" });
    await settle();
    assert.equal(w.status, "closed");
    assert.equal(w.words, "error topic-forbidden");
  });

  test(`${transport}: presence is merged`, async () => {
    const w = await connected(transport);
    const told = [], also = [];
    const stop = w.feed.presence(["news", "sport"], p => told.push(`${p.topic} ${p.count} ${p.members.map(m => m.id + (m.user || ""))}`));
    await pass(1100);
    assert.deepEqual(watched(w), ["news", "sport"]);
    const tell = async news => {
      if (transport == "websocket") w.sockets[0].says({ presence: news });
      else if (transport == "sse") w.requests.at(-1).event("presence", "", news);
      else w.requests.at(-1).answers(200, batch(w.feed.id, at(40), [], { presence: news }));
      await pass(400);
    };
    const position = n => "03ac674216f3e15c-" + n;
    await tell({ position: position(1), topics: [{ topic: "news", count: 2, members: [{ id: "a" }, { id: "b", user: "bob" }] }] });
    assert.deepEqual(told.splice(0), ["news 2 a,bbob"]);
    if (transport == "long-poll") assert.equal(w.requests.at(-1).says("presence-after"), undefined, "it does not know sport yet");
    await tell({ position: position(2), topics: [{ topic: "sport", count: 0, members: [] }, { topic: "news", count: 2, join: [{ id: "a", user: "ann" }, { id: "c" }], leave: ["b"] }, { topic: "unwatched", count: 5 }] });
    assert.deepEqual(told.splice(0), ["sport 0 ", "news 2 aann,c"]);
    if (transport == "long-poll") assert.equal(w.requests.at(-1).says("presence-after"), position(2));
    w.feed.presence("news", p => also.push(p.count)); // who comes late is told at once
    await settle();
    assert.deepEqual(also, [2]);
    await tell({ position: position(3), topics: [{ topic: "news", count: 3000 }] }); // too many
    assert.deepEqual(told.splice(0), ["news 3000 "]);
    await tell({ position: position(4), topics: [{ topic: "news", count: 3001, join: [{ id: "z" }] }, { topic: "news", count: 1, members: [{ id: "y" }] }] });
    assert.equal(told.at(-1), "news 1 y");
    told.length = 0;
    stop();
    await pass(1100);
    assert.deepEqual(watched(w), ["news"], "news has another watcher");
    await tell({ position: position(5), topics: [{ topic: "news", count: 2, join: [{ id: "x" }] }] });
    assert.deepEqual(told, []);
    assert.equal(also.at(-1), 2);
    if (transport != "websocket") {
      const r = w.requests.at(-1);
      r.stream ? r.cut() : r.fails();
      await pass(2000);
      assert.equal(w.requests.at(-1).says("presence-after"), position(5));
    }
    w.feed.presence("more", () => { });
    await pass(1100);
    assert.deepEqual(watched(w), ["news", "more"]);
    if (transport != "websocket") assert.equal(w.requests.at(-1).says("presence-after"), undefined);
  });

  test(`${transport}: a client that watches nothing any more does not say what it knew`, async () => {
    const w = await connected(transport);
    const stop = w.feed.presence("news", () => { });
    await pass(1100);
    const news = { position: "03ac674216f3e15c-1", topics: [{ topic: "news", count: 0, members: [] }] };
    if (transport == "websocket") w.sockets[0].says({ presence: news });
    else if (transport == "sse") w.requests.at(-1).event("presence", "", news);
    else w.requests.at(-1).answers(200, batch(w.feed.id, at(40), [], { presence: news }));
    await pass(400);
    stop();
    await pass(1100);
    if (transport == "websocket") {
      assert.deepEqual(w.sockets[0].said.at(-1), { presence: [] });
      w.sockets[0].ends(1006);
      await pass(1000);
      const { presence, "presence-after": after } = w.sockets[1].hello;
      assert.deepEqual([presence, after], [undefined, undefined]);
    } else assert.deepEqual([w.requests.at(-1).says("presence"), w.requests.at(-1).says("presence-after")], [undefined, undefined]);
  });
}

test("the answers to frames about topics come in their order, and only an error takes something back", async () => {
  const w = await connected("websocket", { topics: "a" });
  const [s] = w.sockets;
  s.hears = () => { };
  w.feed.subscribe("b");
  await settle();
  w.feed.subscribe("c");
  await settle();
  w.feed.presence("p", () => assert.fail("it is refused"));
  await settle();
  assert.deepEqual(s.said.slice(1), [{ subscribe: ["b"] }, { subscribe: ["c"] }, { presence: ["p"] }]);
  s.says({ subscribed: { topics: ["b"], position: at(50) } });
  assert.equal(w.feed.position, at(50), "which is scanned");
  s.says({ error: { code: "too-many-topics", message: "a sentence" } }, { error: { code: "presence-forbidden", message: "a sentence" } });
  await settle();
  assert.equal(w.words, "error too-many-topics c, error presence-forbidden p");
  assert.deepEqual(w.feed.topics, ["a", "b"]);
  s.ends(1006);
  await pass(1000);
  assert.deepEqual(w.sockets[1].hello.topics, ["a", "b"]);
  assert.equal(w.sockets[1].hello.presence, undefined);
});

test("a watcher that throws hurts nobody else", async () => {
  const w = await connected("websocket");
  const had = process.listeners("uncaughtException"), thrown = [], told = [];
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", e => thrown.push(e.message));
  try {
    w.feed.presence("news", () => { throw new Error("of the page"); });
    w.feed.presence("news", p => told.push(p.count));
    await settle();
    w.sockets[0].says({ presence: { position: "03ac674216f3e15c-1", topics: [{ topic: "news", count: 1 }] } });
    await settle();
  } finally {
    process.removeAllListeners("uncaughtException");
    for (const f of had) process.on("uncaughtException", f);
  }
  assert.deepEqual([thrown, told], [["of the page"], [1]]);
  assert.equal(w.status, "connected websocket");
});
