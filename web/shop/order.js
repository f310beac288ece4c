// One order: what became of it, by its own events.

import { api, ApiError } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { instant, money } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { listenToOrder } from '../lib/stream.js';
import { t } from '../lib/text.js';
import { orderBadge } from './badges.js';
import { titled } from './frame.js';
import { logInAddress } from './intent.js';
import { notFoundPage } from './not-found.js';
import { isLive, isOpen } from './own-orders.js';
import { ownPanel } from './own-panel.js';
import { settings as shopSettings } from './settings.js';

/**
 * @typedef {import('./own-orders.js').Order} Order
 * @typedef {import('./own-orders.js').Payment} Payment
 */

/** @type {import('../lib/router.js').Page} */
export async function orderPage(root, params) {
  titled(t('order.title'));
  if (!session.user()) {
    router.go(logInAddress(), { isReplacement: true });
    return;
  }
  const id = params.id ?? '';
  if (!/^[0-9a-f-]{36}$/.test(id)) return notFoundPage(root);
  const abort = new AbortController();
  root.replaceChildren(h('h1', { class: 'unseen' }, t('order.title')), h('div', { class: 'skeleton skeleton-panel' }));
  /** @type {Order} */
  let order;
  try {
    order = await readSurely(id, abort.signal, root);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return notFoundPage(root);
    if (!session.user()) router.go(logInAddress(`/shop/orders/${id}`), { isReplacement: true });
    else root.replaceChildren(h('section', { class: 'empty' }, h('h1', null, t('order.title')), h('p', { role: 'alert' }, explain(error))));
    return;
  }
  const settings = await shopSettings().catch(() => null);

  const place = h('div', null);
  const money_ = h('div', { class: 'stack' });
  const facts = h('dl', { class: 'facts' });
  const lost = h('p', { class: 'callout callout-warn' });
  root.replaceChildren(h('div', { class: 'order' }, lost, place, money_, h('section', { class: 'card stack' }, h('h2', null, t('order.facts')), facts), h('p', { class: 'cluster' }, h('a', { href: '/shop/orders' }, t('order.all')))));

  /** @type {ReturnType<typeof ownPanel> | null} */
  let panel = null;
  const show = () => {
    titled(`${t(`order.status.${order.status}`)}: ${order.product_name}`);
    const hadFocus = place.contains(document.activeElement);
    panel = ownPanel(order, { settings, level: 'h1', onOrder: became });
    place.replaceChildren(panel.element);
    if (hadFocus) panel.focus();
    facts.replaceChildren(...factsOf(order));
    void showPayments();
  };
  const showPayments = async () => {
    if (order.status === 'queued' || order.status === 'rejected') return;
    try {
      /** @type {Payment[]} */
      const payments = (await api.get(`/orders/${id}/payments`, { signal: abort.signal })).body.items;
      money_.replaceChildren(...payments.flatMap(ofPayment));
    } catch {
      // It says more than the order does, and is not needed for anything.
    }
  };
  /** @param {Order} next */
  function became(next) {
    if (order.status !== 'queued' && next.status === 'queued') return;
    const isOther = next.status !== order.status || next.expires_at !== order.expires_at;
    order = next;
    if (!isOther) return;
    show();
    notice.announce(t(`sale.order_became.${order.status}`));
  }
  show();
  const stopTicking = clock.every(1000, (now) => panel?.tick(now));
  // A dead order may come to life again by money that comes late, so it is listened to as well.
  const stopListening = listenToOrder(id, {
    onOrder: became,
    onState: (state) => lost.replaceChildren(...(state === 'lost' && isOpen(order) ? [t('order.lost')] : [])),
  });
  const stopSession = session.on('change', (user) => {
    if (!user) router.go(session.hasExpired() ? logInAddress(`/shop/orders/${id}`) : '/shop');
  });
  return () => {
    abort.abort();
    stopTicking();
    stopListening();
    stopSession();
  };
}

/**
 * An order that was promised is there, if not at once.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {HTMLElement} root
 * @returns {Promise<Order>}
 */
async function readSurely(id, signal, root) {
  const here = location.pathname;
  for (let failures = 0; ; failures += 1) {
    try {
      return (await api.get(`/orders/${id}`, { signal })).body;
    } catch (error) {
      if (error instanceof ApiError && error.status < 429) throw error;
      if (location.pathname !== here) throw error;
      root.replaceChildren(h('h1', null, t('order.title')), h('p', { class: 'soft' }, t('sale.no_answer')), h('div', { class: 'skeleton skeleton-panel' }));
      await new Promise((resolve) => setTimeout(resolve, (Math.min(15, 2 ** failures) + Math.random()) * 1000));
    }
  }
}

/**
 * @param {Order} order
 * @returns {HTMLElement[]}
 */
function factsOf(order) {
  /** @type {[string, Node | string][]} */
  const rows = [
    ['order.number', h('span', { class: 'mono', translate: 'no' }, order.id)],
    ['order.state', orderBadge(order.status)],
    ['order.product', h('a', { href: `/shop/sales/${order.product_id}` }, order.product_name)],
    ['order.price', h('span', { translate: 'no' }, money(order.price_cents, order.currency))],
    ['order.quantity', h('span', { translate: 'no' }, String(order.quantity))],
    ['order.total', h('strong', { translate: 'no' }, money(order.total_cents, order.currency))],
    ['order.created', moment(order.created_at)],
  ];
  if (order.expires_at && order.status === 'unpaid') rows.push(['order.pay_until', moment(order.expires_at)]);
  if (order.paid_at) rows.push(['order.paid_at', moment(order.paid_at)]);
  if (!isLive(order)) rows.push(['order.over_at', moment(order.updated_at)]);
  return rows.flatMap(([key, value]) => [h('dt', null, t(key)), h('dd', null, value)]);
}

/**
 * What is to be said of a payment: money that goes back, and one that failed.
 * @param {Payment} payment
 */
function ofPayment(payment) {
  const amount = money(payment.amount_cents, payment.currency);
  if (payment.status === 'refund_due') return [h('p', { class: 'callout callout-warn' }, t('order.refund_due', { amount }))];
  if (payment.status === 'refunded') return [h('p', { class: 'callout callout-good' }, t('order.refunded', { amount }))];
  if (payment.status === 'failed') return [h('p', { class: 'callout' }, t('order.failed', { amount }))];
  return [];
}

/** @param {string} at */
const moment = (at) => h('time', { datetime: at, translate: 'no' }, instant(at));
