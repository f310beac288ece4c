/** Orders: searched, filtered, as a file. What is asked for stands in the address. */

import { api } from '../lib/api.js';
import { h, replace } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { count, money } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { t } from '../lib/text.js';
import { field } from './fields.js';
import { empty, failure, heading, loading, orderBadge, paymentBadge, table, time } from './parts.js';
import { settings } from './settings.js';

/** @import { MerchantOrder, Page, Product } from './types.js' */

const STATUSES = ['unpaid', 'paid', 'cancelled', 'expired', 'rejected'];
const FILTERS = ['q', 'product_id', 'status', 'user_id', 'refund_due'];
/** A page may be empty though there is more: so many are asked for before somebody has to say that they want more. */
const MOST_EMPTY_PAGES = 20;

/** The filters of an address, and nothing else of it. @param {string} search */
function filtersOf(search) {
  const given = new URLSearchParams(search);
  const filters = new URLSearchParams();
  for (const name of FILTERS) {
    const value = given.get(name)?.trim();
    if (value) filters.set(name, value);
  }
  return filters;
}

/** @param {HTMLElement} root */
export function ordersPage(root) {
  const aborter = new AbortController();
  const { signal } = aborter;
  const filters = filtersOf(location.search);
  const list = h('div', { class: 'orders' });
  const more = h('div', { class: 'more' });

  const search = field({ label: t('orders.q'), input: h('input', { type: 'search', name: 'q', value: filters.get('q') ?? '', maxlength: '255', autocomplete: 'off' }), hint: t('orders.q.hint') });
  const product = field({ label: t('orders.product'), input: h('select', { name: 'product_id' }, h('option', { value: '' }, t('orders.any'))) });
  const status = field({ label: t('orders.status'), input: h('select', { name: 'status' }, h('option', { value: '' }, t('orders.any')), ...STATUSES.map((value) => h('option', { value }, t(`order.${value}`)))) });
  status.input.value = filters.get('status') ?? '';
  const user = field({ label: t('orders.user'), input: h('input', { type: 'text', name: 'user_id', inputmode: 'numeric', value: filters.get('user_id') ?? '', autocomplete: 'off' }) });
  const due = field({ label: t('orders.refund'), input: h('select', { name: 'refund_due' }, h('option', { value: '' }, t('orders.any')), h('option', { value: 'true' }, t('orders.refund.due')), h('option', { value: 'false' }, t('orders.refund.none'))) });
  due.input.value = filters.get('refund_due') ?? '';
  const nameProduct = (/** @type {string} */ value, /** @type {string} */ name) => product.input.append(h('option', { value }, name));
  const wanted = filters.get('product_id');
  const named = async () => {
    /** @type {Product[]} */
    let items = [];
    try {
      items = (await api.get('/admin/products?limit=100', { signal })).body.items;
    } catch {
      // Numbers will do.
    }
    for (const { id, name } of items) nameProduct(String(id), `${name} (${id})`);
    // One that is older than these.
    if (wanted && !items.some(({ id }) => String(id) === wanted)) nameProduct(wanted, t('orders.product.number', { id: wanted }));
    product.input.value = wanted ?? '';
  };
  void named();

  const apply = (/** @type {Event} */ event) => {
    event.preventDefault();
    const typed = new URLSearchParams();
    for (const { input } of [search, product, status, user, due]) typed.set(input.name, input.value);
    const query = filtersOf(typed.toString()).toString();
    router.go(`/console/orders${query ? `?${query}` : ''}`);
  };
  const download = h('button', { type: 'button', class: 'button', data: { action: 'csv' }, on: { click: () => void save(download, filters) } }, t('orders.csv'));
  replace(
    root,
    heading(t('orders.title'), download),
    h(
      'form',
      { class: 'filters card', role: 'search', novalidate: true, on: { submit: apply } },
      search.node,
      product.node,
      status.node,
      user.node,
      due.node,
      h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'button primary' }, t('orders.search')), filters.size > 0 ? h('a', { href: '/console/orders', class: 'button' }, t('orders.clear')) : null),
    ),
    list,
    more,
  );

  const read = async (/** @type {string | null} */ cursor) => {
    const query = new URLSearchParams(filters);
    query.set('limit', '50');
    if (cursor) query.set('cursor', cursor);
    return /** @type {Page<MerchantOrder>} */ ((await api.get(`/admin/orders?${query}`, { signal })).body);
  };
  /** @type {MerchantOrder[]} */
  const found = [];
  const go = async (/** @type {string | null} */ from, /** @type {string} */ zone) => {
    let cursor = from;
    for (let pages = 0; pages < MOST_EMPTY_PAGES; pages += 1) {
      const page = await read(cursor);
      found.push(...page.items);
      cursor = page.next_cursor;
      if (cursor === null || page.items.length > 0) break;
    }
    if (found.length === 0 && cursor === null) replace(list, filters.size > 0 ? empty(t('orders.none'), t('orders.none.body'), h('a', { href: '/console/orders', class: 'button' }, t('orders.clear'))) : empty(t('orders.empty'), t('orders.empty.body')));
    else replace(list, h('p', { class: 'soft', role: 'status' }, t(cursor ? 'orders.shown_more' : 'orders.shown', { n: found.length })), ordersTable(found, zone));
    const onward = cursor;
    replace(more, onward === null ? null : h('button', { type: 'button', class: 'button', id: 'more-orders', on: { click: () => void go(onward, zone).catch((error) => signal.aborted || notice.fail(explain(error))) } }, t('more')));
  };
  const begin = async () => {
    replace(list, loading());
    try {
      await go(null, (await settings()).time_zone);
    } catch (error) {
      if (!signal.aborted) replace(list, failure(error, () => void begin()));
    }
  };
  void begin();
  return () => aborter.abort();
}

/** @param {MerchantOrder[]} orders @param {string} zone */
function ordersTable(orders, zone) {
  return table({
    label: t('orders.title'),
    columns: [
      { title: t('orders.order') },
      { title: t('orders.when') },
      { title: t('orders.buyer') },
      { title: t('orders.product') },
      { title: t('orders.units'), class: 'number' },
      { title: t('orders.total'), class: 'number' },
      { title: t('orders.status') },
    ],
    rows: orders.map((order) => [
      h('a', { href: `/console/orders/${order.id}`, class: 'mono', translate: 'no' }, `…${order.id.slice(-12)}`),
      time(order.created_at, zone),
      buyerName(order),
      h('a', { href: `/console/sales/${order.product_id}` }, order.product_name),
      count(order.quantity),
      money(order.total_cents, order.currency),
      h('span', { class: 'badges' }, orderBadge(order.status), isRefundDue(order) ? paymentBadge('refund_due') : null),
    ]),
  });
}

/** @param {MerchantOrder} order */
export const isRefundDue = (order) => order.payments.some((payment) => payment.status === 'refund_due');

/** @param {MerchantOrder} order */
export function buyerName({ username, user_id }) {
  return h('span', { translate: 'no' }, username ?? t('user.unknown', { id: user_id }));
}

/**
 * A file by way of memory: a link could not send the token.
 * @param {HTMLElement} button
 * @param {URLSearchParams} filters
 */
async function save(button, filters) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  button.textContent = t('orders.csv.busy');
  try {
    const reply = await api.get(`/admin/orders.csv?${filters}`, { as: 'blob', timeout: 600_000 });
    const name = /filename="([^"]+)"/.exec(reply.headers.get('Content-Disposition') ?? '')?.[1] ?? 'orders.csv';
    const address = URL.createObjectURL(/** @type {Blob} */ (reply.body));
    const link = h('a', { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    notice.say(t('orders.csv.done', { name }));
  } catch (error) {
    if (session.token()) notice.fail(`${t('orders.csv.failed')} ${explain(error)}`);
  } finally {
    button.removeAttribute('aria-disabled');
    button.textContent = t('orders.csv');
  }
}
