// The golden transcripts of testdata/protocol: the client hears in each conversation what testdata/heard.json says, as the
// Go client does, and its commands have the outcomes that stand there.

import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { pass, settle } from "./clock.mjs";
import { assert, at, clientID, doors, World } from "./world.mjs";

const testdata = new URL("../../../testdata/", import.meta.url);
const heard = JSON.parse(readFileSync(new URL("heard.json", testdata), "utf8"));
const left = new Set(Object.keys(heard));

const valued = text => text.replace(/<pos\d*(?:\+(\d+))?>/g, (_, n) => at(40 + +(n || 0))).replace(/<id\d*>/g, clientID(1)).
  replace(/<(ms|secs|retry)>/g, "1500").replace(/<text>/g, "a sentence").replace(/<epoch>/g, at(0).slice(0, 16)).replace(/<member>/g, "member");

/** A client that hears what a connection says by a transport. */
class Listener {
  heard = [];
  told = []; // by presence, requests and errors
  outcomes = [];
  ids = new Map(); // of the transcript's commands
  event = "";

  static async by(transport) {
    const l = new Listener(), w = l.w = new World({
      websocket: s => s.accepts(), sse: r => r.begins(), poll: () => { }, commands: doors.silent,
    });
    const feed = w.dial({ transports: [transport], token: () => settle().then(() => "t") }); // and presence is watched by then
    feed.onmessage = e => l.heard.push(`${e.topic}: ` + (typeof e.data == "string" ? e.data : "base64 " + btoa(String.fromCharCode(...e.data))));
    feed.ongap = e => l.heard.push("gap " + e.reason);
    feed.onerror = e => l.told.push("error " + e.error.code);
    feed.onrequest = data => { l.told.push("asked " + data); };
    feed.presence(["open", "closed"], p => l.told.push(`presence ${p.topic} ${p.count} ${p.members.map(m => m.id)}`));
    await settle();
    await settle();
    return l;
  }

  /** The client says a command of the transcript, under an id of its own. */
  async says(frame) {
    const { id, send, publish, request } = frame, { feed, sockets: [s] } = this.w, c = send || publish || request;
    if (!id || !c || feed.readyState != 1) return;
    const data = c.data64 ? Uint8Array.from(atob(c.data64), c => c.charCodeAt(0)) : c.data;
    const done = send ? feed.send(data) : request ? feed.request(data) : feed.publish(c.topic, data);
    done.then(v => this.outcomes.push(v === undefined ? "sent" : v), e => this.outcomes.push(e.code));
    await settle();
    this.ids.set(id, s.said.at(-1).id);
  }

  /** The server says a frame, an answer or a line of an event. */
  async hears(kind, text) {
    const { w } = this;
    if (kind == "websocket") {
      const f = JSON.parse(text), answer = f.sent || f.reply || f.published || f.error;
      if (answer?.id) answer.id = this.ids.get(answer.id) || answer.id;
      w.sockets[0].says(f);
    } else if (kind == "long-poll") {
      w.requests.at(-1).answers(200, text);
      await pass(300);
    } else w.requests[0].writes(text);
    await settle();
  }
}

let frames = 0, outcomes = [], told = [];
for (const file of readdirSync(new URL("protocol/", testdata)).filter(name => name.endsWith(".txt")))
  test(file, async () => {
    /** @type {Map<string, Listener>} */
    const clients = new Map(), json = {};
    let here = "a", event = "";
    const by = async transport => {
      const name = `${file} ${here} ${transport}`;
      if (!clients.has(name)) clients.set(name, await Listener.by(transport));
      return clients.get(name);
    };
    for (const line of readFileSync(new URL("protocol/" + file, testdata), "utf8").split("\n")) {
      const [, mark, rest] = /^(.) ?(.*)$/.exec(line) || [];
      if (mark == "@") here = rest;
      if (mark == ">") {
        if (/^(GET|POST) /.test(rest)) json[here] = rest.includes("format=json");
        else if (/"format":"json"|"hello":/.test(rest)) json[here] = true;
        else if (json[here] && rest.startsWith("text {")) await by("websocket").then(l => l.says(JSON.parse(rest.slice(5)))).catch(() => { });
      }
      if (mark != "<" || !json[here]) continue;
      const said = valued(rest);
      if (said.startsWith("text {")) await (await by("websocket")).hears("websocket", said.slice(5));
      else if (/^{"client-id".*"messages"/.test(said)) await (await by("long-poll")).hears("long-poll", said);
      else if (/^(event|id|data|retry):/.test(said)) event += said + "\n";
      else if (!said && event) {
        await (await by("sse")).hears("sse", event + "\n");
        event = "";
        continue;
      } else continue;
      frames++;
    }
    for (const [name, l] of clients) {
      assert.deepEqual(l.heard, heard[name] || [], name);
      left.delete(name);
      outcomes.push(...l.outcomes);
      told.push(...l.told);
      if (file.startsWith("05")) assert.ok(l.w.feed.position.startsWith(at("")));
    }
  });

test("all of it was heard", () => {
  assert.deepEqual([...left], []);
  assert.ok(frames > 60, `${frames}`);
  assert.deepEqual(outcomes, ["sent", "sent", "id-reused", "what?", Uint8Array.of(0xff, 0), "refused", at(41), "topic-forbidden", "bad-topic"]);
  for (const words of ["asked what?", "asked and?", "asked or?", "asked once more?", "presence open 0 ", "presence open 1 member", "error bad-topic", "error too-many-topics", "error superseded", "error removed"])
    assert.ok(told.includes(words), words + " is not in " + told.join(", "));
});
