// The page of a sale: when it opens, what is left, and one button.

import { api, ApiError, Offline } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, setText, verbatim } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { count, duration, instant, money, shortId, span, timeOfDay } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { listenToOrder, listenToProducts } from '../lib/stream.js';
import { rich, t } from '../lib/text.js';
import { saleBadge } from './badges.js';
import { titled } from './frame.js';
import { intent, logInAddress } from './intent.js';
import { notFoundPage } from './not-found.js';
import { findOrderSurely, isLive, isOpen, orderOf } from './own-orders.js';
import { ownPanel } from './own-panel.js';
import { picture } from './picture.js';
import { merged, saleState, soldOutWithin } from './product.js';
import { purchase } from './purchase.js';
import { settings as shopSettings } from './settings.js';

/**
 * @typedef {import('./product.js').Product} Product
 * @typedef {import('./product.js').SaleState} SaleState
 * @typedef {import('./own-orders.js').Order} Order
 * @typedef {import('./purchase.js').Attempt} Attempt
 */

/** What is said to those who do not see the countdown. */
const MILESTONES_MS = [5 * 60_000, 60_000, 10_000];
/** Who is logged in should be so a while after the start. */
const LOG_IN_LASTS_MS = 60_000;
/** A short loss of the connection is nobody's business. */
const LOST_SAID_AFTER_MS = 2000;

/** @type {import('../lib/router.js').Page} */
export async function salePage(root, params) {
  const id = Number(params.id);
  if (!Number.isSafeInteger(id) || id < 1) return notFoundPage(root);
  const abort = new AbortController();
  root.replaceChildren(skeleton());
  titled(t('sale.loading'));
  // The page is left while this is loaded: then it is stopped at once, and nothing was begun.
  const [product] = await Promise.all([load(id, abort.signal, root), clock.ready()]);
  if (!product) return notFoundPage(root);
  const page = new SalePage(product);
  root.replaceChildren(page.element);
  page.start();
  return () => {
    abort.abort();
    page.stop();
  };
}

/**
 * The product, asked for until there is an answer.
 * @param {number} id
 * @param {AbortSignal} signal
 * @param {HTMLElement} root
 * @returns {Promise<Product | null>} null: there is none
 */
async function load(id, signal, root) {
  const here = location.pathname;
  for (let failures = 0; ; failures += 1) {
    try {
      return (await api.get(`/products/${id}`, { signal, auth: false, isFresh: true })).body;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      if (location.pathname !== here) throw error;
      const seconds = Math.min(15, 2 ** failures) + Math.random();
      root.querySelector('.sale-lost')?.replaceChildren(t(error instanceof Offline ? 'sale.no_answer' : 'sale.busy_loading'));
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

/** What it looks like before anything is known, as large as it will be. */
function skeleton() {
  return h('article', { class: 'sale', aria: { busy: 'true' } },
    h('div', { class: 'picture skeleton' }),
    h('div', { class: 'sale-column' }, h('div', { class: 'sale-side' }, h('h1', { class: 'unseen' }, t('sale.loading')), h('p', { class: 'sale-lost soft' }), h('div', { class: 'skeleton skeleton-title' }), h('div', { class: 'skeleton skeleton-panel' }))));
}

class SalePage {
  /** @type {Product} */
  product;
  /** @type {Order | null} */
  #order = null;
  /** Whether the order was there before the click. */
  #isOld = false;
  /** @type {Attempt | null} */
  #attempt = null;
  /** @type {(() => void) | null} */
  #stopAsking = null;
  /** @type {import('./settings.js').Settings | null} */
  #settings = null;
  /** @type {SaleState | null} */
  #state = null;
  #isLost = false;
  /** When the numbers were true, by the server's clock. */
  #asOf;
  /** Whether the last refusal of this page is the thing to say, until the sale's state changes. @type {string | null} */
  #refusal = null;

  #quantity = 1;
  /** @type {ReturnType<typeof ownPanel> | null} */
  #own = null;
  #ownKey = '';
  /** @type {(() => void)[]} */
  #stops = [];
  /** @type {(() => void)[]} */
  #timers = [];
  /** @type {(() => void) | null} */
  #stream = null;
  #streamOf = '';
  #abort = new AbortController();
  #isFetching = false;
  #stopped = false;
  /** @type {string | null} */
  #hintOnce = null;
  #revision;

  #badge = h('p', { class: 'sale-badge' });
  #name = h('h1', { tabindex: -1 });
  #price = h('p', { class: 'sale-price number' });
  #image = h('div', { class: 'sale-picture' });
  #line = h('p', { class: 'sale-line' });
  #timer = h('div', { class: 'sale-timer', role: 'timer', translate: 'no', aria: { labelledby: 'sale-line' } });
  #when = h('p', { class: 'sale-when soft' });
  #bar = h('span', { class: 'bar', aria: { hidden: 'true' } }, h('span', null));
  #stock = h('p', { class: 'sale-stock' });
  #lost = h('p', { class: 'callout callout-warn sale-lost' });
  #note = h('p', { class: 'callout sale-note' });
  #ownPlace = h('div', { class: 'sale-own' });
  #panel;
  #text = h('p', { class: 'sale-text' });
  #act;
  #choose;
  #less;
  #more;
  #number = h('output', { class: 'quantity-number number', aria: { live: 'off' } });
  #button;
  #stop;
  #hint = h('p', { class: 'sale-hint soft' });

  /** @param {Product} product */
  constructor(product) {
    this.product = product;
    this.#revision = product.revision;
    this.#asOf = product.server_time ? Date.parse(product.server_time) : clock.now();
    this.#line.id = 'sale-line';
    this.#hint.id = 'sale-hint';
    this.#less = h('button', { type: 'button', class: 'button', aria: { label: t('sale.fewer') }, on: { click: () => this.#choose_(-1) } }, '−');
    this.#more = h('button', { type: 'button', class: 'button', aria: { label: t('sale.more') }, on: { click: () => this.#choose_(1) } }, '+');
    this.#choose = h('div', { class: 'quantity', role: 'group', aria: { label: t('sale.quantity') } }, this.#less, this.#number, this.#more);
    this.#button = h('button', { type: 'button', class: 'button primary large sale-button', id: 'buy', aria: { describedby: 'sale-hint' }, on: { click: () => this.#click() } });
    this.#stop = h('button', { type: 'button', class: 'quiet', on: { click: () => this.#stopAsking?.() } }, t('sale.stop'));
    this.#panel = h('section', { class: 'sale-panel card', aria: { label: t('sale.panel') } }, this.#line, this.#timer, this.#when, this.#bar, this.#stock, this.#lost);
    this.#act = h('div', { class: 'sale-act' }, h('div', { class: 'sale-act-row' }, this.#choose, this.#button), this.#hint, this.#stop);
    this.element = h('article', { class: 'sale' }, this.#image, h('div', { class: 'sale-column' }, h('div', { class: 'sale-side' }, h('header', { class: 'sale-head' }, this.#badge, this.#name, this.#price), this.#ownPlace, this.#note, this.#panel), this.#act), this.#text);
  }

  start() {
    const wanted = intent.take(this.product.id);
    if (wanted) this.#quantity = wanted;
    this.#describe();
    this.#schedule();
    this.#stops.push(clock.every(1000, () => this.#update()));
    this.#stops.push(session.on('change', (user) => this.#userChanged(user !== null)));
    this.#listen();
    void shopSettings().then((settings) => {
      this.#settings = settings;
      this.#ownKey = '';
      this.#update();
    }, () => {});
    if (session.user()) void this.#findOrder();
    if (wanted && session.user()) {
      this.#hintOnce = t('sale.one_more_click', { name: session.user()?.username ?? '' });
      this.#update();
      // After the router has put the focus on the heading.
      setTimeout(() => this.#button.focus(), 0);
    }
  }

  stop() {
    this.#abort.abort();
    this.#stopAsking?.();
    for (const stop of [...this.#stops, ...this.#timers]) stop();
    this.#stream?.();
    this.#stopped = true;
  }

  /** What does not change from second to second. */
  #describe() {
    const { name, description, price_cents, currency, max_per_order } = this.product;
    titled(name);
    setText(this.#name, name);
    this.#name.classList.toggle('long-name', name.length > 50);
    this.#price.replaceChildren(h('span', { translate: 'no' }, money(price_cents, currency)), ...(max_per_order > 1 ? [h('small', { class: 'soft' }, t('sale.at_most', { n: max_per_order }))] : []));
    setText(this.#text, description);
    this.#text.hidden = description.trim() === '';
    this.#image.replaceChildren(picture(this.product, 'eager'));
    this.#quantity = Math.min(this.#quantity, max_per_order);
  }

  /** The moments at which the page changes without anybody's word. */
  #schedule() {
    for (const stop of this.#timers) stop();
    const starts = Date.parse(this.product.starts_at);
    const now = clock.now();
    this.#timers = MILESTONES_MS.filter((ms) => starts - ms > now).map((ms) =>
      clock.at(starts - ms, () => notice.announce(t('sale.opens_in_words', { time: duration(ms) }))),
    );
    if (starts > now) this.#timers.push(clock.at(starts, () => this.#update()));
    const ends = this.product.ends_at ? Date.parse(this.product.ends_at) : 0;
    if (ends > now) this.#timers.push(clock.at(ends, () => this.#update()));
  }

  /** One connection at a time: of the own order while something may become of it, else of the sale. */
  #listen() {
    if (this.#stopped) return;
    const order = this.#order;
    const wanted = order && isOpen(order) ? `order ${order.id}` : order?.status === 'paid' ? 'nothing' : 'product';
    if (wanted === this.#streamOf) return;
    this.#stream?.();
    this.#streamOf = wanted;
    this.#isLost = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let saying;
    const onState = (/** @type {string} */ state) => {
      clearTimeout(saying);
      this.#isLost = state === 'lost';
      if (this.#isLost) saying = setTimeout(() => this.#isLost && notice.announce(t('sale.lost_announced')), LOST_SAID_AFTER_MS);
      this.#update();
    };
    if (wanted === 'nothing') this.#stream = null;
    else if (wanted === 'product') this.#stream = listenToProducts([this.product.id], { onProduct: (event) => this.#heard(event), onState });
    else if (order) this.#stream = listenToOrder(order.id, { onOrder: (next) => this.#own_(next), onState });
  }

  /** @param {import('../lib/stream.js').ProductEvent} event */
  #heard(event) {
    const before = this.product;
    this.product = merged(before, event);
    this.#asOf = Date.parse(event.server_time);
    if (before.starts_at !== event.starts_at || before.ends_at !== event.ends_at) this.#schedule();
    if (event.revision !== this.#revision) {
      this.#revision = event.revision;
      // Everybody hears of it in the same moment.
      setTimeout(() => void this.#fetch(), Math.random() * 1500);
    }
    this.#update();
  }

  async #fetch() {
    if (this.#isFetching || this.#stopped) return;
    this.#isFetching = true;
    try {
      this.product = (await api.get(`/products/${this.product.id}`, { signal: this.#abort.signal, auth: false, isFresh: true })).body;
      this.#revision = this.product.revision;
      this.#asOf = this.product.server_time ? Date.parse(this.product.server_time) : clock.now();
      this.#describe();
      this.#schedule();
      this.#update();
    } catch {
      // The stream goes on and says when there is something new.
    }
    this.#isFetching = false;
  }

  /** @param {boolean} isLoggedIn */
  #userChanged(isLoggedIn) {
    if (!isLoggedIn) {
      this.#order = null;
      this.#isOld = false;
      this.#listen();
    } else {
      void this.#findOrder();
    }
    this.#update();
  }

  async #findOrder() {
    try {
      const order = await findOrderSurely(this.product.id, this.#abort.signal);
      if (order && !this.#stopped && !(this.#order && isLive(this.#order))) this.#own_(order);
      return order;
    } catch {
      return null;
    }
  }

  /** @param {Order} order what has become of the own order */
  #own_(order) {
    const before = this.#order;
    if (before?.id === order.id && before.status !== 'queued' && order.status === 'queued') return;
    const isNews = before !== null && before.id === order.id && before.status !== order.status;
    this.#order = order;
    const hadFocus = this.#ownPlace.contains(document.activeElement);
    this.#listen();
    this.#update();
    if (isNews) notice.announce(t(`sale.order_became.${order.status}`));
    if (!isLive(order) && hadFocus) this.#button.focus();
    if (before && isLive(before) && !isLive(order)) void this.#fetch();
  }

  #click() {
    if (this.#button.getAttribute('aria-disabled') === 'true') return;
    notice.clear();
    this.#hintOnce = null;
    const state = this.#now();
    if (!session.user() || state === 'upcoming') {
      if (state === 'live') intent.keep(this.product.id, this.#quantity);
      router.go(logInAddress());
      return;
    }
    this.#refusal = null;
    this.#stopAsking = purchase(this.product.id, this.#quantity, (attempt) => this.#attempted(attempt));
  }

  /** @param {Attempt} attempt */
  #attempted(attempt) {
    if (this.#stopped) return;
    const before = this.#attempt;
    this.#attempt = attempt;
    switch (attempt.is) {
      case 'asking':
        if (!before) notice.announce(t('sale.asking'));
        break;
      case 'waiting':
        if (before?.is !== 'waiting') notice.announce(t(`sale.waiting.${attempt.why}`, { n: seconds(attempt.until) }));
        break;
      case 'accepted':
        this.#over();
        this.#isOld = false;
        this.#own_(orderOf(attempt.accepted, this.product, clock.now()));
        this.#celebrate('sale.accepted');
        break;
      case 'owned':
        this.#over();
        this.#isOld = true;
        void this.#showOwned(attempt.orderId);
        break;
      case 'refused':
        this.#over();
        void this.#refused(attempt.error, attempt.mayHold);
        break;
      case 'stopped':
        this.#over();
        if (attempt.mayHold) void this.#findOrder();
        break;
    }
    this.#update();
  }

  #over() {
    this.#attempt = null;
    this.#stopAsking = null;
  }

  /** @param {string} key */
  #celebrate(key) {
    notice.announce(t(key));
    const active = document.activeElement;
    if (active === this.#button || active === document.body) this.#own?.focus();
  }

  /** @param {string} orderId the buyer holds it already: from now on its page is what counts */
  async #showOwned(orderId) {
    try {
      this.#own_((await api.get(`/orders/${orderId}`)).body);
    } catch (error) {
      // A promise all the same: what is known is shown, and the order's own stream says the rest.
      if (this.#stopped || (error instanceof ApiError && error.status === 401)) return;
      const accepted = /** @type {const} */ ({ order_id: orderId, product_id: this.product.id, status: 'queued', quantity: this.#quantity });
      this.#own_(orderOf(accepted, this.product, clock.now()));
    }
    this.#celebrate('sale.owned');
  }

  /**
   * @param {ApiError} error
   * @param {boolean} mayHold
   */
  async #refused(error, mayHold) {
    const { code, body } = error;
    if (code === 'unauthorized') {
      intent.keep(this.product.id, this.#quantity);
      router.go(logInAddress());
      return;
    }
    if (mayHold) {
      const order = await this.#findOrder();
      if (this.#stopped || (order && isLive(order))) return;
    }
    // Until the next event this is newer than what is known.
    if (code === 'sold_out') this.product = { ...this.product, remaining: 0, state: 'sold_out' };
    else if (code === 'paused') this.product = { ...this.product, paused: true, state: 'paused' };
    else if (code === 'not_enough_left') {
      this.product = { ...this.product, remaining: body.remaining };
      this.#quantity = Math.max(1, Math.min(this.#quantity, body.remaining));
      this.#refusal = t('sale.not_enough', { n: body.remaining });
    } else if (code === 'address_limit' && body.remaining > 0) {
      this.#quantity = Math.min(this.#quantity, body.remaining);
      this.#refusal = explain(error);
    } else if (code === 'ended' || code === 'not_started' || code === 'product_not_found') void this.#fetch();
    else this.#refusal = explain(error);
    if (this.#refusal) notice.announce(this.#refusal);
    this.#update();
  }

  #now() {
    return saleState(this.product, clock.now());
  }

  /** @param {number} by */
  #choose_(by) {
    if (this.#attempt) return;
    this.#quantity = Math.max(1, Math.min(this.product.max_per_order, this.#quantity + by));
    notice.announce(t('sale.chosen', { n: this.#quantity, total: money(this.product.price_cents * this.#quantity, this.product.currency) }));
    this.#update();
  }

  #update() {
    if (this.#stopped) return;
    const now = clock.now();
    const state = saleState(this.product, now);
    const isHeld = this.#order !== null && isLive(this.#order);
    if (this.#state !== state) {
      if (this.#state !== null && !isHeld) this.#announceState(state);
      this.#state = state;
      this.#refusal = null;
      this.#badge.replaceChildren(saleBadge(state));
    }
    this.#showOwn(now, isHeld);
    this.#panel.hidden = isHeld;
    this.#act.hidden = isHeld;
    if (isHeld) return;
    this.#showPanel(state, now);
    this.#showAction(state, now);
  }

  /** @param {SaleState} state */
  #announceState(state) {
    if (state === 'live') notice.announce(t(this.#state === 'upcoming' ? 'sale.open_now' : 'sale.open_again'));
    else if (state === 'sold_out') notice.announce(plain(this.#soldOut()));
    else notice.announce(t(`sale.became.${state}`));
  }

  /**
   * @param {number} now
   * @param {boolean} isHeld
   */
  #showOwn(now, isHeld) {
    const order = this.#order;
    const key = order && isHeld ? `${order.id} ${order.status} ${this.#isOld} ${order.expires_at}` : '';
    if (key !== this.#ownKey) {
      const hadFocus = this.#ownPlace.contains(document.activeElement);
      this.#ownKey = key;
      this.#own = order && isHeld ? ownPanel(order, { settings: this.#settings, isOld: this.#isOld, hasLink: true, onOrder: (next) => this.#own_(next) }) : null;
      this.#ownPlace.replaceChildren(...(this.#own ? [this.#own.element] : []));
      if (hadFocus) this.#own?.focus();
    }
    this.#own?.tick(now);
    say(this.#note, order && !isHeld ? this.#ofDead(order) : '');
  }

  /** @param {Order} order one that came to nothing */
  #ofDead(order) {
    const id = h('a', { href: `/shop/orders/${order.id}`, translate: 'no' }, shortId(order.id));
    const reason = order.status === 'rejected' ? t(`order.reason.${order.reason ?? 'late'}`) : '';
    return rich(`sale.dead.${order.status}`, { id, reason });
  }

  /**
   * @param {SaleState} state
   * @param {number} now
   */
  #showPanel(state, now) {
    const { product } = this;
    const ends = product.ends_at;
    const isRunning = state === 'upcoming' || (state === 'live' && ends !== null);
    const to = state === 'upcoming' ? product.starts_at : (ends ?? product.starts_at);
    this.#panel.dataset.state = state;
    say(this.#line, this.#sentence(state));
    this.#timer.hidden = !isRunning;
    if (isRunning) setText(this.#timer, span(Date.parse(to) - now));
    say(this.#when, this.#whenLine(state));
    const hasStock = state === 'live' || state === 'sold_out' || state === 'paused';
    this.#bar.hidden = !hasStock || state === 'sold_out';
    this.#stock.hidden = !hasStock;
    if (hasStock) {
      const part = product.stock > 0 ? Math.min(1, product.remaining / product.stock) : 0;
      this.#bar.style.setProperty('--part', `${part * 100}%`);
      const time = timeOfDay(this.#asOf);
      const left = rich('sale.left', { left: h('strong', { class: 'number', translate: 'no' }, count(product.remaining)), stock: verbatim(count(product.stock), 'number') });
      say(this.#stock, [...left, ' ', h('span', { class: 'soft', translate: 'no' }, t('sale.as_of', { time }))]);
    }
    say(this.#lost, this.#isLost ? this.#lostLine() : '');
  }

  #lostLine() {
    const refresh = h('button', { type: 'button', class: 'quiet', data: { key: 'refresh' }, on: { click: () => void this.#fetch() } }, t('sale.refresh'));
    return [t('sale.lost', { time: timeOfDay(this.#asOf) }), ' ', refresh];
  }

  /**
   * @param {SaleState} state
   * @returns {string | (Node | string)[]}
   */
  #sentence(state) {
    const attempt = this.#attempt;
    if (attempt?.is === 'asking') return t('sale.asking');
    if (attempt?.is === 'waiting') return t(`sale.waiting.${attempt.why}`, { n: seconds(attempt.until) });
    if (this.#refusal) return this.#refusal;
    switch (state) {
      case 'upcoming':
        return t('sale.opens_in');
      case 'live':
        return t(this.product.ends_at ? 'sale.open_ends_in' : 'sale.open');
      case 'sold_out':
        return this.#soldOut();
      case 'paused':
        return t('sale.paused');
      case 'ended':
        return rich('sale.ended', { time: moment(this.product.ends_at ?? this.product.starts_at) });
    }
  }

  /** All taken, for now or for good. @returns {string | (Node | string)[]} */
  #soldOut() {
    const { product } = this;
    if (product.held > 0) return t('sale.held', { n: count(product.held), count: product.held });
    if (!product.sold_out_at) return t('sale.all_taken');
    return soldOutLine(product);
  }

  /** @param {SaleState} state */
  #whenLine(state) {
    const { product } = this;
    if (state === 'upcoming') return rich('sale.opens_at', { time: moment(product.starts_at) });
    if (state === 'live' && product.ends_at) return rich('sale.ends_at', { time: moment(product.ends_at) });
    if (state === 'sold_out') return t(product.held > 0 ? 'sale.watching' : 'sale.sold_out_more');
    if (state === 'paused') return t('sale.paused_more');
    if (state === 'ended' && product.sold_out_at) return soldOutLine(product);
    return '';
  }

  /**
   * @param {SaleState} state
   * @param {number} now
   */
  #showAction(state, now) {
    const attempt = this.#attempt;
    const user = session.user();
    const expires = session.expiresAt();
    const isShort = user !== null && expires !== null && state === 'upcoming' && expires < Date.parse(this.product.starts_at) + LOG_IN_LASTS_MS;
    const isBusy = attempt?.is === 'asking';
    const isWaiting = attempt?.is === 'waiting';
    let label = t(`sale.button.${state}`);
    let hint = this.#hintOnce ?? '';
    let isEnabled = state === 'live';
    if (isBusy || isWaiting) {
      isEnabled = false;
      label = t(isBusy ? 'sale.button.asking' : 'sale.button.waiting');
    } else if (state === 'upcoming' && (!user || isShort)) {
      isEnabled = true;
      label = t(user ? 'sale.button.log_in_again' : 'sale.button.log_in');
      hint = user ? t('sale.log_in_ends', { time: timeOfDay(expires ?? now) }) : t('sale.log_in_now');
    } else if (state === 'upcoming') {
      hint = t('sale.ready', { name: user?.username ?? '' });
    }
    if (this.#settings?.users === 'external' && !user) {
      hint = t('sale.external');
    }
    setText(this.#button, label);
    setState(this.#button, 'aria-disabled', !isEnabled);
    setState(this.#button, 'aria-busy', isBusy);
    setText(this.#hint, hint);
    this.#stop.hidden = !isWaiting;
    const isChosen = this.product.max_per_order > 1 && state !== 'ended';
    this.#choose.hidden = !isChosen;
    if (isChosen) {
      setText(this.#number, `× ${this.#quantity}`);
      setState(this.#less, 'aria-disabled', isBusy || isWaiting || this.#quantity <= 1);
      setState(this.#more, 'aria-disabled', isBusy || isWaiting || this.#quantity >= this.product.max_per_order);
    }
  }
}

/** @param {Product} product when everything was sold, and how fast */
export function soldOutLine(product) {
  const within = soldOutWithin(product);
  if (!product.sold_out_at || within === null) return t('sale.sold_out');
  return rich('sale.sold_out_in', { span: duration(within), time: h('time', { datetime: product.sold_out_at, translate: 'no' }, timeOfDay(product.sold_out_at)) });
}

/** @param {string} at */
const moment = (at) => h('time', { datetime: at, translate: 'no' }, instant(at));

/** @param {number} until */
const seconds = (until) => Math.max(1, Math.ceil((until - performance.now()) / 1000));

/** @param {string | (Node | string)[]} content */
const plain = (content) => [content].flat().map((part) => (typeof part === 'string' ? part : part.textContent)).join('');

/**
 * Puts a sentence in if it is another one.
 * @param {Element} element
 * @param {string | (Node | string)[]} content
 */
function say(element, content) {
  if (element.textContent !== plain(content)) element.replaceChildren(...[content].flat().filter((part) => part !== ''));
}

/**
 * @param {Element} element
 * @param {'aria-disabled' | 'aria-busy'} name
 * @param {boolean} isSo
 */
function setState(element, name, isSo) {
  if (!isSo) element.removeAttribute(name);
  else if (element.getAttribute(name) !== 'true') element.setAttribute(name, 'true');
}
