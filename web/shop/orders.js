// The buyer's orders.

import { api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, setText } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { instant, money, shortId, shortSpan } from '../lib/format.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { rich, t } from '../lib/text.js';
import { orderBadge } from './badges.js';
import { titled } from './frame.js';
import { logInAddress } from './intent.js';

/** @typedef {import('./own-orders.js').Order} Order */

/** @type {import('../lib/router.js').Page} */
export async function ordersPage(root) {
  titled(t('orders.title'));
  if (!session.user()) {
    router.go(logInAddress(), { isReplacement: true });
    return;
  }
  const heading = h('h1', null, t('orders.title'));
  const list = h('ul', { class: 'orders' });
  const more = h('button', { type: 'button', class: 'button', hidden: true }, t('list.more'));
  root.replaceChildren(heading, h('div', { class: 'skeleton skeleton-row' }));
  /** @type {((now: number) => void)[]} */
  let ticks = [];
  /** @type {string | null} */
  let next = null;
  const abort = new AbortController();

  /** @param {boolean} isMore */
  const load = async (isMore) => {
    const cursor = isMore && next ? `&cursor=${encodeURIComponent(next)}` : '';
    const page = (await api.get(`/orders?limit=20${cursor}`, { signal: abort.signal })).body;
    next = page.next_cursor;
    more.hidden = next === null;
    const rows = page.items.map((/** @type {Order} */ order) => row(order));
    if (!isMore) ticks = [];
    ticks.push(...rows.map((/** @type {ReturnType<typeof row>} */ one) => one.tick));
    if (isMore) list.append(...rows.map((/** @type {ReturnType<typeof row>} */ one) => one.element));
    else list.replaceChildren(...rows.map((/** @type {ReturnType<typeof row>} */ one) => one.element));
  };
  const failed = (/** @type {unknown} */ error) => {
    if (abort.signal.aborted || !session.user()) return;
    const again = h('button', { type: 'button', class: 'button primary', on: { click: () => void router.again() } }, t('list.again'));
    root.replaceChildren(heading, h('section', { class: 'empty' }, h('p', { role: 'alert' }, explain(error)), again));
  };
  more.addEventListener('click', () => void load(true).catch(failed));
  try {
    await load(false);
  } catch (error) {
    if (!session.user()) router.go(logInAddress('/shop/orders'), { isReplacement: true });
    else failed(error);
    return;
  }
  if (list.children.length === 0) {
    root.replaceChildren(heading, h('section', { class: 'empty' }, h('h2', null, t('orders.none')), h('p', { class: 'soft' }, t('orders.none_more')), h('a', { href: '/shop', class: 'button primary' }, t('not_found.sales'))));
  } else {
    root.replaceChildren(heading, list, more);
  }
  const stopTicking = clock.every(1000, (now) => ticks.forEach((tick) => tick(now)));
  const onVisible = () => {
    if (!document.hidden) void load(false).catch(() => {});
  };
  document.addEventListener('visibilitychange', onVisible);
  const stopSession = session.on('change', (user) => {
    if (!user) router.go('/shop');
  });
  return () => {
    abort.abort();
    stopTicking();
    stopSession();
    document.removeEventListener('visibilitychange', onVisible);
  };
}

/** @param {Order} order */
function row(order) {
  const timer = h('span', { role: 'timer', translate: 'no' });
  const due = order.status === 'unpaid' && order.expires_at ? Date.parse(order.expires_at) : null;
  const line = h('p', { class: 'soft number' });
  if (due !== null) line.append(...rich('orders.pay_within', { time: timer }));
  else line.append(h('time', { datetime: order.created_at, translate: 'no' }, instant(order.created_at)));
  const name = order.quantity > 1 ? t('own.units', { n: order.quantity, name: order.product_name }) : order.product_name;
  const element = h('li', { class: 'order-row card' },
    h('div', { class: 'order-row-text' }, h('h2', null, h('a', { href: `/shop/orders/${order.id}` }, name)), line, h('p', { class: 'soft small' }, t('orders.number'), ' ', h('span', { class: 'mono', translate: 'no' }, shortId(order.id)))),
    h('div', { class: 'order-row-side' }, orderBadge(order.status), h('p', { class: 'number order-row-total', translate: 'no' }, money(order.total_cents, order.currency))));
  return {
    element,
    tick(/** @type {number} */ now) {
      if (due !== null) setText(timer, shortSpan(due - now));
    },
  };
}
