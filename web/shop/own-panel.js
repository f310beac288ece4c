// An order of the buyer's own: what it is, until when it must be paid, and what can be done.

import { clock } from '../lib/clock.js';
import { confirmDialog } from '../lib/dialog.js';
import { h, setText, verbatim } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { instant, money, shortId, shortSpan } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { rich, t } from '../lib/text.js';
import { cancel, LAST_PAYMENT_MS, pay } from './own-orders.js';

/** The second click of a double click on "buy" must not pay. */
const DEAF_MS = 700;

/**
 * @typedef {import('./own-orders.js').Order} Order
 * @param {Order} order
 * @param {{
 *   settings: import('./settings.js').Settings | null,
 *   isOld?: boolean,
 *   level?: 'h1' | 'h2',
 *   hasLink?: boolean,
 *   onOrder: (order: Order) => void,
 * }} options  `isOld`: the buyer had it before this click
 * @returns {{element: HTMLElement, tick: (now: number) => void, focus: () => void}}
 */
export function ownPanel(order, { settings, isOld = false, level = 'h2', hasLink = false, onOrder }) {
  const { status } = order;
  const due = status === 'unpaid' && order.expires_at ? Date.parse(order.expires_at) : null;
  const timer = h('span', { role: 'timer', translate: 'no', class: 'own-timer' });
  const heading = h(level, { tabindex: -1, class: 'own-title' });
  const sentence = h('p', null);
  const id = () => (hasLink ? h('a', { href: `/shop/orders/${order.id}`, translate: 'no' }, shortId(order.id)) : verbatim(shortId(order.id)));

  /** @param {boolean} isOver */
  const headline = (isOver) => {
    const old = isOld && status !== 'rejected' ? `${t('own.already')} ` : '';
    if (isOver) return [t('own.over')];
    if (status === 'unpaid') return due ? [old, ...rich(isOld ? 'own.pay_within' : 'own.yours_pay_within', { time: timer })] : [old, t(isOld ? 'own.not_paid' : 'own.yours')];
    if (status === 'rejected') return [t('own.rejected', { reason: t(`order.reason.${order.reason ?? 'late'}`) })];
    return [old, t(`own.${status}`)];
  };

  const total = money(order.total_cents, order.currency);
  const line = h('p', { class: 'own-what' },
    h('span', null, order.quantity > 1 ? t('own.units', { n: order.quantity, name: order.product_name }) : order.product_name),
    h('strong', { class: 'number' }, total));

  const payButton = status === 'unpaid' && settings && settings.payments !== 'none' ? h('button', { type: 'button', class: 'button primary large wide' }, t('own.pay', { total })) : null;
  const shownAt = performance.now();
  payButton?.addEventListener('click', async () => {
    if (payButton.getAttribute('aria-disabled') === 'true' || performance.now() - shownAt < DEAF_MS) return;
    notice.clear();
    payButton.setAttribute('aria-disabled', 'true');
    payButton.setAttribute('aria-busy', 'true');
    try {
      await pay(order.id);
    } catch (error) {
      notice.fail(explain(error));
      payButton.removeAttribute('aria-disabled');
    }
    payButton.removeAttribute('aria-busy');
  });

  const cancelButton = status === 'unpaid' ? h('button', { type: 'button', class: 'quiet' }, t('own.cancel')) : null;
  cancelButton?.addEventListener('click', () => {
    void confirmDialog({
      title: t('own.cancel_title'),
      body: t('own.cancel_body', { name: order.product_name }),
      action: t('own.cancel'),
      danger: true,
      run: async () => onOrder(await cancel(order.id)),
    });
  });

  const kind = { queued: '', unpaid: '', paid: ' own-good', cancelled: ' own-over', expired: ' own-over', rejected: ' own-over' }[status];
  const element = h('section', { class: `own card${kind}`, data: { status } }, heading, line, sentence, payButton, cancelButton && h('div', { class: 'cluster own-more' }, cancelButton));

  /** @type {boolean | null} */
  let wasOver = null;

  /** @param {number} now */
  const tick = (now) => {
    const rest = due === null ? Infinity : due - now;
    const isOver = rest <= 0;
    if (isOver !== wasOver) {
      wasOver = isOver;
      heading.replaceChildren(...headline(isOver));
      sentence.replaceChildren(...sentenceOf(order, settings, isOver, id()));
      element.classList.toggle('own-late', isOver);
    }
    if (due !== null) setText(timer, shortSpan(rest));
    element.classList.toggle('own-soon', !isOver && rest < 60_000);
    if (payButton && rest < LAST_PAYMENT_MS && payButton.getAttribute('aria-busy') !== 'true') {
      payButton.setAttribute('aria-disabled', 'true');
      setText(payButton, t('own.too_late'));
    }
    if (cancelButton) cancelButton.hidden = isOver;
  };
  tick(clock.now());
  return { element, tick, focus: () => heading.focus() };
}

/**
 * @param {Order} order
 * @param {import('./settings.js').Settings | null} settings
 * @param {boolean} isOver
 * @param {Node} id
 */
function sentenceOf(order, settings, isOver, id) {
  if (isOver) return rich('own.over_more', { id });
  switch (order.status) {
    case 'unpaid':
      if (settings?.payments === 'none') return rich('own.shop_says_how', { id });
      return order.expires_at ? rich('own.until', { id, time: moment(order.expires_at) }) : rich('own.any_time', { id });
    case 'paid':
      return rich('own.paid_more', { id, time: moment(order.paid_at ?? order.updated_at) });
    default:
      return rich(`own.${order.status}_more`, { id, time: moment(order.updated_at) });
  }
}

/** @param {string} at */
const moment = (at) => h('time', { datetime: at, translate: 'no' }, instant(at));
