// What the shop says of itself. It does not change while a page is open.

import { api } from '../lib/api.js';

/**
 * @typedef {{
 *   name: string, time_zone: string, currency: string, users: 'local' | 'external', registration: 'open' | 'closed',
 *   payments: 'none' | 'test' | 'external' | 'stripe', payment_window_seconds: number | null,
 * }} Settings
 */

/** @type {Promise<Settings> | null} */
let asked = null;

/** @returns {Promise<Settings>} */
export function settings() {
  asked ??= api.get('/shop/settings', { auth: false }).then((reply) => reply.body);
  // What did not come is asked for again by the next one who needs it.
  asked.catch(() => {
    asked = null;
  });
  return asked;
}
