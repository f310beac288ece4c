/** What administrators did, as rows: of everything, or of one sale. */

import { api } from '../lib/api.js';
import { h } from '../lib/dom.js';
import { t } from '../lib/text.js';
import { code, table, time } from './parts.js';

/** @import { AdminAction, Page } from './types.js' */

/** The server's sentences, for those who read another language. */
const SENTENCES = new Set([
  'Put a product on sale',
  'Changed a product',
  'Paused a product',
  'Resumed a product',
  'Restocked a product',
  'Archived a product',
  'Cancelled an order',
  'Marked an order as paid',
  'Put a dead letter back',
  'Deleted a dead letter',
  'Registered a webhook',
  'Changed a webhook',
  'Deleted a webhook',
  "Rotated a webhook's secret",
]);

/** @param {string} action */
const sentence = (action) => (SENTENCES.has(action) ? t(`log.${action}`) : action);

/** @param {string} object such as `product 7` */
function objectLink(object) {
  const [kind, id] = [object.slice(0, object.lastIndexOf(' ')), object.slice(object.lastIndexOf(' ') + 1)];
  const place = { product: '/console/sales/', order: '/console/orders/', webhook: '/console/webhooks/' }[kind];
  if (!place) return code(object);
  // The end of an order's id is what differs most.
  const name = id.length > 20 ? `…${id.slice(-12)}` : id;
  return h('a', { href: place + id }, t(`log.object.${kind}`), ' ', code(name));
}

/**
 * @param {AdminAction[]} actions
 * @param {string} zone
 * @param {{ withObject: boolean }} options
 */
export function activityTable(actions, zone, { withObject }) {
  return table({
    label: t('log.title'),
    columns: [{ title: t('log.when') }, { title: t('log.who') }, { title: t('log.what') }, ...(withObject ? [{ title: t('log.object') }] : []), { title: t('log.changes'), class: 'wide' }],
    rows: actions.map(({ changed_at, user_id, username, action, object, changes }) => [
      time(changed_at, zone),
      h('span', { translate: 'no' }, username ?? t('user.unknown', { id: user_id })),
      sentence(action),
      ...(withObject ? [objectLink(object)] : []),
      changes === 'none' ? '–' : code(changes),
    ]),
  });
}

/**
 * @param {string | null} cursor
 * @param {AbortSignal} signal
 * @returns {Promise<Page<AdminAction>>}
 */
export async function readLog(cursor, signal) {
  const query = new URLSearchParams({ limit: '100', ...(cursor ? { cursor } : {}) });
  return (await api.get(`/admin/log?${query}`, { signal })).body;
}

/** Pages that are looked through for one sale's entries. */
const MOST_PAGES = 5;

/**
 * What was done to one sale, newest first. The server has no such filter, so the newest pages are looked through.
 * @param {number} product
 * @param {AbortSignal} signal
 * @returns {Promise<{ actions: AdminAction[], isWhole: boolean }>}
 */
export async function readLogOf(product, signal) {
  /** @type {AdminAction[]} */
  const actions = [];
  /** @type {string | null} */
  let cursor = null;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    /** @type {Page<AdminAction>} */
    const { items, next_cursor } = await readLog(cursor, signal);
    actions.push(...items.filter(({ object }) => object === `product ${product}`));
    // A product's first entry is that it was made.
    if (next_cursor === null || actions.some(({ action }) => action === 'Put a product on sale')) return { actions, isWhole: true };
    cursor = next_cursor;
  }
  return { actions, isWhole: false };
}
