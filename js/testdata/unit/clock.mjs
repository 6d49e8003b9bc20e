// Time for the tests: timers, Date.now, AbortSignal.timeout and Math.random are the test's. Import it before gpoll.js.

const turn = globalThis.setImmediate;
/** @type {Map<number, {at: number, f: Function, args: unknown[]}>} */
let timers = new Map();
let time = 1.8e12, last = 0;
export const chance = { value: 0.5 };

globalThis.setTimeout = (f, ms = 0, ...args) => (timers.set(++last, { at: time + Math.max(ms || 0, 1), f, args }), last);
globalThis.clearTimeout = id => void timers.delete(id);
Date.now = () => time;
Math.random = () => chance.value;
AbortSignal.timeout = ms => {
  const life = new AbortController();
  setTimeout(() => life.abort(new DOMException("the time is over", "TimeoutError")), ms);
  return life.signal;
};

/** now is the time, in ms. */
export const now = () => time;

/** Lets everything happen that can without time. */
export async function settle() {
  for (let i = 0; i < 8; i++) await new Promise(done => turn(done));
}

/** Lets ms pass. */
export async function pass(ms) {
  const end = time + ms;
  await settle();
  for (;;) {
    const [id, timer] = [...timers].reduce((a, b) => b[1].at < a[1].at ? b : a, [0, { at: Infinity }]);
    if (timer.at > end) break;
    timers.delete(id);
    time = Math.max(time, timer.at);
    timer.f(...timer.args);
    await settle();
  }
  time = end;
}

/** The machine sleeps for ms: the clock on the wall goes on, and timers stand still. */
export function sleep(ms) {
  time += ms;
  for (const timer of timers.values()) timer.at += ms;
}

export function forgetTimers() { timers = new Map(); }
