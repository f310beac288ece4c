/** Counters that only grow, read once a second, as rates. No DOM here. */

/** @import { Live } from './types.js' */

/**
 * @typedef {object} Rates
 * @property {number} at server's time in ms
 * @property {number} accepted a second
 * @property {number} written a second
 * @property {number} refused a second
 * @property {Record<string, number>} reasons of the refused, a second
 */

/** Seconds that are kept. */
export const KEPT = 120;
/** Readings that lie further apart say nothing about a second. */
const FURTHEST = 5_000;

export function rateMeter() {
  /** Behind a balancer each reading may be another instance's, whose counters are its own. @type {Map<string, Live>} */
  const last = new Map();
  /** `null`: nothing is known of that second. @type {(Rates | null)[]} */
  const seconds = [];

  return {
    /** @param {Live} live */
    add(live) {
      const before = last.get(live.instance_started_at);
      last.set(live.instance_started_at, live);
      seconds.push(before ? ratesBetween(before, live) : null);
      if (seconds.length > KEPT) seconds.shift();
    },
    /** A second in which nobody answered. */
    miss() {
      seconds.push(null);
      if (seconds.length > KEPT) seconds.shift();
    },
    /** The newest last. */
    seconds: () => seconds,
    latest: () => seconds.at(-1) ?? null,
  };
}

/**
 * @param {Live} before
 * @param {Live} now
 * @returns {Rates | null}
 */
export function ratesBetween(before, now) {
  const at = Date.parse(now.server_time);
  const passed = at - Date.parse(before.server_time);
  if (!(passed > 0 && passed <= FURTHEST)) return null;
  const rate = (/** @type {number} */ from, /** @type {number} */ to) => ((to - from) * 1000) / passed;
  /** @type {Record<string, number>} */
  const reasons = {};
  for (const [reason, total] of Object.entries(now.refused)) reasons[reason] = rate(before.refused[reason] ?? 0, total);
  const refused = Object.values(reasons).reduce((sum, part) => sum + part, 0);
  const rates = { at, accepted: rate(before.accepted, now.accepted), written: rate(before.written, now.written), refused, reasons };
  // A counter that fell belongs to a process that was started anew.
  const fell = [rates.accepted, rates.written, ...Object.values(reasons)].some((value) => value < 0);
  return fell ? null : rates;
}

/**
 * A scale that ends at a round number, so that it seldom changes.
 * @param {number} greatest
 */
export function scaleFor(greatest) {
  if (!(greatest > 0)) return 10;
  const power = 10 ** Math.floor(Math.log10(greatest));
  const step = [1, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= greatest) ?? 10;
  return Math.max(10, step * power);
}
