// Listens by one transport until so many messages have come, then speaks to the server, and ends.
// Usage: node listen.mjs MODULE URL TRANSPORT MESSAGES

import { pathToFileURL } from "node:url";

const [module, url, transport, messages] = process.argv.slice(2);
globalThis.sessionStorage = {}; // as a browser's tab has
const { GpollSource } = await import(pathToFileURL(module).href);
const feed = new GpollSource(url, { topics: "news", transports: [transport] });
feed.onopen = e => console.log("open", e.transport);
let left = +messages;
for await (const m of feed) {
  console.log(m.topic || m.reason, m.data);
  if (!--left) break;
}
await feed.send("hi");
console.log("reply", await feed.request("what"));
feed.close();

// What this tab remembers of that client is not for one with other transports.
const other = new GpollSource(url, { transports: [transport == "sse" ? "long-poll" : "sse"] });
other.onopen = e => {
  console.log("open", e.transport);
  other.close();
};
