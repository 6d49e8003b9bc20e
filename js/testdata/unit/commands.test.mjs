// What the page says to the server, and what the server asks it: each done once, over every change of transport.

import { test } from "node:test";
import { pass, settle } from "./clock.mjs";
import { answer, assert, at, batch, clientID, doors, good, World } from "./world.mjs";

const transports = ["websocket", "sse", "long-poll"];

async function connected(transport, options, doors) {
  const w = new World(doors);
  w.dial({ transports: [transport], ...options });
  await settle();
  await pass(1100);
  assert.equal(w.status, "connected " + transport);
  return w;
}

/** The commands that the server has got, in order. */
const got = w => [...w.sockets.flatMap(s => s.said.filter(f => f.id)), ...w.posts.flatMap(r => r.body).filter(f => f.id)];
const codes = async promises => (await Promise.allSettled(promises)).map(p => p.status == "rejected" ? p.reason.course ? p.reason.code : p.reason.name : p.value);

/** A WebSocket whose server answers frames by f. */
const answering = f => s => {
  good.websocket(s);
  const hears = s.hears;
  s.hears = frame => frame.hello ? hears(frame) : f(frame, s);
};

for (const transport of transports) {
  test(`${transport}: commands are brought in order, with ids of their own, and settle by their answers`, async () => {
    const w = await connected(transport);
    const all = [w.feed.send("a"), w.feed.publish("news", "b"), w.feed.request("c"), w.feed.send(Uint8Array.of(0xff, 0)), w.feed.send(new DataView(Uint8Array.of(1, 2, 3).buffer, 1)), w.feed.send(new ArrayBuffer(1))];
    assert.deepEqual(await Promise.all(all), [undefined, at(7), "re: c", undefined, undefined, undefined]);
    const frames = got(w), ids = frames.map(f => f.id);
    assert.equal(new Set(ids).size, 6);
    assert.ok(ids.every(id => /^[0-9a-f]{20}-\d$/.test(id)), `${ids}`);
    assert.deepEqual(frames.map(({ id, ...f }) => f), [{ send: { data: "a" } }, { publish: { topic: "news", data: "b" } }, { request: { data: "c" } },
      { send: { data64: "/wA=" } }, { send: { data64: "AgM=" } }, { send: { data64: "AA==" } }]);
    if (transport != "websocket") {
      assert.equal(w.posts[0].id, w.feed.id);
      assert.equal(w.posts[0].headers["content-type"], "application/json");
    }
  });

  test(`${transport}: what is no payload, or too much, is refused before anything is sent`, async () => {
    const w = await connected(transport);
    await assert.rejects(w.feed.send({ a: 1 }), /JSON.stringify/);
    await assert.rejects(w.feed.send(5), TypeError);
    await assert.rejects(w.feed.send("é".repeat(32500)), RangeError);
    await assert.rejects(w.feed.publish("a", new Uint8Array(48751)), RangeError);
    await w.feed.send("é".repeat(32400));
    assert.equal(got(w).length, 1);
  });

  test(`${transport}: a command that the server refuses rejects with its word`, async () => {
    const refuse = f => ({ error: { code: f.request ? "refused" : "topic-forbidden", message: "not today", id: f.id } });
    const w = await connected(transport, {}, {
      websocket: answering((f, s) => s.says(refuse(f))),
      commands: r => r.answers(200, r.body.map(refuse)),
    });
    await assert.rejects(w.feed.request("x"), e => e.code == "refused" && e.message == "not today" && e.course == "stop");
    await assert.rejects(w.feed.publish("closed", "x"), e => e.code == "topic-forbidden");
    assert.equal(w.feed.readyState, 1, "which is not the end");
    assert.equal(got(w).length, 2);
  });

  test(`${transport}: a command of which no answer came goes again with its id, by whatever carries the client then`, async () => {
    const w = new World({ websocket: answering(() => { }), commands: doors.silent });
    w.dial({ transports: [transport] });
    await settle();
    const sent = [w.feed.send("a"), w.feed.send("b")];
    await settle();
    const before = got(w).length;
    Object.assign(w.doors, good);
    if (transport == "websocket") w.sockets[0].ends(1006);
    else w.posts[0].fails();
    await pass(1000);
    assert.deepEqual(await Promise.all(sent), [undefined, undefined]);
    const frames = got(w);
    assert.deepEqual(frames.map(f => f.send.data), transport == "websocket" ? ["a", "b", "a", "b"] : ["a", "a", "b"]);
    assert.equal(frames[0].id, frames[before].id);
    assert.equal(new Set(frames.map(f => f.id)).size, 2);
  });

  test(`${transport}: at the server's word a command waits, and the order stays`, async () => {
    let refuse = true;
    const say = f => refuse ? { error: { code: "rate", message: "a sentence", retry_ms: 700, id: f.id } } : answer(f);
    const w = await connected(transport, {}, { websocket: answering((f, s) => s.says(say(f))), commands: r => r.answers(200, r.body.map(say)) });
    const sent = [w.feed.send("a"), w.feed.send("b"), w.feed.send("c")];
    await settle();
    const n = got(w).length;
    refuse = false;
    await pass(699);
    assert.equal(got(w).length, n);
    await pass(1);
    await Promise.all(sent);
    assert.deepEqual(got(w).slice(n).map(f => f.send.data), ["a", "b", "c"]);
  });

  test(`${transport}: an aborted command rejects, and the next ones go on`, async () => {
    const w = new World({ [transport]: doors.silent });
    w.dial({ transports: [transport] });
    Object.assign(w.doors, { sse: doors.silent, poll: doors.silent, websocket: doors.silent });
    await settle();
    const life = new AbortController();
    const sent = [w.feed.send("a", { signal: life.signal }), w.feed.send("b", { signal: AbortSignal.abort() }), w.feed.send("c")];
    const outcome = codes(sent);
    await settle();
    life.abort(new RangeError("enough"));
    Object.assign(w.doors, good);
    w.sockets[0]?.ends(1006);
    w.requests[0]?.fails();
    await pass(2000);
    assert.deepEqual(await outcome, ["RangeError", "AbortError", undefined]);
    assert.deepEqual(got(w).map(f => f.send.data), ["c"]);
  });

  test(`${transport}: the server's requests are answered once`, async () => {
    const w = await connected(transport);
    const asked = [];
    w.feed.onrequest = async data => {
      asked.push(data);
      if (data == "throws") throw new Error("not today");
      return data == "nothing" ? undefined : data == "wrong" ? {} : "re: " + data;
    };
    const ask = async (...requests) => {
      if (transport == "websocket") for (const request of requests) w.sockets.at(-1).says({ request });
      else if (transport == "sse") for (const request of requests) w.requests.at(-1).event("request", "", request);
      else w.requests.at(-1).answers(200, batch(w.feed.id, at(40), [], { requests }));
      await pass(1100);
    };
    await ask({ id: "1", data: "a" }, { id: "2", data: "throws" }, { id: "3", data: "nothing" }, { id: "4", data: "wrong" });
    await ask({ id: "2", data: "throws" }, { id: "4", data: "wrong" }, { id: "5", data64: "/wA=" });
    assert.deepEqual(asked.slice(0, 4), ["a", "throws", "nothing", "wrong"]);
    assert.deepEqual(asked.slice(4), [Uint8Array.of(0xff, 0)]);
    const replies = got(w).map(f => [f.id, f.reply]);
    assert.deepEqual(replies.slice(0, 3).sort(), [["1", { data: "re: a" }], ["2", { error: "not today" }], ["3", { data: "" }]]);
    assert.match(replies.find(r => r[0] == "4")[1].error, /JSON.stringify/);
    assert.deepEqual(replies.length, 5);
    if (transport == "long-poll") assert.equal(w.requests.at(-1).says("asked"), "5", "the next poll says what it has");

    const end = w.sockets.at(-1) || w.requests.at(-1); // the next attach says what the client has
    end.hello ? end.ends(1006) : end.stream ? end.cut() : end.fails();
    await pass(2000);
    assert.equal(+(w.sockets.at(-1)?.hello.asked ?? w.requests.at(-1).says("asked")), 5);
    w.feed.onrequest = null;
    await ask({ id: "6", data: "who?" });
    assert.deepEqual(got(w).at(-1), { reply: { error: "this client answers no requests" }, id: "6" });
  });
}

test("a reply of a client that the server has forgotten is not sent", async () => {
  const w = await connected("websocket");
  let reply;
  w.feed.onrequest = () => new Promise(done => reply = done);
  w.sockets[0].says({ request: { id: "1", data: "what?" } });
  await settle();
  w.sockets[0].ends(4010, "unknown-client");
  await pass(1000);
  assert.equal(w.feed.id, clientID(2));
  assert.equal(w.sockets[1].hello.asked, 0, "a new client begins with request 1");
  reply("late");
  await pass(1000);
  assert.deepEqual(got(w), []);
  w.feed.onrequest = () => "now";
  w.sockets[1].says({ request: { id: "1", data: "and now?" } });
  await settle();
  assert.deepEqual(got(w), [{ reply: { data: "now" }, id: "1" }]);
});

test("a reply that waits when the server forgets the client is dropped", async () => {
  const w = await connected("websocket", {}, { websocket: answering(() => { }) });
  w.feed.onrequest = () => "a";
  w.sockets[0].says({ request: { id: "1", data: "what?" } });
  await settle();
  assert.equal(got(w).length, 1);
  w.sockets[0].ends(4010, "unknown-client");
  await pass(1000);
  assert.equal(got(w).length, 1);
});

test("32 commands at most are under way on a WebSocket", async () => {
  const frames = [];
  const w = await connected("websocket", {}, { websocket: answering(f => frames.push(f)) });
  const sent = Array.from({ length: 100 }, (_, i) => w.feed.send("c" + i));
  await settle();
  assert.equal(frames.length, 32);
  w.sockets[0].says(...frames.slice(0, 10).map(answer));
  await settle();
  assert.equal(frames.length, 42);
  for (let i = 10; i < 100; i++) {
    w.sockets[0].says(answer(frames[i]));
    await settle();
  }
  await Promise.all(sent);
  assert.deepEqual(frames.map(f => f.send.data), Array.from({ length: 100 }, (_, i) => "c" + i));
});

test("one POST is under way, of 100 commands and 64 KiB at most", async () => {
  const w = await connected("sse", {}, { commands: doors.silent });
  const sent = [w.feed.send("first")];
  await settle();
  for (let i = 0; i < 150; i++) sent.push(w.feed.send("c" + i));
  for (let i = 0; i < 3; i++) sent.push(w.feed.send("x".repeat(30000)));
  await settle();
  assert.equal(w.posts.length, 1);
  for (let i = 0; i < w.posts.length; i++) {
    const r = w.posts[i];
    assert.ok(r.body.length <= 100, `${r.body.length}`);
    assert.ok(JSON.stringify(r.body).length <= 65536);
    assert.equal(w.posts.length, i + 1);
    r.answers(200, r.body.map(answer));
    await settle();
  }
  await Promise.all(sent);
  assert.deepEqual(got(w).map(f => f.send.data.slice(0, 5)), ["first", ...Array.from({ length: 150 }, (_, i) => "c" + i), ...Array(3).fill("xxxxx")]);
});

test("a POST without an answer comes again after 60 s, and waits grow", async () => {
  const w = await connected("sse", {}, { commands: doors.silent });
  const sent = w.feed.send("a");
  await settle();
  await w.quiet(59e3);
  assert.equal(w.posts.length, 1);
  await w.quiet(1500);
  assert.equal(w.posts.length, 2);
  w.doors.commands = doors.badGateway;
  w.posts[1].answers(502, "<html>", "text/html");
  for (let i = 0; i < 12; i++) await w.quiet(10e3);
  const times = w.posts.slice(2).map((r, i) => r.begun - w.posts[i + 1].begun);
  assert.ok(times.every((t, i) => !i || t >= times[i - 1]) && times.at(-1) <= 15100 && times.at(-1) > 14000, `${times}`);
  w.doors.commands = good.commands;
  await w.quiet(16e3);
  await sent;
  assert.equal(w.status, "connected sse");
});

test("what in a batch cannot be understood is found out, and the rest is done", async () => {
  const w = await connected("sse", {}, {
    commands: r => r.body.some(f => f.send?.data == "bad") ? r.refuses(400, "bad-request") : good.commands(r),
  });
  assert.deepEqual(await codes([w.feed.send("a"), w.feed.send("bad"), w.feed.send("c")]), [undefined, "bad-request", undefined]);
  assert.deepEqual(w.posts.map(r => r.body.map(f => f.send.data).join()), ["a", "bad,c", "bad", "c"]);
});

test("an application that fails at a batch gets its commands one at a time, and a failure alone is told", async () => {
  const w = await connected("sse", {}, {
    commands: r => {
      const at = r.body.findIndex(f => f.send.data == "bad");
      r.answers(200, r.body.map((f, i) => at >= 0 && i >= at ? { error: { code: "internal", message: "a sentence", id: f.id } } : answer(f)));
    },
  });
  const outcome = codes([w.feed.send("a"), w.feed.send("bad"), w.feed.send("c")]);
  await pass(5000);
  assert.deepEqual(await outcome, [undefined, "internal", undefined]);
});

for (const transport of ["sse", "long-poll"]) test(`${transport}: commands wait until the client is attached, and for another token`, async () => {
  let asked = 0, good2 = "Bearer t1";
  const w = new World({ commands: r => r.headers.authorization == good2 ? good.commands(r) : r.refuses(401, "unauthorized") });
  w.dial({ transports: [transport], token: () => "t" + ++asked });
  await w.feed.send("a");
  assert.equal(w.posts.length, 1);
  good2 = "Bearer t2"; // and the attach goes on
  const sent = w.feed.send("b");
  await pass(2000);
  await sent;
  assert.deepEqual(w.posts.map(r => r.headers.authorization), ["Bearer t1", "Bearer t1", "Bearer t2"]);
  assert.equal(asked, 2);
  assert.equal(w.status, "connected " + transport);
  assert.equal(w.requests.at(-1).headers.authorization, "Bearer t2");
  assert.equal(w.registered, 1);
});

test("without a token, a command that is not authorized is refused", async () => {
  const w = await connected("sse", {}, { commands: r => r.refuses(401, "unauthorized") });
  await assert.rejects(w.feed.send("a"), e => e.code == "unauthorized");
  assert.equal(w.feed.readyState, 1);
});

test("a server that shuts down ends the client's wait, and not its commands", async () => {
  const w = await connected("websocket", {}, { websocket: answering((f, s) => s.says({ error: { code: "shutdown", message: "a sentence", id: f.id } })) });
  const sent = w.feed.send("a");
  await settle();
  w.doors.websocket = good.websocket;
  w.sockets[0].ends(1001, "shutdown;retry_ms=4312");
  await pass(4311);
  assert.equal(w.sockets.length, 1);
  await pass(1);
  await pass(1000);
  await sent;
  assert.equal(got(w).length, 2);
  assert.equal(got(w)[0].id, got(w)[1].id);
});

test("the end of the client is that of its commands", async () => {
  const w = await connected("websocket", {}, { websocket: answering(() => { }) });
  const outcome = codes([w.feed.send("a"), w.feed.request("b")]);
  await settle();
  w.sockets[0].ends(4004, "removed: because");
  assert.deepEqual(await outcome, ["removed", "removed"]);
  await assert.rejects(w.feed.send("c"), e => e.code == "closed");
});
