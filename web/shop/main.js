// The buyer's pages.

import { clock } from '../lib/clock.js';
import { router } from '../lib/router.js';
import { text } from '../lib/text.js';
import { accountPage } from './account.js';
import { markPlace, startFrame } from './frame.js';
import { loadLanguage } from './languages.js';
import { listPage } from './list.js';
import { notFoundPage } from './not-found.js';
import { orderPage } from './order.js';
import { ordersPage } from './orders.js';
import { salePage } from './sale.js';

await loadLanguage(text.language());
clock.start();
startFrame();

const root = /** @type {HTMLElement} */ (document.getElementById('page'));
router.start(
  [
    { path: '/shop', page: listPage },
    { path: '/shop/sales/:id', page: salePage },
    { path: '/shop/orders', page: ordersPage },
    { path: '/shop/orders/:id', page: orderPage },
    { path: '/shop/account', page: accountPage },
    { path: '*', page: notFoundPage },
  ],
  root,
  { onPage: markPlace },
);
text.on('change', () => void router.again());
