// A program that uses every member of the browser client. TestTypes compiles it; nothing runs it.

import {
  GpollError, GpollSource,
  type CommandOptions, type ErrorEvent, type EventMap, type GapEvent, type GpollEvent, type Member, type MessageEvent,
  type OpenEvent, type Options, type Payload, type Presence, type Reason, type Status, type StatusEvent, type Transport,
} from "gpoll";

declare class NodeSocket { constructor(url: string, protocol?: string | string[], options?: object); }

const options: Options = {
  topics: ["news", "sensors.*"],
  after: "9f86d081884c7d65-41",
  last: 5,
  withCredentials: true,
  headers: { "X-Tenant": "a" },
  token: async () => "t",
  transports: ["websocket", "sse", "long-poll"],
  WebSocket: NodeSocket,
  fetch: globalThis.fetch,
};
const feed = new GpollSource(new URL("https://example.org/poll"), options);
export const simple = new GpollSource("/poll"), one = new GpollSource("/poll", { topics: "news", token: () => "t" });

// @ts-expect-error: there has to be an address
new GpollSource();
// @ts-expect-error: an option that there is not
new GpollSource("/poll", { topic: "news" });
// @ts-expect-error: a transport that there is not
new GpollSource("/poll", { transports: ["carrier-pigeon"] });
// @ts-expect-error: a number of messages is a number
new GpollSource("/poll", { last: "5" });

// The state.
export const state: [string, boolean, 0 | 1 | 2, Status, string, string, string[]] =
  [feed.url, feed.withCredentials, feed.readyState, feed.status, feed.id, feed.position, feed.topics];
export const closed: boolean = feed.readyState === GpollSource.CLOSED;
export const states: [0, 1, 2] = [GpollSource.CONNECTING, GpollSource.OPEN, GpollSource.CLOSED];
function told(s: Status): string {
  const transport: Transport | "" = s.transport, reasons: Reason[] = s.reasons, retry: number | undefined = s.retry;
  const fault: GpollError | undefined = s.error;
  switch (s.state) {
    case "connecting": case "connected": case "waiting": case "closed":
      return transport + reasons + retry + fault?.code;
    default: {
      const none: never = s.state; // these are all
      return none;
    }
  }
}
// @ts-expect-error: only the client changes its state
feed.readyState = 1;
// @ts-expect-error
feed.status = { state: "connected", transport: "sse", reasons: [] };
// @ts-expect-error: a misspelt reason
export const wrong: Reason = "ws_refusd";

// Handlers.
feed.onmessage = e => { const m: MessageEvent = e; use(m.data, m.topic, m.position, m.lastEventId, m.type); };
feed.ongap = e => { const g: GapEvent = e; use(g.from, g.to, g.reason); };
feed.onopen = e => { const o: OpenEvent = e; use(told(o), o.transport); };
feed.onerror = e => { const f: ErrorEvent = e; use(f.error.message, f.topics ?? [], told(f)); };
feed.onstatus = e => { const s: StatusEvent = e; use(told(s)); };
feed.onmessage = null;
feed.onrequest = async data => typeof data == "string" ? data.toUpperCase() : data.length > 3 ? undefined : data;
feed.onrequest = () => { };
feed.addEventListener("message", function (e) { use(e.data, this.url); }, { once: true });
feed.addEventListener("gap", e => use(e.reason));
feed.addEventListener("error", e => use(e.error.code, e.error.retry, e.error.course));
const opened = (e: EventMap["open"]): void => use(e.state);
feed.addEventListener("open", opened);
feed.removeEventListener("open", opened);
feed.addEventListener("something else", (e: Event) => use(e.type));
export const target: EventTarget = feed;
// @ts-expect-error: data is text or bytes
feed.onmessage = e => e.data.slice().toUpperCase();
// @ts-expect-error: a gap has no data
feed.addEventListener("gap", e => use(e.data));
// @ts-expect-error: a reply is a payload
feed.onrequest = () => 5;

// Topics and presence.
const stop: () => void = feed.subscribe("sport", e => use(e.data));
feed.subscribe(["a", "b"])();
stop();
const leave: () => void = feed.presence(["news"], (p: Presence) => {
  const members: Member[] = p.members;
  use(p.topic, p.count, ...members.map(m => m.id + m.user + m.info));
});
feed.presence("news", p => use(p.count));
leave();
// @ts-expect-error: nobody is told
feed.presence("news");
// @ts-expect-error: a topic is a name
feed.subscribe(5);

// Commands.
export async function speak(signal: AbortSignal): Promise<void> {
  const o: CommandOptions = { signal }, payloads: Payload[] = ["text", new Uint8Array(2), new ArrayBuffer(2), new DataView(new ArrayBuffer(2))];
  for (const payload of payloads) {
    const nothing: void = await feed.send(payload, o);
    const position: string = await feed.publish("news", payload, o);
    const reply: string | Uint8Array = await feed.request(payload, o);
    use(nothing, position, reply);
  }
  await feed.send("without options");
  // @ts-expect-error: objects are for JSON.stringify
  await feed.send({ a: 1 });
  // @ts-expect-error: a topic first
  await feed.publish("news");
  try {
    await feed.request("what?");
  } catch (e) {
    if (e instanceof GpollError && e instanceof Error && e.code == "refused") use(e.message);
  }
}
export const fault = new GpollError("stop", "closed", "why", 5);
// @ts-expect-error: a course that there is not
new GpollError("left", "closed");

// Loops.
export async function loop(): Promise<void> {
  for await (const e of feed) {
    const either: GpollEvent = e;
    if (either.type == "gap") use(either.reason);
    else use(either.data, either.topic);
  }
  feed.close();
}

function use(...things: unknown[]): void { void things; }
