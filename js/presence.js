/** Who is present in topics: what GpollSource.presence loads. docs/protocol.md, "Presence". */

/**
 * @typedef {import("./gpoll.js").Presence} Presence
 * @typedef {import("./gpoll.js").Member} Member
 * @typedef {(p: Presence) => void} Watcher
 * @typedef {{fns: Set<Watcher>, told?: {count: number, members: Map<string, Member>}}} Watched
 * @typedef {{_watched: Map<string, Watched>, _presenceAt: string, _change(): void}} Source what this module uses of a GpollSource
 * @typedef {{topic: string, count: number, members?: Member[], join?: Member[], leave?: string[]}} News
 */

/**
 * Lets f be told who is present in the topics, and returns what ends that.
 * @param {Source} source
 * @param {string[]} names
 * @param {Watcher} f
 */
export function watch(source, names, f) {
  for (const name of names) {
    let w = source._watched.get(name);
    if (!w) {
      w = { fns: new Set() };
      source._presenceAt = ""; // the position is for topics that are all known
    }
    source._watched.set(name, w);
    w.fns.add(f);
    show(name, w, [f]);
  }
  source._change();
  return () => {
    for (const name of names.splice(0)) {
      const fns = source._watched.get(name)?.fns;
      if (fns?.delete(f) && !fns.size) source._watched.delete(name);
    }
    source._change();
  };
}

/**
 * Takes in what the server tells.
 * @param {Source} source
 * @param {{position: string, topics: News[]}} news
 */
export function told(source, news) {
  for (const { topic, count, members, join, leave } of news.topics) {
    const w = source._watched.get(topic);
    if (!w) continue;
    const whole = members || !join && !leave; // too many members, if there are none
    const known = !whole && w.told || { count, members: new Map() };
    for (const m of members || join || []) known.members.set(m.id, m);
    for (const id of leave || []) known.members.delete(id);
    known.count = count;
    w.told = known;
    show(topic, w, w.fns);
  }
  source._presenceAt = [...source._watched.values()].every(w => w.told) ? news.position : "";
}

/**
 * @param {string} topic
 * @param {Watched} w
 * @param {Iterable<Watcher>} fns
 */
function show(topic, { told }, fns) {
  if (!told) return;
  for (const f of fns) {
    try {
      f({ topic, count: told.count, members: [...told.members.values()] });
    } catch (e) {
      queueMicrotask(() => { throw e; }); // the page's own fault, which hurts nobody else
    }
  }
}
