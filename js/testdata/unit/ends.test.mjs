// What the client does after each end: testdata/ends.json, which the Go client's tests read, too.

import { readFileSync } from "node:fs";
import { test } from "node:test";
import { chance, pass, settle } from "./clock.mjs";
import { assert, at, clientID, doors, good, message, World } from "./world.mjs";

const ends = JSON.parse(readFileSync(new URL("../../../testdata/ends.json", import.meta.url), "utf8"));
assert.ok(ends.length > 50);

/** How a server says an end on a transport. */
function say(end, transport, c) {
  const { error, retry_ms } = end;
  if (end.event) c.ends(error, { retry_ms });
  else if (end.close) c.ends(end.close, end.reason);
  else if (error) c.refuses(end.status, error, { retry_ms });
  else c.answers(end.status, "<html>", "text/html");
}

for (const end of ends)
  for (const transport of end.close ? ["websocket"] : end.event ? ["sse"] : ["sse", "long-poll"])
    test(`${transport}: ${end.status || end.close || "end"} ${end.error || end.reason || ""} is ${end.course}`, async () => {
      let tries = 0;
      const says = c => {
        if (end.event) c.begins();
        tries++;
        say(end, transport, c);
      };
      const w = new World({ websocket: s => { s.accepts(); s.hears = () => says(s); }, sse: says, poll: says });
      w.dial({ transports: [transport] });
      await settle();
      const { error, retry, state } = w.feed.status;
      assert.equal(error.course, end.course);
      assert.equal(error.code, end.error || (end.close ? "close-" + end.close : "stranger"));
      assert.equal(error.retry, end.retry_ms || 0);
      const final = end.course == "stop" || end.course == "token" && end.error; // for there is no other token
      assert.equal(state, final ? "closed" : "waiting");
      assert.equal(w.feed.readyState, final ? 2 : 0);
      if (final) {
        await pass(60e3);
        assert.equal(tries, 1);
        assert.equal(w.words, "error " + error.code);
        return;
      }
      assert.equal(retry, end.retry_ms || 51, "half of the spread, and 1");
      await pass(retry - 1);
      assert.equal(tries, 1);
      await pass(1);
      assert.equal(tries, 2);
    });

test("a client that the server has forgotten registers with its cursor", async () => {
  for (const [transport, forget] of [
    ["websocket", w => w.sockets[0].ends(4010, "unknown-client")],
    ["sse", w => w.requests[0].ends("expired")],
    ["long-poll", w => w.requests[1].refuses(404, "unknown-client")],
  ]) {
    const w = new World();
    w.position = 45;
    w.dial({ transports: [transport], topics: ["news"] });
    await settle();
    const old = w.feed.id;
    assert.equal(old, clientID(1));
    forget(w);
    await pass(1000);
    assert.equal(w.feed.id, clientID(2), transport);
    const said = w.sockets[1]?.hello || { "client-id": w.requests.at(-1).id, after: w.requests.at(-1).says("after"), topics: w.requests.at(-1).topics };
    if (transport != "long-poll") assert.equal(said["client-id"], "0"); // the poll behind has the new one
    assert.equal(said.after, at(45));
    assert.deepEqual(said.topics, ["news"]);
    assert.equal(w.words, "error " + (transport == "sse" ? "expired" : "unknown-client"));
  }
});

test("the waits are random, begin within the server's spread, double up to 30 s, and begin anew after 10 s without a fault", async () => {
  chance.value = 0.5;
  const w = new World({
    websocket: s => {
      good.websocket(s);
      const hears = s.hears;
      s.hears = f => f.hello ? s.says({ welcome: { "client-id": clientID(1), position: at(40), heartbeat_ms: 15000, spread_ms: 400 } }) : hears(f);
    },
  });
  w.dial({ transports: ["websocket"] });
  await settle();
  await pass(5000); // old enough not to lose a life
  Object.assign(w.doors, { websocket: doors.unreachable });
  w.sockets[0].ends(1006);
  await settle();
  const waits = [];
  for (let i = 0; i < 9; i++) {
    waits.push(w.feed.status.retry);
    await pass(w.feed.status.retry);
  }
  assert.deepEqual(waits, [201, 401, 801, 1601, 3201, 6401, 12801, 15001, 15001]);
  for (const [value, wait] of [[0, 1], [0.999, 29971]]) {
    chance.value = value;
    await pass(w.feed.status.retry);
    assert.equal(Math.round(w.feed.status.retry), wait);
  }
  chance.value = 0.5;
  Object.assign(w.doors, { websocket: good.websocket });
  await pass(30e3);
  assert.equal(w.status, "connected websocket");
  w.sockets.at(-1).ends(1006);
  await settle();
  assert.ok(w.feed.status.retry > 10e3, "it broke at once");
  await pass(20e3);
  await w.quiet(10e3);
  w.sockets.at(-1).ends(1006);
  await settle();
  assert.equal(w.feed.status.retry, 51, "the welcome has said 100 ms");
});

for (const transport of ["websocket", "sse", "long-poll"]) test(`${transport}: a token that is refused is asked for once more`, async () => {
  let asked = 0, good2 = "Bearer t2";
  const refuse = (c, authorization) => {
    if (authorization == good2) return false;
    if (c.ends && !c.begins) c.ends(4001, "unauthorized");
    else c.refuses(401, "unauthorized");
    return true;
  };
  const guarded = {
    websocket: s => {
      good.websocket(s);
      const hears = s.hears;
      s.hears = f => f.hello && refuse(s, f.hello.authorization) || hears(f);
    },
    sse: r => refuse(r, r.headers.authorization) || good.sse(r),
    poll: r => refuse(r, r.headers.authorization) || good.poll(r),
  };
  const w = new World(guarded);
  w.dial({ transports: [transport], token: async () => "t" + ++asked });
  await pass(1000);
  assert.equal(w.status, "connected " + transport);
  assert.equal(asked, 2);
  assert.ok(!w.requests.some(r => [...r.query.values()].join().includes("t2")), "never in a URL");
  good2 = "Bearer t3";
  if (transport == "websocket") w.sockets.at(-1).ends(4001, "unauthorized");
  else if (transport == "sse") w.requests.at(-1).ends("unauthorized");
  else w.requests.at(-1).refuses(401, "unauthorized");
  await pass(2000);
  assert.equal(w.status, "connected " + transport, "after a success it may be asked for again");
  assert.equal(asked, 3);

  const never = new World(guarded);
  good2 = "Bearer never";
  asked = 0;
  never.dial({ transports: [transport], token: () => "t" + ++asked });
  await pass(10e3);
  assert.equal(never.feed.status.error.code, "unauthorized");
  assert.equal(never.feed.readyState, 2);
  assert.equal(asked, 2);
});

test("a token that cannot be had now is asked for again", async () => {
  let asked = 0;
  const w = new World();
  w.dial({ token: async () => { if (++asked < 3) throw new Error("offline"); return "t"; } });
  await settle();
  assert.equal(w.status, "waiting");
  assert.equal(w.feed.status.error.code, "token");
  assert.match(w.feed.status.error.message, /offline/);
  await pass(1000);
  assert.equal(w.status, "connected websocket");
  assert.equal(asked, 3);
  assert.equal(w.sockets.at(-1).hello.authorization, "Bearer t");
});

test("a 401 of something on the way is no word of the server", async () => {
  let asked = 0;
  const w = new World({ poll: r => r.answers(401, "<html>", "text/html") });
  w.dial({ transports: ["long-poll"], token: () => "t" + ++asked });
  await pass(60e3);
  assert.equal(w.feed.readyState, 0);
  assert.ok(asked > 1 && asked <= w.requests.length);
  w.doors.poll = good.poll;
  await pass(30e3);
  assert.equal(w.status, "connected long-poll");
});

test("superseded ends the client, unless it may have been itself", async () => {
  const w = new World();
  w.dial();
  await settle();
  w.sockets[0].ends(4009, "superseded");
  await settle();
  assert.equal(w.status, "closed");
  assert.equal(w.words, "error superseded");

  const late = new World();
  late.dial();
  await settle();
  late.sockets[0].ends(1006); // what it sent last may still arrive
  await pass(200);
  late.sockets[1].ends(4009, "superseded");
  await pass(1000);
  assert.equal(late.status, "connected websocket");
  await late.quiet(30e3);
  late.sockets[2].ends(4009, "superseded");
  await settle();
  assert.equal(late.status, "closed");
});

test("a stream that ends without a word comes back", async () => {
  const w = new World();
  w.dial({ transports: ["sse"] });
  await settle();
  await w.quiet(6000);
  w.requests[0].stream.close();
  await settle();
  assert.equal(w.feed.status.error.code, "broken");
  await pass(100);
  assert.equal(w.status, "connected sse");
});

test("what is no JSON is a fault of the connection", async () => {
  const w = new World();
  w.dial({ transports: ["websocket"] });
  await settle();
  w.sockets[0].onmessage({ data: "<html>" });
  await settle();
  assert.equal(w.feed.status.error.code, "broken");
  assert.ok(w.sockets[0].left);
});

test("close leaves the server by a request that outlives the page", async () => {
  for (const transport of ["websocket", "sse", "long-poll"]) {
    const w = new World();
    w.dial({ transports: [transport], token: () => "t" });
    await settle();
    const { id } = w.feed;
    const sent = w.feed.send("x"), waiting = assert.rejects(sent.then(() => w.feed.request("y")), e => e.code == "closed");
    w.feed.close();
    assert.equal(w.feed.readyState, 2);
    await settle();
    await sent.catch(() => { });
    const leave = w.posts.filter(r => r.body.leave);
    assert.equal(leave.length, 1);
    assert.deepEqual([leave[0].body, leave[0].keepalive, leave[0].id, leave[0].headers.authorization], [{ leave: true }, true, id, "Bearer t"]);
    await pass(60e3);
    assert.equal(w.status, "closed");
    assert.equal(w.words, "", "which is no error");
    if (transport == "websocket") assert.ok(w.sockets[0].left);
    else assert.ok(w.requests.at(-1).aborted);
    await waiting;
    await assert.rejects(w.feed.send("late"), e => e.code == "closed");
    w.feed.close();
    await settle();
    assert.equal(w.posts.filter(r => r.body.leave).length, 1);
  }
});

test("a client that has no id yet has nothing to leave", async () => {
  const w = new World({ websocket: doors.silent });
  w.dial();
  await settle();
  w.feed.close();
  await pass(20e3);
  assert.equal(w.posts.length, 0);
  assert.equal(w.status, "closed");
  assert.ok(w.sockets[0].left, "the handshake is given up");
});

test("close in a handler of the page ends it there", async () => {
  const w = new World();
  const feed = w.dial({ transports: ["websocket"] });
  feed.onmessage = e => e.data == "m42" && feed.close();
  await settle();
  w.sockets[0].says(message(41), message(42), message(43));
  await settle();
  assert.equal(w.words, "m41, m42");
  const waiting = new World({ websocket: doors.unreachable });
  waiting.dial({ transports: ["websocket"] });
  waiting.feed.onerror = () => waiting.feed.close();
  await pass(60e3);
  assert.equal(waiting.sockets.length, 1);
});
