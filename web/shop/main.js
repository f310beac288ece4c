// The buyer's pages.

import { clock } from '../lib/clock.js';
import { router } from '../lib/router.js';
import { text } from '../lib/text.js';
import { markPlace, startFrame } from './frame.js';
import { loadLanguage } from './languages.js';
import { salePage } from './sale.js';

await loadLanguage(text.language());
clock.start();
startFrame();

/**
 * A page that is loaded when somebody goes there: a sale has to be quick.
 * @param {() => Promise<import('../lib/router.js').Page>} load
 * @returns {import('../lib/router.js').Page}
 */
const later = (load) => async (root, params) => (await load())(root, params);

const root = /** @type {HTMLElement} */ (document.getElementById('page'));
router.start(
  [
    { path: '/shop', page: later(async () => (await import('./list.js')).listPage) },
    { path: '/shop/sales/:id', page: salePage },
    { path: '/shop/orders', page: later(async () => (await import('./orders.js')).ordersPage) },
    { path: '/shop/orders/:id', page: later(async () => (await import('./order.js')).orderPage) },
    { path: '/shop/account', page: later(async () => (await import('./account.js')).accountPage) },
    { path: '*', page: later(async () => (await import('./not-found.js')).notFoundPage) },
  ],
  root,
  { onPage: markPlace },
);
text.on('change', () => void router.again());
