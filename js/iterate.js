/** Loops over the messages and gaps of a GpollSource: its `for await`. */

/** @typedef {{events: import("./gpoll.js").GpollEvent[], wake?: () => void}} Queue */

/**
 * Yields what comes into the queue, until the source is closed.
 * @param {import("./gpoll.js").GpollSource} source
 * @param {Queue} queue
 * @param {() => void} room is called when there is some: a source whose loop does not keep up waits for it
 */
export async function* iterate(source, queue, room) {
  for (;;) {
    const { events } = queue;
    let at = 0;
    while (at < events.length) {
      const e = events[at++];
      if (at > 256 || at == events.length) {
        events.splice(0, at);
        at = 0;
        room();
      }
      yield e;
    }
    if (source.readyState == 2) {
      const { error } = source.status;
      if (error && error.code != "closed") throw error;
      return;
    }
    if (!events.length) await new Promise(wake => queue.wake = () => wake(0));
  }
}
