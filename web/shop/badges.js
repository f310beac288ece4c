// States as words in a colour.

import { h } from '../lib/dom.js';
import { t } from '../lib/text.js';

/** @type {Record<import('./product.js').SaleState, string>} */
const SALE = { upcoming: 'badge-info', live: 'badge-good', paused: 'badge-warn', sold_out: 'badge-bad', ended: '' };

/** @type {Record<import('./own-orders.js').OrderStatus, string>} */
const ORDER = { queued: 'badge-info', unpaid: 'badge-warn', paid: 'badge-good', cancelled: '', expired: '', rejected: 'badge-bad' };

/** @param {import('./product.js').SaleState} state */
export const saleBadge = (state) => h('span', { class: `badge ${SALE[state]}` }, t(`sale.state.${state}`));

/** @param {import('./own-orders.js').OrderStatus} status */
export const orderBadge = (status) => h('span', { class: `badge ${ORDER[status]}` }, t(`order.status.${status}`));
