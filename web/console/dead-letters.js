/** Purchases that were set aside: each is a promise, so they are shown, put back or, with a warning, deleted. */

import { api } from '../lib/api.js';
import { confirmDialog } from '../lib/dialog.js';
import { h } from '../lib/dom.js';
import { notice } from '../lib/notice.js';
import { t } from '../lib/text.js';
import { code, fill, table, time } from './parts.js';

/** @import { DeadLetter, Page, Replayed } from './types.js' */

/** The broker hands its messages to one reader at a time. */
const PATIENCE = { timeout: 30_000 };

/** @param {string} zone @param {() => void} changed */
export function deadLetters(zone, changed) {
  const place = h('div', {});
  const load = async (/** @type {AbortSignal} */ signal) => /** @type {Page<DeadLetter>} */ ((await api.get('/admin/dead-letters?limit=100', { signal, ...PATIENCE })).body);

  const replay = async (/** @type {DeadLetter} */ letter) => {
    const { purchases, reason } = /** @type {Replayed} */ ((await api.post(`/admin/dead-letters/${encodeURIComponent(letter.id)}/replay`, undefined, PATIENCE)).body);
    const many = (/** @type {string} */ outcome) => purchases.filter((purchase) => purchase.outcome === outcome).length;
    notice.say(reason ? t('letters.unreadable') : t('letters.replayed', { back: many('put_back'), before: many('decided'), kept: many('kept') }));
    list.again();
    changed();
  };
  const forget = async (/** @type {DeadLetter} */ letter) => {
    await api.delete(`/admin/dead-letters/${encodeURIComponent(letter.id)}`, PATIENCE);
    notice.say(t('letters.deleted'));
    list.again();
    changed();
  };

  const rows = (/** @type {DeadLetter} */ letter) => [
    time(letter.parked_at, zone),
    code(letter.product_id === null ? '–' : String(letter.product_id)),
    code(letter.purchases),
    h('span', {}, letter.reason ?? '–', h('details', {}, h('summary', {}, t('letters.body')), h('pre', { class: 'body', translate: 'no' }, letter.body))),
    h(
      'span',
      { class: 'row-actions' },
      h('button', { type: 'button', class: 'button small', on: { click: () => void confirmDialog({ title: t('letters.replay.title'), body: t('letters.replay.body', { n: letter.purchases }), action: t('letters.replay'), run: () => replay(letter) }) } }, t('letters.replay')),
      h('button', { type: 'button', class: 'button small danger', on: { click: () => void confirmDialog({ title: t('letters.delete.title'), body: t('letters.delete.body', { n: letter.purchases }), action: t('letters.delete'), danger: true, run: () => forget(letter) }) } }, t('letters.delete')),
    ),
  ];
  const show = (/** @type {Page<DeadLetter>} */ { items, total }) => {
    if (items.length === 0) return [h('p', { class: 'soft' }, t('letters.none'))];
    const columns = ['parked', 'product', 'purchases', 'reason', 'actions'].map((name) => ({ title: t(`letters.${name}`), class: name === 'purchases' ? 'number' : '' }));
    return [h('p', {}, t('letters.total', { n: total ?? items.length })), table({ label: t('letters.title'), columns, rows: items.map(rows) })];
  };
  const list = fill(place, load, show);
  return { node: place, again: list.again, stop: list.stop };
}
