// The server's time. The device's clock may be an hour off, and performance.now() may stand still while a phone sleeps.

/** How far device and server may drift apart: 100 millionths. */
const DRIFT = 1e-4;
/** Measured again after this time, and up to as much again, so that not all pages ask at once. */
const RESYNC_MS = 5 * 60_000;
/** The device's two clocks went apart by more than this: it slept, or its clock was set. */
const JUMP_MS = 1000;
/** A smaller difference is not seen. */
const SHOWN_MS = 200;
/** Nobody waits longer for the first answer: the device's clock is better than nothing. */
const KNOWN_WITHIN_MS = 4000;
/** No timer waits longer: the device may sleep, and more than 24 days would be none. */
const LONGEST_WAIT_MS = 1000;

/**
 * Server time is performance.now() plus something between `low` and `high`.
 * @type {{low: number, high: number, at: number} | null}
 */
let bounds = null;
/** The middle of the bounds, and after a sleep what it was before. */
let offset = Date.now() - performance.now();
let isKnown = false;

/** Device time less performance.now(), when both were last looked at. */
let gap = offset;
let isStarted = false;
let isAsking = false;
let resyncAt = 0;
/** What shows the time: told at once when it turns out to be another. @type {Set<() => void>} */
const shown = new Set();
/** Who waits until it is known. @type {(() => void)[]} */
let waiting = [];

/**
 * Narrows the offset down. A measurement that contradicts all before is the right one.
 * @param {number} low
 * @param {number} high
 */
function learn(low, high) {
  const at = performance.now();
  const slack = bounds ? (at - bounds.at) * DRIFT : 0;
  const both = bounds && { low: Math.max(low, bounds.low - slack), high: Math.min(high, bounds.high + slack), at };
  bounds = both && both.low <= both.high ? both : { low, high, at };
  const before = offset;
  offset = Number.isFinite(bounds.high) ? (bounds.low + bounds.high) / 2 : bounds.low;
  isKnown = true;
  for (const go of waiting.splice(0)) go();
  if (Math.abs(offset - before) > SHOWN_MS) for (const show of [...shown]) show();
}

/** One measurement: the server's word was said between the question and the answer. */
async function ask() {
  const asked = performance.now();
  const reply = await fetch('/time', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(5000) });
  const answered = performance.now();
  const server = Date.parse((await reply.json()).now);
  if (!Number.isFinite(server)) throw new Error('GET /time answered without a time');
  learn(server - answered, server - asked);
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Measures until it is known, then twice more: the first answer paid for the connection. */
async function sync() {
  if (isAsking) return;
  isAsking = true;
  resyncAt = performance.now() + RESYNC_MS * (1 + Math.random());
  let failures = 0;
  for (let answers = 0; answers < 3 && failures < 8; ) {
    try {
      await ask();
      answers += 1;
      if (answers < 3) await pause(100);
    } catch {
      failures += 1;
      await pause(Math.random() * Math.min(15_000, 500 * 2 ** failures));
    }
  }
  isAsking = false;
}

/** Whether the device slept since the last look. */
function look() {
  const now = Date.now() - performance.now();
  const jump = Math.abs(now - gap);
  gap = now;
  if (jump > JUMP_MS) {
    bounds = null;
    void sync();
  } else if (performance.now() > resyncAt) {
    void sync();
  }
}

function comeBack() {
  gap = Date.now() - performance.now();
  bounds = null;
  void sync();
}

export const clock = {
  /** Begins to measure. */
  start() {
    if (isStarted) return;
    isStarted = true;
    void sync();
    setInterval(look, 1000);
    window.addEventListener('online', comeBack);
    window.addEventListener('pageshow', (event) => event.persisted && comeBack());
    document.addEventListener('visibilitychange', () => !document.hidden && look());
    document.addEventListener('resume', comeBack);
  },

  /** Now, in ms of Unix time; the device's until the server was heard. */
  now: () => performance.now() + offset,

  /** Whether the server was heard. */
  isKnown: () => isKnown,

  /** Until the server was heard, or does not answer. */
  ready: () =>
    new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      if (isKnown) resolve();
      waiting.push(() => resolve());
      setTimeout(resolve, KNOWN_WITHIN_MS);
    }),

  /** How exactly it is known: half the width of what is possible, in ms. */
  uncertainty: () => (bounds ? (bounds.high - bounds.low) / 2 : Infinity),

  /**
   * The server said its time in an event, which took an unknown time to come: it is that late at least.
   * @param {string} serverTime RFC 3339
   */
  heard(serverTime) {
    const low = Date.parse(serverTime) - performance.now();
    if (!Number.isFinite(low)) return;
    if (!isKnown || (bounds && low > bounds.low)) learn(low, Infinity);
  },

  /**
   * Calls at once, and then whenever a multiple of `ms` begins on the server's clock.
   * @param {number} ms
   * @param {(now: number) => void} listener
   * @returns {() => void} stops it
   */
  every(ms, listener) {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const tick = () => {
      clearTimeout(timer);
      listener(clock.now());
      timer = setTimeout(tick, Math.max(10, ms - (clock.now() % ms) + 2));
    };
    shown.add(tick);
    tick();
    return () => {
      clearTimeout(timer);
      shown.delete(tick);
    };
  },

  /**
   * Calls once, at that time by the server's clock.
   * @param {number} at ms of Unix time
   * @param {() => void} listener
   * @returns {() => void} stops it
   */
  at(at, listener) {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const wait = () => {
      const rest = at - clock.now();
      if (rest <= 0) listener();
      else timer = setTimeout(wait, Math.min(rest, LONGEST_WAIT_MS));
    };
    timer = setTimeout(wait, 0);
    return () => clearTimeout(timer);
  },
};
