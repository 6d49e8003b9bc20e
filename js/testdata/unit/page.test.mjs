// The life of a page: it sleeps, is frozen, kept in the back/forward cache, loses its network, and goes.

import { test } from "node:test";
import { chance, now, pass, settle, sleep } from "./clock.mjs";
import { assert, at, batch, doors, good, message, World } from "./world.mjs";

const minute = 60e3;

for (const transport of ["websocket", "sse", "long-poll"]) {
  test(`${transport}: a page that goes leaves the server`, async () => {
    const w = new World();
    w.dial({ transports: [transport] });
    await settle();
    await w.happens("pagehide", { persisted: false });
    assert.equal(w.feed.readyState, 2);
    assert.deepEqual(w.posts.map(r => [r.body, r.keepalive]), [[{ leave: true }, true]]);
    await w.happens("pageshow");
    await pass(minute);
    assert.equal(w.status, "closed");
  });

  test(`${transport}: a page that is kept has no connection, stays the same client, and comes back within the spread`, async () => {
    const w = new World();
    w.dial({ transports: [transport] });
    await settle();
    const { id } = w.feed;
    await w.happens("pagehide", { persisted: true });
    const connections = () => w.sockets.length + w.requests.length;
    const n = connections();
    if (transport == "websocket") assert.ok(w.sockets[0].left);
    else assert.ok(w.requests.at(-1).aborted);
    assert.equal(w.posts.length, 0);
    sleep(5 * minute);
    await pass(11 * minute);
    assert.equal(connections(), n, "a page that is kept makes no connection");
    await w.happens("pageshow", { persisted: true });
    assert.equal(connections(), n);
    await pass(50);
    assert.equal(connections(), n + 1);
    await pass(1000);
    assert.equal(w.status, "connected " + transport);
    assert.equal(w.sockets.at(-1)?.hello["client-id"] ?? w.requests.at(-1).id, id);
    assert.equal(w.words, "");
  });

  test(`${transport}: after a sleep, the page sees at once that its connection is gone`, async () => {
    const w = new World();
    w.dial({ transports: [transport] });
    await settle();
    await w.quiet(15e3);
    sleep(10 * minute);
    const n = w.sockets.length + w.requests.length;
    await w.happens("visibilitychange");
    await pass(99);
    assert.equal(w.sockets.length + w.requests.length, n, "what came meanwhile is read first");
    await pass(1);
    assert.equal(w.feed.status.error?.code, "silent");
    await pass(60);
    assert.equal(w.sockets.length + w.requests.length, n + 1);
    await pass(1000);
    assert.equal(w.status, "connected " + transport);
  });

  test(`${transport}: a connection that has lived through a sleep stays`, async () => {
    const w = new World();
    w.dial({ transports: [transport] });
    await settle();
    sleep(10 * minute);
    const n = w.sockets.length + w.requests.length;
    await w.happens("resume");
    await pass(50);
    if (transport == "websocket") w.sockets[0].says(message(41));
    else if (transport == "sse") w.requests[0].element(message(41));
    else w.requests.at(-1).answers(200, batch(w.feed.id, at(41), [message(41)]));
    await pass(10e3);
    assert.equal(w.words, "m41");
    assert.equal(w.status, "connected " + transport);
    assert.equal(w.sockets.length + w.requests.length, transport == "long-poll" ? n + 1 : n);
  });
}

test("timers alone see that a connection is gone, when they run again", async () => {
  const w = new World();
  w.dial({ transports: ["websocket"] });
  await settle();
  sleep(10 * minute);
  await pass(33e3 + 101);
  assert.equal(w.feed.status.error?.code, "silent");
});

test("a network that comes back ends the wait, and begins the waits anew", async () => {
  const w = new World({ sse: doors.unreachable });
  w.dial({ transports: ["sse"] });
  await pass(5 * minute);
  const { retry } = w.feed.status;
  assert.ok(retry > 10e3);
  let n = w.requests.length;
  chance.value = 0.25;
  await w.happens("online");
  await pass(24);
  assert.equal(w.requests.length, n, "within the spread, for others come back, too");
  await pass(1);
  assert.equal(w.requests.length, n + 1);
  assert.equal(w.feed.status.retry, 26, "a quarter of the spread, and 1");
  w.doors.sse = good.sse;
  await pass(30);
  assert.equal(w.status, "connected sse");
});

test("a network that comes back does not end a connection that lives", async () => {
  const w = new World();
  w.dial();
  await settle();
  await w.happens("online");
  await w.quiet(minute);
  assert.equal(w.status, "connected websocket");
  assert.equal(w.sockets.length, 1);
});

test("a page that is kept while the client waits makes no attempt until it is shown", async () => {
  const w = new World({ sse: doors.unreachable });
  w.dial({ transports: ["sse"] });
  await settle();
  await w.happens("pagehide", { persisted: true });
  await pass(minute);
  const n = w.requests.length;
  await pass(20 * minute);
  assert.equal(w.requests.length, n);
  assert.ok(n <= 1);
  w.doors.sse = good.sse;
  await w.happens("pageshow", { persisted: true });
  await pass(100);
  assert.equal(w.status, "connected sse");
});

test("a client that has ended does not listen to the page", async () => {
  const w = new World();
  w.dial();
  await settle();
  w.feed.close();
  await settle();
  const n = w.posts.length;
  await w.happens("pagehide", { persisted: false });
  await w.happens("online");
  await w.happens("pageshow");
  await pass(minute);
  assert.equal(w.posts.length, n);
  assert.equal(w.sockets.length, 1);
});

test("a poll is given up after 2.7 heartbeats, whatever the server's time is, and twice as long after that", async () => {
  const w = new World();
  w.dial({ transports: ["long-poll"] });
  await settle();
  const begun = now(), n = w.requests.length;
  while (w.requests.length == n && now() - begun < minute) await pass(100);
  assert.ok(Math.abs(now() - begun - 40600) < 300, `${now() - begun}`);
  const again = now();
  while (w.requests.length == n + 1 && now() - again < 2 * minute) await pass(100);
  assert.ok(Math.abs(now() - again - 81000) < 300, `${now() - again}`);
});
