/** All sales: what is on, what comes, what is over; or those that are archived. */

import { api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, replace, setText } from '../lib/dom.js';
import { count, money } from '../lib/format.js';
import { listenToProducts } from '../lib/stream.js';
import { text, t } from '../lib/text.js';
import { empty, fill, heading, saleBadge, stateOf } from './parts.js';
import { settings } from './settings.js';
import { distance, range } from './words.js';

/** @import { Page, Product, Summary } from './types.js' */

/** Sums are asked for one after the other, so many at a time: they must not compete with buyers. */
const SUMS_AT_A_TIME = 3;
/** The most that one stream tells of. */
const LISTENED = 20;

const ORDER = ['live', 'paused', 'sold_out', 'upcoming', 'ended'];

/** @param {HTMLElement} root */
export function salesPage(root) {
  /** @type {(() => void)[]} */
  const stops = [];
  const list = h('div', {});
  const more = h('div', { class: 'more' });
  const isArchive = new URLSearchParams(location.search).get('archived') === 'true';
  const links = isArchive
    ? [h('a', { href: '/console', class: 'button' }, t('sales.current'))]
    : [h('a', { href: '/console?archived=true', class: 'button' }, t('sales.archived')), h('a', { href: '/console/sales/new', class: 'button primary' }, t('sales.new'))];
  replace(root, heading(t(isArchive ? 'sales.archived' : 'sales.title'), ...links), list, more);

  const readPage = async (/** @type {AbortSignal} */ signal, /** @type {string | null} */ cursor = null) => {
    const query = new URLSearchParams({ archived: String(isArchive), limit: '100', ...(cursor ? { cursor } : {}) });
    return /** @type {Page<Product>} */ ((await api.get(`/admin/products?${query}`, { signal })).body);
  };
  let isLeft = false;
  const filled = fill(
    list,
    async (signal) => {
      const [page, { time_zone }] = await Promise.all([readPage(signal), settings()]);
      return { page, time_zone };
    },
    ({ page, time_zone }) => {
      if (page.items.length === 0 && isArchive) return [empty(t('sales.archived.empty'), t('sales.archived.empty.body'), h('a', { href: '/console', class: 'button' }, t('sales.current')))];
      if (page.items.length === 0) return [empty(t('sales.empty'), t('sales.empty.body'), h('a', { href: '/console/sales/new', class: 'button primary' }, t('sales.new')))];
      const cards = h('ul', { class: 'sale-list' });
      const addPage = (/** @type {Page<Product>} */ { items, next_cursor }) => {
        const sorted = [...items].sort((one, other) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state) || Date.parse(one.starts_at) - Date.parse(other.starts_at));
        const made = sorted.map((product) => saleCard(product, time_zone));
        cards.append(...made.map(({ node }) => node));
        replace(more, next_cursor ? moreButton(() => readPage(new AbortController().signal, next_cursor).then(addPage)) : null);
        void addSums(made);
        const watched = isArchive ? [] : made.filter(({ product }) => product.state !== 'ended' && !product.draft).slice(0, LISTENED);
        if (stops.length === 0 && watched.length > 0) {
          const byId = new Map(watched.map((card) => [card.product.id, card]));
          stops.push(listenToProducts([...byId.keys()], { onProduct: (heard) => byId.get(heard.id)?.update(heard), onState: () => {} }));
          stops.push(clock.every(1_000, () => watched.forEach((card) => card.tick())));
        }
      };
      addPage(page);
      return [cards];
    },
  );
  const addSums = async (/** @type {ReturnType<typeof saleCard>[]} */ cards) => {
    const waiting = [...cards];
    const one = async () => {
      for (let card = waiting.shift(); card && !isLeft; card = waiting.shift()) {
        try {
          card.sum((await api.get(`/admin/products/${card.product.id}/summary`)).body);
        } catch {
          // The card says so by its dashes.
        }
      }
    };
    await Promise.all(Array.from({ length: SUMS_AT_A_TIME }, one));
  };
  return () => {
    isLeft = true;
    filled.stop();
    stops.forEach((stop) => stop());
  };
}

/** @param {() => Promise<void>} load */
function moreButton(load) {
  const button = h('button', { type: 'button', class: 'button', on: { click: () => void load().catch(() => {}) } }, t('more'));
  return button;
}

/**
 * @param {Product} first
 * @param {string} zone
 */
function saleCard(first, zone) {
  let product = first;
  const state = h('span', { class: 'state' });
  const when = h('p', { class: 'when' });
  const window = h('p', { class: 'soft window' });
  const sold = h('span', { class: 'sold', translate: 'no' });
  const left = h('span', { class: 'soft', translate: 'no' });
  const bar = h('span', { class: 'bar', role: 'img' }, h('span', {}));
  const paid = h('dd', { translate: 'no' }, '–');
  const revenue = h('dd', { translate: 'no' }, '–');
  const picture = product.image_url ? h('img', { src: product.image_url, alt: '', loading: 'lazy', class: 'sale-picture' }) : h('span', { class: 'sale-picture', aria: { hidden: 'true' } }, [...product.name][0] ?? '');
  const node = h(
    'li',
    { class: 'sale-card card' },
    picture,
    h('div', { class: 'sale-card-name' }, h('h2', {}, h('a', { href: `/console/sales/${product.id}` }, product.name)), h('p', {}, state, ' ', h('span', { class: 'soft' }, money(product.price_cents, product.currency)))),
    h('div', { class: 'sale-card-when' }, when, window),
    h('div', { class: 'sale-card-stock' }, h('p', {}, sold, ' ', left), bar),
    h('dl', { class: 'sale-card-sums' }, h('div', {}, h('dt', {}, t('sales.paid')), paid), h('div', {}, h('dt', {}, t('sales.revenue')), revenue)),
  );

  const tick = () => {
    const now = clock.now();
    const starts = Date.parse(product.starts_at);
    const ends = product.ends_at === null ? null : Date.parse(product.ends_at);
    const words = (/** @type {number} */ at) => distance(at - now, text.language());
    if (now < starts) setText(when, t('sales.starts', { when: words(starts) }));
    else if (ends === null) setText(when, t('sales.no_end'));
    else setText(when, t(now < ends ? 'sales.ends' : 'sales.ended', { when: words(ends) }));
  };
  const show = () => {
    replace(state, saleBadge(stateOf(product)));
    const taken = product.stock - product.remaining;
    setText(sold, t('sales.sold', { sold: count(taken), stock: count(product.stock) }));
    setText(left, product.remaining > 0 && product.remaining <= 10 && taken > 0 ? t('sales.left', { n: product.remaining }) : '');
    const share = product.stock > 0 ? taken / product.stock : 0;
    /** @type {HTMLElement} */ (bar.firstElementChild).style.setProperty('--part', `${share * 100}%`);
    bar.classList.toggle('bar-warn', product.remaining <= 10 && product.remaining > 0);
    bar.classList.toggle('is-full', product.remaining === 0 && product.stock > 0);
    bar.setAttribute('aria-label', t('sales.sold', { sold: count(taken), stock: count(product.stock) }));
    setText(window, range(product.starts_at, product.ends_at, zone, t('sale.open_ended')));
    tick();
  };
  show();
  return {
    node,
    product,
    tick,
    /** @param {Partial<Product>} heard */
    update(heard) {
      product = { ...product, ...heard };
      show();
    },
    /** @param {Summary} summary */
    sum(summary) {
      setText(paid, count(summary.paid));
      setText(revenue, summary.currency === null ? t('sale.several_currencies') : money(summary.revenue_cents, summary.currency));
    },
  };
}
