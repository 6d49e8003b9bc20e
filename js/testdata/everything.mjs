// Uses the installed package by each transport in turn: it hears the server, speaks to it, asks it and is asked, and sees
// who is present. Bundlers build it, too. Usage: node everything.mjs URL TRANSPORT...

import assert from "node:assert/strict";
import WebSocket from "ws";
import { GpollError, GpollSource } from "gpoll";

const [url, ...transports] = process.argv.slice(2);
for (const transport of transports) {
  const feed = new GpollSource(url, { topics: "news", transports: [transport], WebSocket });
  const heard = [], counts = [], looks = [], looked = () => looks.forEach(look => look());
  const until = what => new Promise((done, no) => {
    const timer = setTimeout(() => no(new Error(`${transport}: never ${what}; heard ${heard}, counts ${counts}`)), 20e3);
    const look = () => what() && (clearTimeout(timer), done());
    looks.push(look);
    look();
  });
  feed.onmessage = e => { heard.push(e.topic + ": " + e.data); looked(); };
  feed.onstatus = looked;
  feed.onrequest = data => "it is " + data;
  const end = feed.presence("news", p => { counts.push(p.count); looked(); });

  await until(() => feed.readyState == GpollSource.OPEN);
  assert.equal(feed.status.transport, transport);
  const position = await feed.publish("news", "published by " + transport);
  await until(() => heard.length == 1);
  assert.equal(position, feed.position);
  await feed.send("sent by " + transport); // which the server's application publishes, and then asks this client
  await until(() => heard.length == 3);
  assert.deepEqual(heard, ["news: published by " + transport, "news: sent by " + transport, ": it is what you say"]);
  assert.equal(await feed.request("what?"), "re: what?");
  assert.deepEqual(await feed.request(Uint8Array.of(0xff, 0)), Uint8Array.of(0x72, 0x65, 0x3a, 0x20, 0xff, 0));
  await assert.rejects(feed.request("no"), e => e instanceof GpollError && e.code == "refused" && e.message == "not today");
  await until(() => counts.at(-1) == 1);
  end();

  const loop = (async () => { for await (const e of feed) return e.data; })();
  const off = feed.subscribe("sport", () => off());
  await feed.publish("news", "looped");
  assert.equal(await loop, "looped");
  feed.close();
  assert.equal(feed.readyState, GpollSource.CLOSED);
  console.log(transport);
}
process.exit(); // a handshake's timer would keep Node for 10 s
