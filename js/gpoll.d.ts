/** The types of gpoll's browser client. See docs/browser.md in the repository of gpoll. */

/** How messages come. */
export type Transport = "websocket" | "sse" | "long-poll";

export interface Options {
  /** What the client subscribes to from the beginning, at most 32 topics unless the server says otherwise. */
  topics?: string | string[];
  /** The `position` of an earlier client: the messages after it are owed, or a gap. Without it, those that come. */
  after?: string;
  /** Asks for up to that many recent messages of each topic first, 0 to 500. With `after` it has no effect. */
  last?: number;
  /** Sends cookies to another origin. Cookies of the page's own origin are always sent. */
  withCredentials?: boolean;
  /** Sent with every request of HTTP. A browser's WebSocket sends no headers: use `token` for what authorizes. */
  headers?: Record<string, string>;
  /**
   * Returns the token that is sent as `Authorization: Bearer <token>`, by HTTP as a header and by WebSocket in the first
   * frame, never in a URL. It is kept until the server answers "unauthorized", and then asked for once more. When it
   * throws, the client waits and asks again.
   */
  token?: () => string | Promise<string>;
  /** The transports that may be used, the best first. All of them, if it is left out. */
  transports?: Transport[];
  /** In the place of globalThis.WebSocket: for Node 20, the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => any;
  /** In the place of globalThis.fetch. */
  fetch?: typeof globalThis.fetch;
}

/** Why a client does not use a transport. docs/protocol.md lists them in section 16. */
export type Reason =
  | "ws_refused" | "ws_silent" | "ws_died_young"
  | "sse_refused" | "sse_buffered" | "sse_died_young"
  | "poll_blocked" | "unreachable";

export interface Status {
  readonly state: "connecting" | "connected" | "waiting" | "closed";
  /** While connected; else "". */
  readonly transport: Transport | "";
  /** Why the better transports are not used, the best first; while none works, why not. */
  readonly reasons: Reason[];
  /** What ended the last attempt. */
  readonly error?: GpollError;
  /** While waiting: milliseconds until the next attempt. */
  readonly retry?: number;
}

/** A message, in the order of the stream. */
export interface MessageEvent extends Event {
  readonly type: "message";
  /** Text, or bytes if the message is not valid UTF-8. */
  readonly data: string | Uint8Array;
  /** "" if it went to everybody, to this client or to its user. */
  readonly topic: string;
  readonly position: string;
  /** The same, as EventSource calls it. */
  readonly lastEventId: string;
}

/** Messages may be missing between the event before and the one behind. A page that shows a state fetches it anew. */
export interface GapEvent extends Event {
  readonly type: "gap";
  /** "" if the server does not know. */
  readonly from: string;
  readonly to: string;
  readonly reason: string;
}

/** The client is attached. */
export interface OpenEvent extends Event, Status {
  readonly type: "open";
}

/** Something was in the way. While `readyState` is not CLOSED, the client goes on by itself. */
export interface ErrorEvent extends Event, Status {
  readonly type: "error";
  readonly error: GpollError;
  /** These topics were refused and are taken back; the rest goes on. */
  readonly topics?: string[];
}

export interface StatusEvent extends Event, Status {
  readonly type: "status";
}

/** What `for await` yields. */
export type GpollEvent = MessageEvent | GapEvent;

export interface EventMap {
  message: MessageEvent;
  gap: GapEvent;
  open: OpenEvent;
  error: ErrorEvent;
  status: StatusEvent;
}

export interface Member {
  /** By which others know the client: `Message.Except` and `ToClient` take it. */
  readonly id: string;
  /** What the application's Authorize has said of the client, if anything. */
  readonly user?: string;
  readonly info?: string;
}

/** Who listens to a topic. */
export interface Presence {
  readonly topic: string;
  readonly count: number;
  /** Empty where there are more members than the server lists. */
  readonly members: Member[];
}

export interface CommandOptions {
  /** Ends the wait. The command may have taken effect, or may still. */
  signal?: AbortSignal;
}

export type Payload = string | ArrayBuffer | ArrayBufferView;

/** What went wrong. */
export class GpollError extends Error {
  constructor(course: GpollError["course"], code: string, message?: string, retry?: number);
  /** The server's word (docs/protocol.md, section 11), or one of "unreachable", "silent", "stranger", "broken", "token", "closed". */
  readonly code: string;
  /** Milliseconds after which the server wants the client back; 0: it does not say. */
  readonly retry: number;
  /** What the client does about it. */
  readonly course: "back" | "register" | "token" | "down" | "life" | "stop" | "again";
}

/**
 * One client of a gpoll server. It is shaped like an EventSource, and stays one client while connections break,
 * transports change and the page sleeps: it comes back with its place in the stream, drops what comes twice, and hands
 * on the server's word of what is lost.
 */
export class GpollSource extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;

  /** @param url of the mount, like "/poll", relative to the page. Its query and fragment are not used. */
  constructor(url: string | URL, options?: Options);

  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: 0 | 1 | 2;
  readonly status: Status;
  /** The client id, "" before the first attach. Whoever has it can read what the client would read. */
  readonly id: string;
  /** Up to where the client has what it is owed. As `Options.after` it lets another client go on from there. */
  readonly position: string;
  readonly topics: string[];

  onmessage?: ((e: MessageEvent) => void) | null;
  ongap?: ((e: GapEvent) => void) | null;
  onopen?: ((e: OpenEvent) => void) | null;
  onerror?: ((e: ErrorEvent) => void) | null;
  onstatus?: ((e: StatusEvent) => void) | null;
  /**
   * Answers what the server asks (Client.Request), once for each question. What it throws is told to the server. Without
   * it each question is answered with an error.
   */
  onrequest?: ((data: string | Uint8Array) => Payload | void | Promise<Payload | void>) | null;

  addEventListener<K extends keyof EventMap>(
    type: K, listener: ((this: GpollSource, e: EventMap[K]) => void) | EventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof EventMap>(
    type: K, listener: ((this: GpollSource, e: EventMap[K]) => void) | EventListenerObject | null, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;

  /**
   * Adds topics, and returns what takes them back. f gets the messages that match them; `onmessage` gets all. Topics that
   * two have subscribed to stay until both take them back. What the server refuses is told by an error event with `topics`.
   * @param topics names, or patterns like "sensors.*" where the server allows them
   */
  subscribe(topics: string | string[], f?: (e: MessageEvent) => void): () => void;

  /** Calls f with who listens to each topic, now and at each change, and returns what ends that. */
  presence(topics: string | string[], f: (p: Presence) => void): () => void;

  /**
   * Hands data to the server's application, and resolves when that has heard it. A command without an answer goes out again,
   * after a broken connection and by another transport, and takes effect once. At most 65,000 bytes.
   */
  send(data: Payload, options?: CommandOptions): Promise<void>;
  /** Publishes to a topic, if the server allows it, and resolves to the message's position. */
  publish(topic: string, data: Payload, options?: CommandOptions): Promise<string>;
  /** Asks the server's application, and resolves to its reply. Rejects with the code "refused" when that says no. */
  request(data: Payload, options?: CommandOptions): Promise<string | Uint8Array>;

  /** Leaves the server, which forgets the client. */
  close(): void;

  /**
   * Messages and gaps. The loop ends after `close`, and throws when the server ends the client. While it does not keep up,
   * the client reads no more, and the server keeps the rest as long as its window holds.
   */
  [Symbol.asyncIterator](): AsyncGenerator<GpollEvent, void, undefined>;
}
