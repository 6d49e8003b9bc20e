/**
 * Payloads that clients seal for each other, so that neither the server nor its broker can read them: what the Go package
 * sealed does, in the same form, with WebCrypto. Its document says what a sealed payload promises, and what not.
 */

const version = 1;
const idSize = 4, timeAt = 1 + idSize, nonceAt = timeAt + 8, headSize = nonceAt + 12, tagSize = 16;

/** @typedef {{id: string, key: CryptoKey, head: Uint8Array}} BoxKey */
/** @typedef {string | ArrayBuffer | ArrayBufferView} Payload */

const text = new TextEncoder();
/** @param {Uint8Array} bytes */
const hex = bytes => [...bytes].map(b => b.toString(16).padStart(2, "0")).join("");

/**
 * The bytes of a payload in memory of their own.
 * @param {Payload} p
 */
function bytesOf(p) {
  if (typeof p == "string") return text.encode(p);
  if (p instanceof ArrayBuffer) return new Uint8Array(p.slice(0));
  if (ArrayBuffer.isView(p)) return new Uint8Array(p.buffer, p.byteOffset, p.byteLength).slice();
  throw new TypeError("sealed: a payload is a string, an ArrayBuffer or a view of one; use JSON.stringify for objects");
}

/** @param {Uint8Array[]} parts */
function join(...parts) {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}

/** Why a payload is not opened. code is "form", "key", "forged" or "replayed". */
export class SealedError extends Error {
  name = "SealedError";
  /**
   * @param {"form" | "key" | "forged" | "replayed"} code
   * @param {string} message
   */
  constructor(code, message) {
    super("sealed: " + message);
    this.code = code;
  }
}

/** Seals and opens payloads. */
export class Box {
  /** @type {BoxKey[]} */
  #keys;

  /** @param {BoxKey[]} keys as Box.with makes them */
  constructor(keys) {
    this.#keys = keys;
  }

  /**
   * @param {Payload} key seals; 32 random bytes
   * @param {Payload[]} further may have sealed what is opened
   */
  static async with(key, ...further) {
    if (!globalThis.crypto?.subtle) throw new Error("sealed: the browser has no WebCrypto here: serve the page by HTTPS, or from localhost");
    /** @type {BoxKey[]} */
    const keys = [];
    for (const [i, secret] of [key, ...further].entries()) {
      const raw = bytesOf(secret), which = `sealed: key ${i + 1}: `;
      if (raw.length != 32) throw new RangeError(which + `it has ${raw.length} bytes; a key is 32 random bytes`);
      if (raw.every(b => b == raw[0])) throw new RangeError(which + "all of its bytes are the same; a key is random");
      const base = await crypto.subtle.importKey("raw", raw, "HKDF", false, ["deriveBits"]);
      const how = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: text.encode("gpoll sealed key") };
      const head = new Uint8Array(await crypto.subtle.deriveBits(how, base, 8 * idSize)), id = hex(head);
      const same = keys.findIndex(k => k.id == id);
      if (same >= 0) throw new RangeError(which + `it is the same as key ${same + 1}`);
      keys.push({ id, head, key: await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]) });
    }
    return new Box(keys);
  }

  /**
   * @param {string} topic
   * @param {Payload} data
   */
  async seal(topic, data) {
    const head = new Uint8Array(headSize), nonce = crypto.getRandomValues(head.subarray(nonceAt));
    const [{ head: id, key }] = this.#keys;
    head[0] = version;
    head.set(id, 1);
    new DataView(head.buffer).setBigUint64(timeAt, BigInt(Date.now()));
    const how = { name: "AES-GCM", iv: nonce.slice(), additionalData: join(head, text.encode(topic)) };
    return join(head, new Uint8Array(await crypto.subtle.encrypt(how, key, bytesOf(data))));
  }

  /**
   * @param {string} topic
   * @param {Payload} payload
   */
  async open(topic, payload) {
    const p = bytesOf(payload), head = p.slice(0, headSize);
    if (p.length < headSize + tagSize || p[0] != version) throw new SealedError("form", "this is no sealed payload of version 1");
    const k = this.#keys.find(k => k.id == hex(head.subarray(1, timeAt)));
    if (!k) throw new SealedError("key", "the payload was sealed with a key that is not among those given to Box.with");
    const how = { name: "AES-GCM", iv: head.slice(nonceAt), additionalData: join(head, text.encode(topic)) };
    try {
      return new Uint8Array(await crypto.subtle.decrypt(how, k.key, p.slice(headSize)));
    } catch {
      throw new SealedError("forged", "the payload was changed, or was sealed for another topic");
    }
  }

  newOpener() { return new Opener(this); }
}

/** Opens each payload once. */
export class Opener {
  #box;
  #remembered;
  /** @type {Map<string, bigint>} what is known, and when it was sealed, in the order in which it came */
  #known = new Map();
  #floor = -1n; // nothing sealed at this time or before is known for sure

  /**
   * @param {Box} box
   * @param {number} [remembered] payloads are known again
   */
  constructor(box, remembered = 1 << 16) {
    this.#box = box;
    this.#remembered = remembered;
  }

  /**
   * @param {string} topic
   * @param {Payload} payload
   */
  async open(topic, payload) {
    const p = bytesOf(payload), data = await this.#box.open(topic, p);
    const mark = hex(p.subarray(timeAt, headSize)), at = new DataView(p.buffer).getBigUint64(timeAt);
    if (this.#known.has(mark) || at <= this.#floor) throw new SealedError("replayed", "the payload has come before, or is too old to tell");
    this.#known.set(mark, at);
    if (this.#known.size > this.#remembered) {
      const [[oldest, then]] = this.#known;
      this.#known.delete(oldest);
      if (then > this.#floor) this.#floor = then;
    }
    return data;
  }
}
