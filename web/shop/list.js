// What is on sale now, soon, and what was.

import { api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, setText, verbatim } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { count, instant, money, span } from '../lib/format.js';
import { listenToProducts } from '../lib/stream.js';
import { rich, t } from '../lib/text.js';
import { saleBadge } from './badges.js';
import { titled } from './frame.js';
import { picture } from './picture.js';
import { merged, saleState } from './product.js';
import { soldOutLine } from './sale.js';

/** @typedef {import('./product.js').Product} Product */

/** So many can be listened to at once. */
const LISTENED_TO = 20;

/** @type {import('../lib/router.js').Page} */
export async function listPage(root) {
  titled(t('list.title'));
  root.replaceChildren(h('h1', null, t('list.title')), h('div', { class: 'cards', aria: { busy: 'true' } }, ...[0, 1, 2].map(() => h('div', { class: 'skeleton skeleton-card' }))));
  const list = new List();
  try {
    await Promise.all([list.load(), clock.ready()]);
  } catch (error) {
    const again = h('button', { type: 'button', class: 'button primary', on: { click: () => location.reload() } }, t('list.again'));
    root.replaceChildren(h('section', { class: 'empty' }, h('h1', null, t('list.title')), h('p', { role: 'alert' }, explain(error)), again));
    return;
  }
  root.replaceChildren(h('h1', null, t('list.title')), list.element);
  list.start();
  return () => list.stop();
}

class List {
  element = h('div', { class: 'sales' });
  /** @type {Map<number, Card>} */
  #cards = new Map();
  /** @type {Product[]} */
  #over = [];
  /** @type {string | null} */
  #next = null;
  /** @type {(() => void)[]} */
  #stops = [];
  #places = '';

  async load() {
    const get = async (/** @type {string} */ state, /** @type {number} */ limit) =>
      (await api.get(`/products?state=${state}&limit=${limit}`, { auth: false })).body;
    const [live, upcoming, ended] = await Promise.all([get('live', 100), get('upcoming', 100), get('ended', 12)]);
    for (const product of [...live.items, ...upcoming.items, ...ended.items]) this.#cards.set(product.id, new Card(product));
    this.#next = ended.next_cursor;
  }

  start() {
    this.#place();
    // The order of the page follows the server's clock, so no card has to be told.
    this.#stops.push(clock.every(1000, () => this.#tick()));
    const now = clock.now();
    const open = [...this.#cards.values()].filter((card) => card.state(now) !== 'ended').sort((a, b) => a.starts - b.starts);
    const near = open.slice(0, LISTENED_TO).map((card) => card.product.id);
    this.#stops.push(listenToProducts(near, { onProduct: (event) => this.#heard(event) }));
  }

  stop() {
    for (const stop of this.#stops) stop();
  }

  /** @param {import('../lib/stream.js').ProductEvent} event */
  #heard(event) {
    const card = this.#cards.get(event.id);
    if (!card) return;
    const isOther = event.revision !== card.product.revision;
    card.become(merged(card.product, event));
    if (isOther) setTimeout(() => void this.#fetch(event.id), Math.random() * 1500);
    this.#tick();
  }

  /** @param {number} id */
  async #fetch(id) {
    try {
      this.#cards.get(id)?.become((await api.get(`/products/${id}`, { auth: false })).body);
    } catch {
      // It is asked for again with the next change.
    }
  }

  #tick() {
    const now = clock.now();
    for (const card of this.#cards.values()) card.update(now);
    this.#place();
  }

  /** Puts the cards where they belong, if that has changed. */
  #place() {
    const now = clock.now();
    const all = [...this.#cards.values()];
    const running = all.filter((card) => ['live', 'paused', 'sold_out'].includes(card.state(now)));
    // What can be bought comes first.
    const rank = (/** @type {Card} */ card) => ['live', 'paused', 'sold_out'].indexOf(card.state(now));
    running.sort((a, b) => rank(a) - rank(b) || b.starts - a.starts);
    const soon = all.filter((card) => card.state(now) === 'upcoming').sort((a, b) => a.starts - b.starts);
    const over = all.filter((card) => card.state(now) === 'ended').sort((a, b) => b.ends - a.ends);
    const places = JSON.stringify([running, soon, over].map((part) => part.map((card) => card.product.id)));
    if (places === this.#places) return;
    this.#places = places;
    const focused = document.activeElement;
    const more = this.#next && h('button', { type: 'button', class: 'button', id: 'more', on: { click: () => void this.#loadMore() } }, t('list.more'));
    const section = (/** @type {string} */ name, /** @type {Card[]} */ cards) =>
      cards.length === 0 ? null : h('section', { class: `sales-part sales-${name}`, aria: { labelledby: `part-${name}` } }, h('h2', { id: `part-${name}` }, t(`list.${name}`)), h('ul', { class: 'cards' }, ...cards.map((card) => card.element)), name === 'over' && more);
    const parts = [section('now', running), section('soon', soon), section('over', over)].filter((part) => part !== null);
    this.element.replaceChildren(...(parts.length > 0 ? parts : [empty()]));
    if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  async #loadMore() {
    const page = (await api.get(`/products?state=ended&limit=12&cursor=${encodeURIComponent(this.#next ?? '')}`, { auth: false })).body;
    for (const product of page.items) this.#cards.set(product.id, new Card(product));
    this.#next = page.next_cursor;
    this.#places = '';
    this.#tick();
  }
}

function empty() {
  return h('section', { class: 'empty' }, h('h2', null, t('list.empty')), h('p', { class: 'soft' }, t('list.empty_more')));
}

class Card {
  #badge = h('p', null);
  #line = h('p', { class: 'sale-card-line number' });
  #bar = h('span', { class: 'bar', aria: { hidden: 'true' } }, h('span', null));
  #name = h('a', { class: 'sale-card-name' });
  #price = h('p', { class: 'sale-card-price number', translate: 'no' });
  #picture = h('div', null);
  /** @type {string} */
  #shown = '';

  /** @param {Product} product */
  constructor(product) {
    this.product = product;
    this.#name.href = `/shop/sales/${product.id}`;
    this.element = h('li', { class: 'sale-card' }, this.#picture, h('div', { class: 'sale-card-text' }, this.#badge, h('h3', null, this.#name), this.#price, this.#line, this.#bar));
    this.#describe();
    this.update(clock.now());
  }

  get starts() {
    return Date.parse(this.product.starts_at);
  }

  get ends() {
    return this.product.ends_at ? Date.parse(this.product.ends_at) : Infinity;
  }

  /** @param {number} now */
  state(now) {
    return saleState(this.product, now);
  }

  /** @param {Product} product */
  become(product) {
    const isOther = product.name !== this.product.name || product.price_cents !== this.product.price_cents || product.image_url !== this.product.image_url;
    this.product = product;
    if (isOther) this.#describe();
  }

  #describe() {
    setText(this.#name, this.product.name);
    setText(this.#price, money(this.product.price_cents, this.product.currency));
    this.#picture.replaceChildren(picture(this.product, 'lazy'));
  }

  /** @param {number} now */
  update(now) {
    const { product } = this;
    const state = this.state(now);
    if (this.#shown !== state) {
      this.#shown = state;
      this.#badge.replaceChildren(saleBadge(state));
      this.element.dataset.state = state;
    }
    const line = this.#lineOf(state, now);
    const text = line.map((part) => (typeof part === 'string' ? part : part.textContent)).join('');
    if (this.#line.textContent !== text) this.#line.replaceChildren(...line);
    this.#bar.hidden = state !== 'live' && state !== 'paused';
    this.#bar.style.setProperty('--part', `${product.stock > 0 ? Math.min(100, (100 * product.remaining) / product.stock) : 0}%`);
  }

  /**
   * @param {import('./product.js').SaleState} state
   * @param {number} now
   * @returns {(Node | string)[]}
   */
  #lineOf(state, now) {
    const { product } = this;
    switch (state) {
      case 'upcoming': {
        const rest = Date.parse(product.starts_at) - now;
        if (rest > 86_400_000) return rich('list.opens_at', { time: h('time', { datetime: product.starts_at, translate: 'no' }, instant(product.starts_at)) });
        return rich('list.opens_in', { span: h('strong', { role: 'timer', translate: 'no' }, span(rest)) });
      }
      case 'sold_out':
        if (product.held > 0) return [t('list.held', { n: count(product.held), count: product.held })];
        return [soldOutLine(product)].flat();
      case 'ended':
        if (product.sold_out_at) return [soldOutLine(product)].flat();
        return rich('list.ended_at', { time: h('time', { datetime: product.ends_at ?? product.starts_at, translate: 'no' }, instant(product.ends_at ?? product.starts_at)) });
      default:
        return rich('sale.left', { left: h('strong', { translate: 'no' }, count(product.remaining)), stock: verbatim(count(product.stock)) });
    }
  }
}
