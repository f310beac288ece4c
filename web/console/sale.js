/** One sale while it runs, on one screen. */

import { ApiError, api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, replace, setText } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { count, duration, instant, money, span, timeOfDay } from '../lib/format.js';
import { listenToProducts } from '../lib/stream.js';
import { t } from '../lib/text.js';
import { activityTable, readLogOf } from './activity.js';
import { deadLetters } from './dead-letters.js';
import { code, failure, figure, fill, heading, loading, saleBadge, stateOf, time } from './parts.js';
import { ratesPanel } from './rates-panel.js';
import { saleActions } from './sale-actions.js';
import { settings } from './settings.js';
import { stockBar } from './stock-bar.js';
import { range } from './words.js';

/** @import { Audit, Live, Product, Summary } from './types.js' */

/**
 * @param {HTMLElement} root
 * @param {Record<string, string>} params
 * @returns {() => void}
 */
export function salePage(root, params) {
  const id = Number(params.id);
  /** @type {(() => void)[]} */
  const stops = [];
  let isLeft = false;
  const begin = async () => {
    replace(root, loading());
    try {
      const [{ body }, { time_zone }] = await Promise.all([api.get(`/admin/products/${id}`), settings()]);
      if (!isLeft) stops.push(...show(root, body, time_zone));
    } catch (error) {
      if (!isLeft) replace(root, heading(t('sale.title')), failure(error, () => void begin()));
    }
  };
  void begin();
  return () => {
    isLeft = true;
    stops.forEach((stop) => stop());
  };
}

/**
 * @param {HTMLElement} root
 * @param {Product} first
 * @param {string} zone
 * @returns {(() => void)[]}
 */
function show(root, first, zone) {
  let product = first;
  let isPaused = false;
  let isReading = false;
  /** @type {number | null} */
  let heardAt = null;
  let letters = 0;
  let hasLeft = false;
  let stopStream = () => {};

  const title = h('h1', { tabindex: '-1' });
  const state = h('span', { class: 'state' });
  const terms = h('p', { class: 'soft terms' });
  const countdown = countdownCard(zone);
  const bar = stockBar();
  const rates = ratesPanel();
  const revenue = figure(t('sale.revenue'), { big: true });
  const figures = {
    refund_due: figure(t('sale.refund_due')),
    expired: figure(t('sale.expired')),
    cancelled: figure(t('sale.cancelled')),
    rejected: figure(t('sale.rejected')),
  };
  const pipe = {
    in_flight: figure(t('pipe.in_flight'), { hint: t('pipe.in_flight.hint') }),
    oldest: figure(t('pipe.oldest'), { hint: t('pipe.oldest.hint') }),
    queue: figure(t('pipe.queue'), { hint: t('pipe.queue.hint') }),
    dead: figure(t('pipe.dead'), { hint: t('pipe.dead.hint') }),
    listeners: figure(t('pipe.listeners'), { hint: t('pipe.listeners.hint') }),
  };
  const asOf = h('span', { class: 'as-of soft', translate: 'no' });
  const trouble = h('p', { class: 'trouble', role: 'status' });
  const hold = h('button', { type: 'button', class: 'button small', aria: { pressed: 'false' }, data: { action: 'hold' }, on: { click: () => holdOrGoOn() } }, t('updates.pause'));
  const ordersLink = h('a', { href: `/console/orders?product_id=${product.id}`, class: 'quiet-link' }, t('sale.orders'));
  const look = h('a', { href: `/shop/sales/${product.id}`, class: 'quiet-link' }, t('sale.look'));
  const audit = auditPart(product.id);
  const actions = saleActions({ product: () => product, zone, changed: (changed) => take(changed, true) });
  const letterBox = h('div', {});
  /** @type {ReturnType<typeof deadLetters> | null} */
  let letterList = null;
  const logPlace = h('div', {});
  const log = fill(
    logPlace,
    (signal) => readLogOf(product.id, signal),
    ({ actions: done, isWhole }) => [
      done.length > 0 ? activityTable(done, zone, { withObject: false }) : h('p', { class: 'soft' }, t('log.none')),
      isWhole ? null : h('p', { class: 'soft' }, t('log.older'), ' ', h('a', { href: '/console/log' }, t('log.title'))),
    ],
  );

  const holdOrGoOn = () => {
    isPaused = !isPaused;
    hold.setAttribute('aria-pressed', String(isPaused));
    hold.textContent = t(isPaused ? 'updates.resume' : 'updates.pause');
    if (!isPaused) {
      rates.show();
      void read();
    }
    sayAge();
  };

  const sayAge = () => {
    if (isPaused) setText(asOf, heardAt === null ? t('updates.paused') : t('updates.paused_at', { time: timeOfDay(heardAt, zone) }));
    else setText(asOf, heardAt === null ? '' : t('updates.as_of', { time: timeOfDay(heardAt, zone) }));
  };

  const showProduct = () => {
    const { name, price_cents, currency, starts_at, ends_at, max_per_order, max_per_address, payment_window_seconds } = product;
    setText(title, name);
    document.title = t('console.title', { page: name });
    replace(state, saleBadge(stateOf(product)));
    look.hidden = product.draft === true;
    const pay = payment_window_seconds === null ? t('sale.no_deadline') : t('sale.pay_within', { time: span(payment_window_seconds * 1000) });
    // An instance of an earlier version does not know it.
    const share = max_per_address == null ? [] : [t('sale.share', { n: max_per_address })];
    setText(terms, [money(price_cents, currency), t('sale.each', { n: max_per_order }), ...share, pay, range(starts_at, ends_at, zone, t('sale.open_ended'))].join(' · '));
    actions.update();
    countdown.update(product);
  };

  const take = (/** @type {Product} */ next, /** @type {boolean} */ isOurs) => {
    const wasDraft = product.draft;
    product = next;
    if (wasDraft && !product.draft) listen();
    showProduct();
    if (isOurs) {
      log.again();
      void read();
    }
  };

  const showSummary = (/** @type {Summary} */ summary) => {
    bar.update(summary);
    setText(revenue.value, summary.currency === null ? t('sale.several_currencies') : money(summary.revenue_cents, summary.currency));
    for (const [name, { value, node }] of Object.entries(figures)) {
      const units = summary[/** @type {keyof typeof figures} */ (name)];
      setText(value, count(units));
      if (name === 'refund_due' || name === 'rejected') node.classList.toggle('is-bad', units > 0);
    }
  };

  const showLive = (/** @type {Live} */ live) => {
    setText(pipe.in_flight.value, live.in_flight === null ? '–' : count(live.in_flight));
    const waits = live.in_flight ? (live.oldest_in_flight_seconds ?? 0) : 0;
    setText(pipe.oldest.value, live.in_flight ? t('seconds', { n: waits < 10 ? waits.toFixed(1) : String(Math.floor(waits)) }) : '–');
    setText(pipe.queue.value, live.queue_messages === null ? '–' : count(live.queue_messages));
    setText(pipe.dead.value, live.dead_letters === null ? '–' : count(live.dead_letters));
    setText(pipe.listeners.value, count(live.listeners));
    pipe.oldest.node.classList.toggle('is-bad', waits >= 10);
    pipe.dead.node.classList.toggle('is-bad', (live.dead_letters ?? 0) > 0);
    const dead = live.dead_letters ?? 0;
    if (dead !== letters || (dead > 0 && !letterList)) {
      letters = dead;
      if (dead > 0 && !letterList) {
        letterList = deadLetters(zone, () => void read());
        replace(letterBox, h('section', { class: 'card' }, h('h2', {}, t('letters.title')), letterList.node));
      } else letterList?.again();
    }
  };

  /** Once a second. One look at a time; a slow one is not overtaken. */
  const read = async () => {
    if (isReading || hasLeft || document.hidden) return;
    isReading = true;
    const wanted = isPaused ? null : api.get(`/admin/products/${product.id}/summary`, { timeout: 5_000 });
    try {
      // Rates need each second, also while nothing moves on the screen.
      const [live, summary] = await Promise.all([api.get('/admin/live', { timeout: 5_000 }), wanted]);
      if (hasLeft) return;
      rates.add(live.body, !isPaused);
      clock.heard(live.body.server_time);
      setText(trouble, '');
      if (summary && !isPaused) {
        heardAt = Date.parse(live.body.server_time);
        showLive(live.body);
        showSummary(summary.body);
      }
    } catch (error) {
      if (hasLeft) return;
      rates.miss(!isPaused);
      const since = heardAt === null ? '' : ` ${t('updates.stale', { time: timeOfDay(heardAt, zone) })}`;
      setText(trouble, explain(error) + since);
    } finally {
      isReading = false;
    }
    sayAge();
  };

  const refresh = async () => {
    try {
      take((await api.get(`/admin/products/${product.id}`)).body, false);
    } catch {
      // The next event asks again.
    }
  };
  const listen = () => {
    stopStream();
    // Nothing is told of a draft.
    if (product.draft) return;
    stopStream = listenToProducts([product.id], {
      onProduct: (heard) => {
        if (heard.revision !== product.revision) void refresh();
        else if (heard.state !== product.state || heard.sold_out_at !== product.sold_out_at) take({ ...product, ...heard }, false);
        else product = { ...product, ...heard };
      },
      onState: () => {},
    });
  };

  replace(
    root,
    h('nav', { class: 'crumbs', aria: { label: t('nav.where') } }, h('a', { href: '/console' }, t('sales.title'))),
    h('header', { class: 'page-head sale-head' }, title, state, h('span', { class: 'sale-links' }, h('a', { href: `/console/sales/${product.id}/edit`, class: 'button' }, t('sale.edit')), look), terms),
    h('div', { class: 'controls' }, actions.node, h('div', { class: 'updates' }, asOf, hold)),
    trouble,
    h(
      'div',
      { class: 'sale-grid' },
      h('div', { class: 'side' }, countdown.node,
        h('section', { class: 'card money-card', aria: { label: t('sale.money') } }, h('dl', { class: 'figures figures-pairs' }, revenue.node, ...Object.values(figures).map(({ node }) => node)), ordersLink)),
      h('section', { class: 'card stock-card' }, bar.node, audit),
      h('section', { class: 'card rates-card' }, h('div', { class: 'section-head' }, h('h2', {}, t('rate.title')), h('p', { class: 'soft' }, t('rate.scope'))), rates.node),
      h('section', { class: 'card pipe-card' }, h('h2', {}, t('pipe.title')), h('dl', { class: 'figures figures-list' }, ...Object.values(pipe).map(({ node }) => node))),
    ),
    letterBox,
    h('section', { class: 'card' }, h('h2', {}, t('log.of_sale')), logPlace),
  );
  showProduct();
  listen();
  void read();
  const stopClock = clock.every(1_000, () => {
    countdown.tick();
    void read();
  });
  return [stopClock, () => stopStream(), log.stop, () => letterList?.stop(), () => (hasLeft = true)];
}

/** The server's clock against the sale's window. @param {string} zone */
function countdownCard(zone) {
  const label = h('p', { class: 'countdown-label' });
  const digits = h('p', { class: 'countdown', role: 'timer', translate: 'no' });
  const sold = h('p', { class: 'sold-out' });
  const at = h('p', { class: 'soft' });
  const now = h('p', { class: 'soft now', translate: 'no' });
  /** @type {Product | null} */
  let product = null;

  const tick = () => {
    if (!product) return;
    const time = clock.now();
    const starts = Date.parse(product.starts_at);
    const ends = product.ends_at === null ? null : Date.parse(product.ends_at);
    setText(now, t('countdown.now', { time: timeOfDay(time, zone) }));
    const phase = time < starts ? 'opens' : ends !== null && time >= ends ? 'ended' : ends === null ? 'open' : 'ends';
    setText(label, t(`countdown.${phase}`));
    const shown = { opens: starts - time, ended: time - (ends ?? time), open: time - starts, ends: (ends ?? time) - time }[phase];
    // Up to the next second, so that nought is reached when it is so, and not a second before.
    setText(digits, span(phase === 'opens' || phase === 'ends' ? Math.ceil(shown / 1000) * 1000 : Math.floor(shown / 1000) * 1000));
    const mark = phase === 'opens' || phase === 'open' ? product.starts_at : (product.ends_at ?? product.starts_at);
    const isSoldOut = product.sold_out_at !== null && product.remaining === 0;
    setText(sold, isSoldOut ? t('countdown.sold_out', { span: duration(Math.max(0, Date.parse(product.sold_out_at ?? '') - starts)), time: timeOfDay(product.sold_out_at ?? '', zone) }) : '');
    setText(at, instant(mark, zone));
  };
  return {
    node: h('section', { class: 'card countdown-card', aria: { label: t('countdown.title') } }, label, digits, sold, h('div', { class: 'countdown-foot' }, at, now)),
    /** @param {Product} next */
    update(next) {
      product = next;
      tick();
    },
    tick,
  };
}

/** The audit's word, on demand: it counts every order. @param {number} id */
function auditPart(id) {
  const result = h('div', { class: 'audit', role: 'status' });
  let isAsking = false;
  const ask = async () => {
    if (isAsking) return;
    isAsking = true;
    replace(result, h('p', { class: 'soft' }, t('audit.asking')));
    try {
      const audit = /** @type {Audit} */ ((await api.get(`/admin/products/${id}/audit`, { timeout: 20_000 })).body);
      const at = t('audit.at', { time: timeOfDay(clock.now()) });
      const numbers = t('audit.numbers', { taken: audit.taken === null ? '–' : count(audit.taken), live: count(audit.live_units), queued: count(audit.queued), drift: count(audit.drift) });
      if (audit.balanced) replace(result, h('p', { class: 'verdict verdict-adds' }, t('audit.balanced')), h('p', { class: 'soft' }, `${numbers} ${at}`));
      else replace(result, h('p', { class: 'verdict verdict-bad' }, t('audit.unbalanced')), h('ul', {}, ...audit.findings.map((finding) => h('li', {}, FINDINGS.has(finding) ? t(`audit.${finding}`) : code(finding)))), h('p', { class: 'soft' }, `${numbers} ${at}`));
    } catch (error) {
      const isUnknown = error instanceof ApiError && error.status === 404;
      replace(result, h('p', { class: 'field-error' }, isUnknown ? t('audit.gone') : explain(error)));
    } finally {
      isAsking = false;
    }
  };
  return h('div', { class: 'audit-part' }, h('button', { type: 'button', class: 'button small', data: { action: 'audit' }, on: { click: () => void ask() } }, t('audit.ask')), result);
}

const FINDINGS = new Set(['gate_not_open', 'gate_deposed', 'gate_newer', 'gate_behind', 'gate_ahead', 'stock_differs', 'sold_differs', 'counts_differ', 'oversold', 'units_differ', 'remaining_differs']);
