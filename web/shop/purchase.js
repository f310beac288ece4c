// One click, until it is decided. It asks once a second at most, goes on by itself while that makes sense, and never leaves a buyer
// with "try again" who may hold a unit already.

import { api, ApiError, Offline } from '../lib/api.js';
import { clock } from '../lib/clock.js';

/**
 * @typedef {import('../../target/openapi-types/api').components['schemas']['AcceptedPurchase']} Accepted
 * @typedef {'busy' | 'rate_limited' | 'offline' | 'not_started'} Why
 * @typedef {{is: 'asking'}
 *   | {is: 'waiting', why: Why, until: number}
 *   | {is: 'accepted', accepted: Accepted}
 *   | {is: 'owned', orderId: string}
 *   | {is: 'refused', error: ApiError, mayHold: boolean}
 *   | {is: 'stopped', mayHold: boolean}} Attempt
 *   `until` in ms of performance.now(); `mayHold`: a reply was lost on the way, so the orders must be looked at.
 */

const BETWEEN_TRIES_MS = 1000;
/** A sale that opens later than this is not waited for: its start was moved. */
const WAITS_FOR_START_MS = 10_000;

/** When the last try of this page was sent, of whatever click. */
let lastTryAt = -Infinity;

/** @param {number} upTo */
const jitter = (upTo) => Math.random() * upTo;

/**
 * @param {number} productId
 * @param {number} quantity
 * @param {(attempt: Attempt) => void} onChange
 * @returns {() => void} stops asking
 */
export function purchase(productId, quantity, onChange) {
  let isStopped = false;
  let mayHold = false;
  let failures = 0;
  /** @type {(() => void) | null} */
  let wake = null;

  /** @param {number} ms */
  const pause = (ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(done, ms);
      function done() {
        clearTimeout(timer);
        wake = null;
        resolve(undefined);
      }
      wake = done;
    });

  /**
   * @param {Why} why
   * @param {number} ms
   */
  const wait = async (why, ms) => {
    const rest = Math.max(ms, lastTryAt + BETWEEN_TRIES_MS - performance.now());
    onChange({ is: 'waiting', why, until: performance.now() + rest });
    await pause(rest);
  };

  /**
   * One try.
   * @returns {Promise<Attempt | {is: 'waiting', why: Why, ms: number}>}
   */
  const ask = async () => {
    lastTryAt = performance.now();
    try {
      const reply = await api.post(`/seckill/${productId}`, quantity > 1 ? { quantity } : undefined);
      return { is: 'accepted', accepted: reply.body };
    } catch (error) {
      if (error instanceof Offline) {
        mayHold = true;
        failures += 1;
        return { is: 'waiting', why: 'offline', ms: backoff() };
      }
      if (!(error instanceof ApiError)) throw error;
      const after = (error.retryAfter ?? 1) * 1000;
      switch (error.code) {
        case 'already_purchased':
          return { is: 'owned', orderId: error.body.order_id };
        case 'rate_limited':
          return { is: 'waiting', why: 'rate_limited', ms: after + jitter(500) };
        case 'not_started': {
          // Its clock decides. Ours is ahead by a moment, or the start was moved.
          const rest = Date.parse(error.body.starts_at) - clock.now();
          if (rest <= WAITS_FOR_START_MS) return { is: 'waiting', why: 'not_started', ms: Math.max(rest, 0) + jitter(200) };
          return { is: 'refused', error, mayHold };
        }
        default:
          if (error.status < 500) return { is: 'refused', error, mayHold };
          mayHold = true;
          failures += 1;
          return { is: 'waiting', why: 'busy', ms: Math.max(after, backoff()) };
      }
    }
  };

  const backoff = () => Math.min(8000, 1000 * 2 ** (failures - 1)) + jitter(1000);

  const run = async () => {
    const rest = lastTryAt + BETWEEN_TRIES_MS - performance.now();
    onChange({ is: 'asking' });
    if (rest > 0) await pause(rest);
    while (!isStopped) {
      const next = await ask();
      // A promise counts, also after somebody has stopped asking.
      if (next.is === 'accepted' || next.is === 'owned') {
        onChange(next);
        return;
      }
      if (isStopped) break;
      if (next.is !== 'waiting' || !('ms' in next)) {
        onChange(/** @type {Attempt} */ (next));
        return;
      }
      await wait(next.why, next.ms);
      if (!isStopped) onChange({ is: 'asking' });
    }
    onChange({ is: 'stopped', mayHold });
  };

  const onOnline = () => {
    // Not everybody in the same moment.
    if (wake) setTimeout(() => wake?.(), jitter(1000) + Math.max(0, lastTryAt + BETWEEN_TRIES_MS - performance.now()));
  };
  window.addEventListener('online', onOnline);
  void run().finally(() => window.removeEventListener('online', onOnline));

  return () => {
    isStopped = true;
    wake?.();
  };
}
