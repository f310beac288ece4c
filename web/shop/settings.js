// What the shop says of itself. It does not change while a page is open.

import { api } from '../lib/api.js';

/** @typedef {import('../../target/openapi-types/api').components['schemas']['ShopSettings']} Settings */

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
