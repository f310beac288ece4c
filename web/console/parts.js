/** Small things that several pages are made of. */

import { h, replace, verbatim } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { instant } from '../lib/format.js';
import { t } from '../lib/text.js';

/** @import { OrderStatus, Product, SaleState } from './types.js' */

/** @type {Record<string, string>} */
const TONES = {
  upcoming: 'info',
  live: 'good',
  paused: 'warn',
  sold_out: 'info',
  ended: 'quiet',
  archived: 'quiet',
  draft: 'warn',
  queued: 'info',
  unpaid: 'warn',
  paid: 'good',
  cancelled: 'quiet',
  expired: 'quiet',
  rejected: 'bad',
  pending: 'info',
  succeeded: 'good',
  failed: 'bad',
  refund_due: 'bad',
  refunded: 'quiet',
  delivered: 'good',
  on: 'good',
  off: 'quiet',
  failing: 'warn',
};

/**
 * A word with a colour; the word alone says it.
 * @param {string} kind
 * @param {string} word
 */
export function badge(kind, word) {
  return h('span', { class: `badge badge-${TONES[kind] ?? 'quiet'}` }, word);
}

/** @typedef {SaleState | 'archived' | 'draft'} ShownState */

/** @param {Product} product @returns {ShownState} */
export const stateOf = ({ archived_at, draft, state }) => (archived_at ? 'archived' : draft ? 'draft' : state);

/** @param {ShownState} state */
export const saleBadge = (state) => badge(state, t(`state.${state}`));

/** @param {OrderStatus} status */
export const orderBadge = (status) => badge(status, t(`order.${status}`));

/** @param {string} status */
export const paymentBadge = (status) => badge(status, t(`payment.${status}`));

/**
 * A text of the machine's own that no translator may touch.
 * @param {string | number} value
 */
export const code = (value) => verbatim(String(value), 'mono');

/**
 * An instant in the shop's zone.
 * @param {string | null | undefined} iso
 * @param {string} [zone]
 */
export function time(iso, zone) {
  return iso ? h('time', { datetime: iso }, instant(iso, zone)) : '–';
}

/**
 * @param {string} title
 * @param {...(Node | string | null)} beside
 */
export function heading(title, ...beside) {
  document.title = t('console.title', { page: title });
  return h('header', { class: 'page-head' }, h('h1', { tabindex: '-1' }, title), ...beside);
}

/** @param {string} title @param {string} body @param {...(Node | null)} next */
export function empty(title, body, ...next) {
  return h('div', { class: 'empty card' }, h('h2', {}, title), h('p', {}, body), ...next);
}

export function loading() {
  const line = () => h('span', { class: 'skeleton' });
  return h('div', { class: 'loading', aria: { busy: 'true', label: t('loading') }, role: 'group' }, line(), line(), line());
}

/**
 * What went wrong, with a way on.
 * @param {unknown} error
 * @param {() => void} again
 */
export function failure(error, again) {
  return h(
    'div',
    { class: 'failure card', role: 'alert' },
    h('p', {}, explain(error)),
    h('button', { type: 'button', class: 'button', on: { click: again } }, t('again')),
  );
}

/**
 * Fills a place with what is loaded: skeleton, failure with a way on, or the thing. What comes too late is dropped.
 * @template T
 * @param {HTMLElement} place
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {(loaded: T) => (Node | string | null)[]} show
 * @returns {{ again: () => void, stop: () => void }}
 */
export function fill(place, load, show) {
  let aborter = new AbortController();
  const run = async (/** @type {boolean} */ isFirst) => {
    aborter.abort();
    aborter = new AbortController();
    const { signal } = aborter;
    if (isFirst) replace(place, loading());
    try {
      const loaded = await load(signal);
      if (!signal.aborted) replace(place, ...show(loaded));
    } catch (error) {
      if (!signal.aborted) replace(place, failure(error, () => void run(true)));
    }
  };
  void run(true);
  return { again: () => void run(false), stop: () => aborter.abort() };
}

/**
 * A table that becomes a list of cards where there is no room: each cell knows its column.
 * @param {{ label: string, columns: { title: string, class?: string }[], rows: (Node | string | null)[][] }} table
 */
export function table({ label, columns, rows }) {
  const head = columns.map(({ title, class: kind }) => h('th', { scope: 'col', class: kind ?? '' }, title));
  const body = rows.map((cells) =>
    h(
      'tr',
      {},
      ...cells.map((cell, index) => {
        const column = columns[index];
        return h('td', { class: column?.class ?? '', data: { label: column?.title ?? '' } }, cell);
      }),
    ),
  );
  return h(
    'div',
    { class: 'table-scroll', role: 'region', tabindex: '0', aria: { label } },
    h('table', { class: 'table stacking' }, h('caption', { class: 'unseen' }, label), h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...body)),
  );
}

/**
 * A number with its name.
 * @param {string} label
 * @param {{ big?: boolean, hint?: string }} [options]
 */
export function figure(label, { big = false, hint } = {}) {
  const value = h('dd', { class: 'figure-value', translate: 'no' }, '–');
  const node = h('div', { class: big ? 'figure figure-big' : 'figure' }, h('dt', { class: 'figure-label' }, label), value, hint ? h('dd', { class: 'figure-hint' }, hint) : null);
  return { node, value };
}

/** A key that names one wish, also when it is sent again. Not `randomUUID`: that is missing where there is no https. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
