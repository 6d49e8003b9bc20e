// Which transport carries the client: the rules of client/ladder.go, and the tests of client/ladder_test.go.

import { test } from "node:test";
import { now, pass, settle } from "./clock.mjs";
import { assert, at, batch, doors, good, message, World } from "./world.mjs";

const minute = 60e3;

test("a WebSocket that is let through carries the client", async () => {
  const w = new World();
  w.dial({ topics: ["news"] });
  await settle();
  assert.equal(w.status, "connected websocket");
  assert.equal(w.sockets[0].url, "ws://gpoll.test/poll/ws");
  assert.equal(w.sockets[0].offered, "gpoll.v1");
  assert.deepEqual(w.sockets[0].hello, { "client-id": "0", topics: ["news"], asked: 0 });
  assert.equal(w.requests.length, 0);
  assert.deepEqual(w.statuses.map(s => s.state), ["connected"]);
});

for (const [down, doorsOf, reasons] of [
  ["sse", { websocket: doors.refuse }, ["ws_refused"]],
  ["long-poll", { websocket: doors.refuse, sse: doors.refuse }, ["ws_refused", "sse_refused"]],
]) test(`where the better ones are refused, ${down} carries the client, says why, and climbs when that has gone`, async () => {
  const w = new World(doorsOf);
  w.dial();
  await settle();
  assert.equal(w.status, ["connected", down, ...reasons].join(" "));
  const told = () => w.requests.map(r => r.headers["gpoll-fallback"] || "");
  assert.deepEqual(told(), down == "sse" ? ["ws_refused"] : ["ws_refused", "ws_refused,sse_refused", ""], "each reason is told once");

  Object.assign(w.doors, good); // they work again
  const sockets = w.sockets.length;
  await w.quiet(10 * minute - 1000);
  assert.equal(w.sockets.length, sockets, "it is left alone for 10 minutes");
  await w.quiet(2000);
  assert.equal(w.sockets.length, sockets + 1);
  assert.equal(w.status, "connected websocket");
  assert.equal(w.sockets.at(-1).hello["client-id"], w.feed.id);
});

test("while a probe does not succeed, the client stays where it is, and tries again", async () => {
  const w = new World({ websocket: doors.refuse });
  w.dial();
  await settle();
  for (let n = 2; n < 5; n++) {
    await w.quiet(10 * minute + 100);
    assert.equal(w.sockets.length, n);
    assert.equal(w.status, "connected sse ws_refused");
  }
});

test("SSE that was buffered is tried again in the place of polls", async () => {
  const w = new World({ websocket: doors.refuse, sse: doors.silent });
  w.dial({ transports: ["sse", "long-poll"] });
  await pass(4999);
  assert.equal(w.status, "connecting");
  await pass(101); // what came meanwhile is read first
  assert.equal(w.status, "connected long-poll sse_buffered");
  assert.ok(w.requests[0].aborted);
  const begun = now();
  w.doors.sse = good.sse;
  while (w.feed.status.transport != "sse" && now() - begun < 11 * minute) await w.quiet(10e3);
  assert.equal(w.status, "connected sse");
  assert.ok(now() - begun >= 10 * minute);
});

for (const [transport, reason, below] of [["websocket", "ws_died_young", "sse"], ["sse", "sse_died_young", "long-poll"]])
  test(`${transport} that opens and dies young three times is left alone, and has three lives after 10 minutes`, async () => {
    let tries = 0, young = true;
    const w = new World({
      [transport]: c => {
        tries++;
        good[transport](c);
        if (young) setTimeout(() => c.ends(1006), 2000);
      },
    });
    if (transport == "sse") w.doors.sse = r => {
      tries++;
      good.sse(r);
      if (young) setTimeout(() => r.cut(), 2000);
    };
    w.dial({ transports: [transport, below] });
    await pass(15e3);
    assert.equal(w.status, `connected ${below} ${reason}`);
    assert.equal(tries, 3);
    const told = w.requests.find(r => r.path == (below == "sse" ? "/poll/events" : "/poll"));
    assert.equal(told.headers["gpoll-fallback"], reason);

    await w.quiet(9 * minute);
    assert.equal(tries, 3, "it is left alone");
    await w.quiet(2 * minute); // the probation: one life, and then it is left alone again
    assert.equal(tries, 4);
    assert.equal(w.status, `connected ${below} ${reason}`);
    young = false;
    await w.quiet(11 * minute);
    assert.equal(w.status, "connected " + transport);
    for (let i = 0; i < 2; i++) { // it has three lives again
      if (transport == "sse") w.requests.at(-1).cut();
      else w.sockets.at(-1).ends(1006);
      await w.quiet(10e3);
    }
    assert.equal(w.status, "connected " + transport);
  });

for (const below of ["sse", "long-poll"]) {
  test(`a handshake without an answer for 2 s has ${below} beside it, which wins`, async () => {
    const w = new World({ websocket: doors.silent });
    w.dial({ transports: ["websocket", below] });
    await pass(1999);
    assert.equal(w.requests.length, 0);
    await pass(1);
    assert.equal(w.status, `connected ${below} ws_silent`);
    assert.ok(w.sockets[0].left, "the handshake is given up");
    assert.equal(w.requests[0].headers["gpoll-fallback"], "ws_silent");
  });

  test(`a handshake that succeeds before ${below} wins`, async () => {
    const w = new World({ websocket: s => setTimeout(() => good.websocket(s), 4000), sse: doors.silent, poll: doors.silent });
    w.dial({ transports: ["websocket", below] });
    await pass(3000);
    assert.equal(w.requests.length, 1);
    await pass(1000);
    assert.equal(w.status, "connected websocket");
    assert.ok(w.requests[0].aborted);
    assert.equal(w.sockets.length, 1);
  });

  test(`a hello without an answer for 5 s is silence, and ${below} follows`, async () => {
    const w = new World({ websocket: s => s.accepts() });
    w.dial({ transports: ["websocket", below] });
    await pass(4999);
    assert.equal(w.status, "connecting");
    await pass(200);
    assert.equal(w.status, `connected ${below} ws_silent`);
    assert.ok(w.sockets[0].left);
  });
}

test("where nothing else works, there is time for a late handshake", async () => {
  const w = new World({ websocket: s => setTimeout(() => good.websocket(s), 8000), sse: doors.refuse, poll: doors.refuse });
  w.dial();
  await pass(7999);
  assert.equal(w.feed.readyState, 0);
  await pass(1);
  assert.equal(w.status, "connected websocket");
});

test("a late handshake is none the worse for what was refused beside it", async () => {
  const w = new World({ websocket: s => setTimeout(() => good.websocket(s), 4000), sse: doors.refuse, poll: doors.silent });
  w.dial();
  await pass(4000);
  assert.equal(w.status, "connected websocket");
  assert.equal(w.sockets.length, 1);
});

test("a WebSocket that does not speak gpoll.v1 is refused", async () => {
  const w = new World({ websocket: s => s.accepts("") });
  w.dial();
  await settle();
  assert.equal(w.status, "connected sse ws_refused");
  assert.ok(w.sockets[0].left);
});

test("events that are no event stream are refused, and polls that are no batches too", async () => {
  const w = new World({ sse: r => r.answers(200, "<html>", "text/html"), poll: r => r.answers(200, "<html>", "text/html") });
  w.dial({ transports: ["sse", "long-poll"] });
  await settle();
  assert.equal(w.status, "waiting sse_refused poll_blocked");
});

test("while no transport works, it is the network: each is tried at each walk, and none is left alone", async () => {
  const w = new World({ websocket: doors.refuse, sse: doors.refuse, poll: doors.refuse });
  w.dial();
  await settle();
  assert.equal(w.status, "waiting ws_refused sse_refused poll_blocked");
  assert.equal(w.lines.at(-1), "error stranger");
  await pass(100);
  assert.equal(w.sockets.length, 2);
  assert.equal(w.requests.length, 4);
  Object.assign(w.doors, { websocket: good.websocket });
  await pass(1000);
  assert.equal(w.status, "connected websocket");
});

test("without a network no transport is to blame", async () => {
  const w = new World({ sse: doors.unreachable, poll: doors.unreachable });
  w.dial({ transports: ["sse", "long-poll"] });
  await settle();
  assert.equal(w.status, "waiting unreachable");
  assert.equal(w.requests.length, 1, "the transport below is no better");
  Object.assign(w.doors, { sse: good.sse });
  await pass(1000);
  assert.equal(w.status, "connected sse");
  assert.equal(w.requests.at(-1).headers["gpoll-fallback"], undefined);
});

test("a gateway that answers for the server takes lives, and does not condemn at once", async () => {
  const w = new World({ sse: doors.badGateway });
  w.dial({ transports: ["sse", "long-poll"] });
  await settle();
  assert.equal(w.status, "waiting");
  await pass(150);
  assert.equal(w.requests.length, 2);
  await pass(1000);
  assert.equal(w.status, "connected long-poll sse_died_young");
  assert.equal(w.requests.filter(r => r.path == "/poll/events").length, 3);
});

test("a transport that has worked is not left when it falls silent", async () => {
  const w = new World();
  w.dial();
  await settle();
  await pass(33e3 - 1);
  assert.equal(w.status, "connected websocket");
  await pass(101);
  assert.equal(w.status, "waiting", "2.2 heartbeats are over");
  assert.ok(w.sockets[0].left);
  await pass(60);
  assert.equal(w.status, "connected websocket");
});

test("SSE says no heartbeat: after a silence the client waits twice as long", async () => {
  const w = new World();
  w.dial({ transports: ["sse"] });
  await settle();
  for (const limit of [33e3, 66e3]) {
    const n = w.requests.length;
    await pass(limit - 1);
    assert.equal(w.requests.length, n);
    await pass(300);
    assert.equal(w.requests.length, n + 1);
    assert.ok(w.requests[n - 1].aborted);
  }
});

test("every byte of a stream is a sign of life", async () => {
  const w = new World();
  w.dial({ transports: ["sse"] });
  await settle();
  for (let i = 0; i < 5; i++) {
    await pass(30e3);
    w.requests[0].writes(": still here\n\n");
  }
  assert.equal(w.status, "connected sse");
  assert.equal(w.requests.length, 1);
});

test("what failed a page ago is not tried again at once, and is after its time", async () => {
  const w = new World({ websocket: doors.silent });
  w.dial({ topics: "news" });
  await pass(2000);
  assert.equal(w.status, "connected sse ws_silent");
  const session = globalThis.sessionStorage;
  assert.equal(Object.keys(session).length, 1);
  const next = new World();
  globalThis.sessionStorage = session;
  next.dial();
  await settle();
  assert.equal(next.status, "connected sse ws_silent");
  assert.equal(next.sockets.length, 0);
  assert.equal(next.requests[0].headers["gpoll-fallback"], "ws_silent");
  await next.quiet(10 * minute);
  assert.equal(next.status, "connected websocket");

  const other = new World(); // a page that may use other transports
  globalThis.sessionStorage = session;
  other.dial({ transports: ["websocket"] });
  await settle();
  assert.equal(other.status, "connected websocket");
  for (const text of ["no JSON", "[]", "null"]) {
    const w = new World();
    globalThis.sessionStorage = { "http://gpoll.test/poll": text };
    w.dial();
    await settle();
    assert.equal(w.status, "connected websocket", text);
  }
});

test("a page without WebSocket begins with SSE, and reports no reason", async () => {
  const w = new World();
  const had = globalThis.WebSocket;
  delete globalThis.WebSocket;
  try {
    w.dial({ WebSocket: undefined });
  } finally {
    if (had) globalThis.WebSocket = had;
  }
  await settle();
  assert.equal(w.status, "connected sse");
});

test("what a request has told before it fell silent is not told again", async () => {
  const w = new World({ websocket: doors.refuse, sse: doors.silent });
  w.dial();
  await pass(5200);
  assert.equal(w.status, "connected long-poll ws_refused sse_buffered");
  assert.deepEqual(w.requests.slice(0, 2).map(r => r.headers["gpoll-fallback"]), ["ws_refused", "sse_buffered"]);
});

test("a transport that is left alone is tried when the one below does not work any more", async () => {
  for (const end of ["refused", "silent"]) {
    const w = new World({ websocket: doors.refuse });
    w.dial({ transports: ["websocket", "sse"] });
    await settle();
    assert.equal(w.status, "connected sse ws_refused");
    await w.quiet(20e3);
    Object.assign(w.doors, { websocket: good.websocket, sse: end == "refused" ? doors.refuse : good.sse });
    if (end == "refused") w.requests[0].cut();
    await pass(end == "refused" ? 500 : 34e3);
    assert.equal(w.status, "connected websocket", end);
  }
});

test("the ten minutes do not begin anew with each attach", async () => {
  const w = new World({ websocket: doors.refuse });
  w.dial();
  await settle();
  await w.quiet(5 * minute);
  w.requests[0].cut();
  await w.quiet(5 * minute - 1000);
  assert.equal(w.sockets.length, 1);
  await w.quiet(2000);
  assert.equal(w.sockets.length, 2);
});

test("a handshake is given up after 10 s, also where nothing else may be tried", async () => {
  const w = new World({ websocket: doors.silent });
  w.dial({ transports: ["websocket"] });
  await pass(9999);
  assert.ok(!w.sockets[0].left);
  assert.equal(w.status, "connecting");
  await pass(1);
  assert.ok(w.sockets[0].left);
  assert.equal(w.status, "waiting ws_silent");
});

test("over all transports the stream goes on where it was", async () => {
  const w = new World();
  w.dial({ topics: ["news"] });
  await settle();
  w.sockets[0].says(message(41), message(42));
  Object.assign(w.doors, { websocket: doors.refuse });
  w.sockets[0].ends(1006);
  await pass(200);
  assert.equal(w.status, "connected sse ws_refused");
  const stream = w.requests[0];
  assert.equal(stream.id, w.feed.id);
  assert.equal(stream.says("after"), at(42));
  for (const e of [message(42), message(43)]) stream.element(e);
  await settle();
  Object.assign(w.doors, { sse: doors.refuse });
  stream.cut();
  await pass(500);
  const poll = w.requests.at(-1);
  assert.equal(poll.path, "/poll");
  assert.equal(poll.says("after"), at(43));
  poll.answers(200, batch(w.feed.id, at(45), [message(43), message(45)]));
  await settle();
  assert.equal(w.words.replace(/error \w+, /g, ""), "m41, m42, m43, m45");
});
