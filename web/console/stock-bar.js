/** Where the units of a sale are: one bar, its numbers in words, and whether they add up. */

import { h, setText } from '../lib/dom.js';
import { count } from '../lib/format.js';
import { t } from '../lib/text.js';

/** @import { Summary } from './types.js' */

/** In the order of a unit's way, the last one first: what is done stands at the left. */
const PARTS = /** @type {const} */ (['paid', 'unpaid', 'queued', 'remaining']);

export function stockBar() {
  const parts = PARTS.map((name) => {
    const number = h('dd', { class: 'part-number', data: { part: name }, translate: 'no' }, '–');
    return {
      name,
      number,
      segment: h('span', { class: `segment part-${name}` }),
      legend: h('div', { class: 'part' }, h('dt', {}, h('span', { class: `swatch part-${name}` }), t(`part.${name}`)), number, h('dd', { class: 'part-hint' }, t(`part.${name}.hint`))),
    };
  });
  const total = h('span', { class: 'stock-total', data: { part: 'stock' }, translate: 'no' }, '–');
  const word = h('p', { class: 'verdict' });
  const bar = h('div', { class: 'stock-bar', role: 'img' }, ...parts.map((part) => part.segment));
  const node = h(
    'div',
    { class: 'stock' },
    h('div', { class: 'section-head' }, h('h2', {}, t('stock.title')), h('p', { class: 'stock-line' }, total, ' ', h('span', { class: 'soft' }, t('stock.offered')))),
    bar,
    h('dl', { class: 'parts' }, ...parts.map((part) => part.legend)),
    word,
  );

  return {
    node,
    /** @param {Summary} summary */
    update(summary) {
      const { stock, balanced } = summary;
      for (const { name, number, segment } of parts) {
        const units = summary[name];
        setText(number, units === null ? '–' : count(units));
        segment.style.setProperty('--share', String(stock > 0 && units !== null ? units / stock : 0));
        segment.hidden = !units;
      }
      setText(total, count(stock));
      const words = PARTS.map((name) => t(`part.${name}.words`, { n: summary[name] === null ? '–' : count(summary[name] ?? 0) }));
      bar.setAttribute('aria-label', t('stock.summary', { stock: count(stock), parts: words.join(', ') }));
      const kind = balanced ? 'adds' : summary.remaining === null ? 'rebuilding' : 'moving';
      word.className = `verdict verdict-${kind}`;
      setText(word, t(`stock.${kind}`));
    },
  };
}
