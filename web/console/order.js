/** One order: what it is, how it was paid, what became of it, and what can be done. */

import { api } from '../lib/api.js';
import { h, replace } from '../lib/dom.js';
import { confirmDialog } from '../lib/dialog.js';
import { count, money } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { t } from '../lib/text.js';
import { field } from './fields.js';
import { formDialog } from './form-dialog.js';
import { buyerName } from './orders.js';
import { code, empty, fill, heading, orderBadge, paymentBadge, table, time } from './parts.js';
import { settings } from './settings.js';

/** @import { MerchantOrder, OrderChange, Page } from './types.js' */

const REASONS = new Set(['late', 'already_purchased', 'sold_out']);

/**
 * @param {HTMLElement} root
 * @param {Record<string, string>} params
 */
export function orderPage(root, params) {
  const id = params.id ?? '';
  const place = h('div', {});
  replace(root, h('nav', { class: 'crumbs', aria: { label: t('nav.where') } }, h('a', { href: '/console/orders' }, t('orders.title'))), heading(t('order.title')), place);

  const load = async (/** @type {AbortSignal} */ signal) => {
    const query = new URLSearchParams({ q: id, limit: '1' });
    const [{ time_zone }, found] = await Promise.all([settings(), api.get(`/admin/orders?${query}`, { signal })]);
    const order = /** @type {Page<MerchantOrder>} */ (found.body).items[0];
    // One that is on its way has no history yet.
    const history = order && order.status !== 'queued' ? (await api.get(`/admin/orders/${order.id}/history`, { signal })).body : null;
    return { order, zone: time_zone, history };
  };
  /** @type {{ again: () => void, stop: () => void }} */
  const filled = fill(place, load, ({ order, zone, history }) => {
    if (!order) return [empty(t('order.missing'), t('order.missing.body'), h('a', { href: '/console/orders', class: 'button' }, t('orders.title')))];
    const changes = /** @type {OrderChange[]} */ (Array.isArray(history) ? history : (history?.items ?? []));
    return [...facts(order, zone, filled.again), payments(order, zone), changesPart(order, changes, zone)];
  });
  return filled.stop;
}

/** @param {MerchantOrder} order @param {string} zone @param {() => void} again */
function facts(order, zone, again) {
  const fact = (/** @type {string} */ name, /** @type {Node | string} */ value) => h('div', { class: 'fact' }, h('dt', {}, t(name)), h('dd', {}, value));
  const due = order.payments.filter(({ status }) => status === 'refund_due');
  const warnings = due.map((payment) =>
    h('div', { class: 'card warning', role: 'note' }, h('h2', {}, t('order.refund_due')), h('p', {}, t('order.refund_due.body', { amount: money(payment.amount_cents, payment.currency), provider: t(`provider.${payment.provider}`), reference: payment.reference ?? payment.id }))),
  );
  return [
    ...warnings,
    h(
      'section',
      { class: 'card', aria: { label: t('order.title') } },
      h('p', { class: 'order-head' }, orderBadge(order.status), ' ', h('strong', { class: 'order-total', translate: 'no' }, money(order.total_cents, order.currency))),
      h(
        'dl',
        { class: 'facts' },
        fact('order.id', code(order.id)),
        fact('orders.buyer', h('span', {}, buyerName(order), ' ', h('a', { href: `/console/orders?user_id=${order.user_id}` }, t('order.of_buyer')))),
        fact('orders.product', h('a', { href: `/console/sales/${order.product_id}` }, order.product_name)),
        fact('orders.units', t('order.units', { n: count(order.quantity), price: money(order.price_cents, order.currency) })),
        fact('order.created', time(order.created_at, zone)),
        fact('order.updated', time(order.updated_at, zone)),
        fact('order.expires', order.expires_at ? time(order.expires_at, zone) : t('sale.no_deadline')),
        ...(order.paid_at ? [fact('order.paid_at', time(order.paid_at, zone))] : []),
        ...(order.reason ? [fact('order.reason', REASONS.has(order.reason) ? t(`reason.${order.reason}`) : code(order.reason))] : []),
      ),
      buttons(order, again),
    ),
  ];
}

/** @param {MerchantOrder} order @param {() => void} again */
function buttons(order, again) {
  const cancel = () => {
    const isPaid = order.status === 'paid';
    void confirmDialog({
      title: t('order.cancel.title'),
      body: t(isPaid ? 'order.cancel.paid' : 'order.cancel.unpaid', { amount: money(order.total_cents, order.currency) }),
      action: t('order.cancel'),
      danger: true,
      ask: { label: t('order.cancel.reason'), required: false, maxlength: 255 },
      run: async (reason) => {
        await api.post(`/admin/orders/${order.id}/cancel`, reason ? { reason } : {});
        notice.say(t('order.cancel.done'));
        again();
      },
    });
  };
  const markPaid = () => {
    const reference = field({ label: t('order.mark.reference'), input: h('input', { type: 'text', autocomplete: 'off', maxlength: '255' }), hint: t('order.mark.hint') });
    formDialog({
      title: t('order.mark.title'),
      body: t('order.mark.body', { amount: money(order.total_cents, order.currency) }),
      content: [reference.node],
      fields: { reference },
      action: t('order.mark'),
      run: () => {
        const given = reference.input.value.trim();
        if (given === '') {
          reference.complain(t('form.required'));
          return null;
        }
        return api.post(`/admin/orders/${order.id}/mark-paid`, { reference: given }).then(() => {
          notice.say(t('order.mark.done'));
          again();
        });
      },
    });
  };
  const isLive = order.status === 'unpaid' || order.status === 'paid';
  if (!isLive) return null;
  return h(
    'div',
    { class: 'actions' },
    order.status === 'unpaid' ? h('button', { type: 'button', class: 'button primary', data: { action: 'mark' }, on: { click: markPaid } }, t('order.mark')) : null,
    h('button', { type: 'button', class: 'button danger', data: { action: 'cancel' }, on: { click: cancel } }, t('order.cancel')),
  );
}

/** @param {MerchantOrder} order @param {string} zone */
function payments(order, zone) {
  const rows = order.payments.map((payment) => [
    paymentBadge(payment.status),
    money(payment.amount_cents, payment.currency),
    t(`provider.${payment.provider}`),
    payment.reference ? code(payment.reference) : '–',
    time(payment.created_at, zone),
    time(payment.updated_at, zone),
  ]);
  const columns = ['payments.status', 'payments.amount', 'payments.provider', 'payments.reference', 'payments.created', 'payments.updated'].map((key) => ({ title: t(key), class: key === 'payments.amount' ? 'number' : '' }));
  return h('section', { class: 'card' }, h('h2', {}, t('payments.title')), rows.length > 0 ? table({ label: t('payments.title'), columns, rows }) : h('p', { class: 'soft' }, t('payments.none')));
}

/** @param {MerchantOrder} order @param {OrderChange[]} changes @param {string} zone */
function changesPart(order, changes, zone) {
  const line = (/** @type {Node | string} */ at, /** @type {(Node | string)[]} */ ...what) => h('li', {}, h('span', { class: 'soft' }, at), h('span', {}, ...what));
  const who = (/** @type {OrderChange} */ { by, username, user_id }) => {
    const name = username ?? (user_id === null ? '' : t('user.unknown', { id: user_id }));
    return name && (by === 'buyer' || by === 'admin') ? `${t(`by.${by}`)} (${name})` : t(`by.${by}`);
  };
  return h(
    'section',
    { class: 'card' },
    h('h2', {}, t('history.title')),
    h(
      'ol',
      { class: 'history' },
      line(time(order.created_at, zone), t('history.created')),
      ...changes.map((change) => line(time(change.at, zone), orderBadge(change.from), ' → ', orderBadge(change.to), ' ', t('history.by', { who: who(change) }), ...(change.reason ? [' · ', h('q', { translate: 'no' }, change.reason)] : []))),
    ),
  );
}
