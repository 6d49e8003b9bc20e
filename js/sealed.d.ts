/** The types of sealed.js: payloads that clients seal for each other. See the Go package sealed in the repository of gpoll. */

export type Payload = string | ArrayBuffer | ArrayBufferView;

/** Why a payload is not opened. */
export class SealedError extends Error {
  constructor(code: SealedError["code"], message: string);
  /**
   * "form": it is none of version 1. "key": its key is not among those given to `Box.with`. "forged": it was changed, or sealed
   * for another topic. "replayed": it has come before, or is too old to tell.
   */
  readonly code: "form" | "key" | "forged" | "replayed";
}

/** Seals and opens payloads with keys that the server does not have. */
export class Box {
  private constructor();
  /**
   * Makes a Box that seals with key, and opens what was sealed with key or with one of further. Each is 32 random bytes.
   * Rejects where the browser has no WebCrypto: on pages of plain HTTP.
   */
  static with(key: Payload, ...further: Payload[]): Promise<Box>;
  /** Seals data for the topic of its message; for a message without one, for what sender and receiver agree on. 41 bytes longer. */
  seal(topic: string, data: Payload): Promise<Uint8Array<ArrayBuffer>>;
  /** Opens a payload, as often as it is asked. Rejects with a SealedError. */
  open(topic: string, payload: Payload): Promise<Uint8Array<ArrayBuffer>>;
  newOpener(): Opener;
}

/** Opens each payload once: it knows the last 65,536 again, and takes none that was sealed before those that it has forgotten. */
export class Opener {
  private constructor();
  /** Like `Box.open`, but rejects with the code "replayed" what was opened before, or may have been. */
  open(topic: string, payload: Payload): Promise<Uint8Array<ArrayBuffer>>;
}
