// Runs a piece of code of docs/browser.md in what it takes for a page, and checks what it does.
// Usage: node document.mjs NAME URL

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import vm from "node:vm";
import WebSocket from "ws";
import { GpollSource } from "gpoll";

const [name, url] = process.argv.slice(2);
globalThis.WebSocket = WebSocket;
const request = globalThis.fetch;
globalThis.fetch = (path, init) => request(new URL(path, url), init);
globalThis.location = { href: url, reload: () => print("reloaded") };

const printed = [];
let look = () => { };
function print(...words) {
  printed.push(words.join(" "));
  look();
}
const says = console.log;
console.log = print;

/** Waits until what is true, which it may become when something is printed. */
async function until(what) {
  const timer = setTimeout(() => { throw new Error(`never ${what}; it printed ${JSON.stringify(printed)}`); }, 20e3);
  while (!what()) await new Promise(done => look = done);
  clearTimeout(timer);
}
const prints = line => until(() => printed.includes(line));

const other = new GpollSource(url);
/** Waits until so many clients listen to a topic. */
async function listeners(topic, n) {
  for (const end = Date.now() + 20e3; ;) {
    const count = await other.request("count " + topic);
    if (count == n) return;
    if (Date.now() > end) throw new Error(`${count} listen to ${topic}, and not ${n}; it printed ${JSON.stringify(printed)}`);
    await new Promise(done => setTimeout(done, 10));
  }
}
/** Waits until the page shows a text. */
async function shows(document, text) {
  for (const end = Date.now() + 20e3; document.body.textContent != text;) {
    if (Date.now() > end) throw new Error("the page shows " + document.body.textContent);
    await new Promise(done => setTimeout(done, 10));
  }
}
const imported = file => import("./" + file);
const feed = async () => (await imported("feed.js")).feed;

async function dom() {
  const { Window } = await import("happy-dom");
  const window = new Window();
  for (const name of ["document", "Element", "HTMLElement", "HTMLIFrameElement", "SVGElement", "Node", "Text", "navigator"]) globalThis[name] = window[name];
  globalThis.window = window;
  window.document.body.innerHTML = "<main></main>";
  return window.document;
}

const cases = {
  async "page1.js"() {
    globalThis.document = { createElement: tag => ({ tag }) };
    globalThis.list = { append: e => print(e.tag, e.textContent) };
    await imported(name);
    await listeners("news", 1);
    await other.publish("news", "hello");
    await prints("li hello");
  },
  async "page2.js"() {
    const run = (file, text) => new vm.Script(text, { filename: new URL(file, import.meta.url).href }).runInThisContext();
    run("client.js", readFileSync("client.js", "utf8"));
    run(name, readFileSync(name, "utf8"));
    await listeners("news", 1);
    await other.publish("news", "hello");
    await prints("hello");
  },
  async "status.js"() {
    await imported(name);
    await prints("connected websocket");
    (await feed()).send("remove me").catch(() => { }); // its answer may come or not
    await prints("the end: removed removed: as you like");
  },
  async "topics.js"() {
    const { stop, leave } = await imported(name);
    await prints("present: 1 ");
    await other.publish("sport", "goal");
    await prints("sport: goal");
    stop();
    leave();
    await listeners("sport", 0);
    assert.deepEqual((await feed()).topics, []);
  },
  async "speaking.js"() {
    other.subscribe("answers", e => print(e.data));
    await listeners("answers", 1);
    await imported(name);
    assert.match(printed[0], /^published at [0-9a-f]{16}-[0-9]+$/);
    assert.equal(printed[1], "re: what?");
    await (await feed()).send("ask me");
    await prints("the answer to what you ask");
  },
  async "state.js"() {
    const { follow } = await imported(name);
    await follow(state => print("shows", state));
    await prints("shows state 2"); // after a gap
    await listeners("sport", 1);
    await other.publish("sport", "goal");
    await prints("shows state 2,goal");
  },
  async "loop.js"() {
    (await feed()).subscribe("sport");
    const loop = imported(name);
    await listeners("sport", 1);
    for (const data of ["goal", "the last"]) await other.publish("sport", data);
    await loop;
    assert.deepEqual(printed, ["looped: goal", "looped: the last"]);
  },
  async "token.js"() {
    const { feed } = await imported(name);
    await feed.request("what?");
    assert.equal(await other.request("token"), "Bearer t1");
  },
  async "node.js"() {
    const loop = imported(name);
    await listeners("sport", 1);
    for (const data of ["goal", "the last"]) await other.publish("sport", data);
    await loop;
    assert.deepEqual(printed, ["websocket goal", "websocket the last"]);
    await listeners("sport", 0);
  },
  async "react.js"() {
    const document = await dom();
    const { createElement } = await import("react");
    const { createRoot } = await import("react-dom/client");
    const { useStatus, useTopic } = await imported(name);
    const source = await feed();
    function Page({ topic }) { return createElement("p", null, useStatus().state + " " + useTopic(topic)); }
    const root = createRoot(document.querySelector("main"));
    root.render(createElement(Page, { topic: "sport" }));
    await listeners("sport", 1);
    await other.publish("sport", "goal");
    await shows(document, "connected goal");
    root.render(createElement(Page, { topic: "news" }));
    await listeners("sport", 0);
    assert.deepEqual(source.topics, ["news"]);
    root.unmount();
    await listeners("news", 0);
    assert.deepEqual(source.topics, []);
  },
  async "vue.js"() {
    const document = await dom();
    const { createApp, h } = await import("vue");
    const { useTopic } = await imported(name);
    const source = await feed();
    const app = createApp({ setup() { const last = useTopic("sport"); return () => h("p", "last: " + last.value); } });
    app.mount(document.querySelector("main"));
    await listeners("sport", 1);
    await other.publish("sport", "goal");
    await shows(document, "last: goal");
    app.unmount();
    await listeners("sport", 0);
    assert.deepEqual(source.topics, []);
  },
};

await cases[name]();
says("as it says");
process.exit();
