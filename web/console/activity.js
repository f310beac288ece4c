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
  'Made a draft',
  'Published a draft',
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
    rows: actions.map(({ changed_at, user_id, username, action, object, changes, reason }) => [
      time(changed_at, zone),
      h('span', { translate: 'no' }, username ?? t('user.unknown', { id: user_id })),
      sentence(action),
      ...(withObject ? [objectLink(object)] : []),
      h('span', {}, changes === 'none' ? '–' : code(changes), reason ? ' ' : null, reason ? h('q', { translate: 'no' }, reason) : null),
    ]),
  });
}

/**
 * @param {string | null} cursor
 * @param {AbortSignal} signal
 * @param {string} [object] only what was done to it
 * @returns {Promise<Page<AdminAction>>}
 */
export async function readLog(cursor, signal, object) {
  const query = new URLSearchParams({ limit: '100', ...(object ? { object } : {}), ...(cursor ? { cursor } : {}) });
  return (await api.get(`/admin/log?${query}`, { signal })).body;
}

/**
 * What was done to one sale lately, newest first.
 * @param {number} product
 * @param {AbortSignal} signal
 * @returns {Promise<{ actions: AdminAction[], isWhole: boolean }>}
 */
export async function readLogOf(product, signal) {
  const { items, next_cursor } = await readLog(null, signal, `product ${product}`);
  return { actions: items, isWhole: next_cursor === null };
}
