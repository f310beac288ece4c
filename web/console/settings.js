/** The shop's settings, which change only when the server is started anew. */

import { api } from '../lib/api.js';

/** @import { Settings } from './types.js' */

/** @type {Promise<Settings> | null} */
let asked = null;

/** @returns {Promise<Settings>} */
export function settings() {
  asked ??= api.get('/shop/settings').then(
    ({ body }) => /** @type {Settings} */ (body),
    (error) => {
      asked = null;
      throw error;
    },
  );
  return asked;
}
