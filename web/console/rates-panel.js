/** Accepted, written and refused a second: the last two minutes, as they come. */

import { h, replace, setText } from '../lib/dom.js';
import { count, timeOfDay } from '../lib/format.js';
import { text, t } from '../lib/text.js';
import { strip } from './chart.js';
import { KEPT, rateMeter } from './rates.js';

/** @import { Live } from './types.js' */
/** @import { Rates } from './rates.js' */

/** Reasons that have a colour of their own, the most common one first; all others share the last colour. */
const OWN_COLOUR = ['sold_out', 'already_purchased', 'rate_limited', 'unavailable'];
const COLOURS = OWN_COLOUR.length + 1;

/** @param {string} reason */
const colourOf = (reason) => (OWN_COLOUR.includes(reason) ? OWN_COLOUR.indexOf(reason) : OWN_COLOUR.length);

/** @param {number | undefined} rate */
function written(rate) {
  if (rate === undefined) return '–';
  if (rate > 0 && rate < 0.1) return `<${new Intl.NumberFormat(text.locale()).format(0.1)}`;
  return new Intl.NumberFormat(text.locale(), { maximumFractionDigits: rate < 10 ? 1 : 0, roundingMode: 'floor' }).format(rate);
}

/** @param {string} reason */
function reasonName(reason) {
  return t(`refused.${KNOWN.has(reason) ? reason : 'other'}`);
}
const KNOWN = new Set(['not_started', 'ended', 'paused', 'already_purchased', 'sold_out', 'not_enough_left', 'address_limit', 'rate_limited', 'unavailable', 'other']);

/** @param {string} name @param {number} series */
function panel(name, series) {
  const now = h('span', { class: 'rate-now', data: { rate: name }, translate: 'no' }, '–');
  const scale = h('span', { class: 'rate-scale', translate: 'no' });
  const chart = strip(series);
  const node = h(
    'div',
    { class: `rate rate-${name}` },
    h('h3', { class: 'rate-head' }, h('span', { class: 'rate-name' }, t(`rate.${name}`)), ' ', now, h('span', { class: 'soft' }, t('rate.unit'))),
    h('div', { class: 'chart-frame' }, chart.node, scale),
  );
  return {
    node,
    /** @param {(number[] | null)[]} seconds */
    update(seconds) {
      const sums = seconds.map((parts) => parts?.reduce((sum, part) => sum + part, 0));
      const latest = sums.at(-1);
      const greatest = Math.max(0, ...sums.map((sum) => sum ?? 0));
      const label = t('rate.summary', { name: t(`rate.${name}`), now: written(latest), peak: written(greatest) });
      setText(now, written(latest));
      setText(scale, count(chart.update(seconds, label)));
    },
  };
}

export function ratesPanel() {
  const meter = rateMeter();
  const accepted = panel('accepted', 1);
  const stored = panel('written', 1);
  const refused = panel('refused', COLOURS);
  const reasons = h('ul', { class: 'reasons' });
  const rows = h('tbody', {});
  const numbers = h(
    'details',
    { class: 'numbers' },
    h('summary', {}, t('rate.table')),
    h(
      'table',
      { class: 'table' },
      h('caption', { class: 'unseen' }, t('rate.table')),
      h('thead', {}, h('tr', {}, ...['at', 'accepted', 'written', 'refused'].map((name) => h('th', { scope: 'col', class: name === 'at' ? '' : 'number' }, t(`rate.${name}`))))),
      rows,
    ),
  );
  numbers.addEventListener('toggle', () => showNumbers());
  /** Reasons, in the order of their colours: a line that stands keeps its place. @type {string[]} */
  const met = [];
  /** @type {Record<string, number>} */
  let totals = {};

  const stack = (/** @type {Rates} */ rates) => {
    /** @type {number[]} */
    const parts = Array.from({ length: COLOURS }, () => 0);
    for (const [reason, rate] of Object.entries(rates.reasons)) parts[colourOf(reason)] = (parts[colourOf(reason)] ?? 0) + rate;
    return parts;
  };

  const showReasons = () => {
    const latest = meter.latest();
    const lines = met.map((reason) =>
      h(
        'li',
        {},
        h('span', { class: `swatch chart-${colourOf(reason) + 1}` }),
        h('span', { class: 'reason-name' }, reasonName(reason)),
        h('span', { class: 'reason-rate', translate: 'no' }, `${written(latest?.reasons[reason])}${t('rate.unit')}`),
        h('span', { class: 'reason-total soft', translate: 'no' }, t('rate.in_all', { n: count(totals[reason] ?? 0) })),
      ),
    );
    replace(reasons, ...(lines.length > 0 ? lines : [h('li', { class: 'soft' }, t('rate.none_refused'))]));
  };

  /** For whoever cannot see columns: twelve lines of ten seconds each. */
  const showNumbers = () => {
    if (!numbers.open) return;
    const seconds = meter.seconds();
    /** @type {Node[]} */
    const lines = [];
    for (let end = seconds.length; end > 0 && lines.length < KEPT / 10; end -= 10) {
      const known = seconds.slice(Math.max(0, end - 10), end).filter((rates) => rates !== null);
      const mean = (/** @type {(rates: Rates) => number} */ of) => (known.length === 0 ? undefined : known.reduce((sum, rates) => sum + of(rates), 0) / known.length);
      const last = known.at(-1);
      lines.push(
        h(
          'tr',
          {},
          h('th', { scope: 'row' }, last ? timeOfDay(last.at) : '–'),
          h('td', { class: 'number' }, written(mean((rates) => rates.accepted))),
          h('td', { class: 'number' }, written(mean((rates) => rates.written))),
          h('td', { class: 'number' }, written(mean((rates) => rates.refused))),
        ),
      );
    }
    replace(rows, ...lines);
  };

  const show = () => {
    const seconds = meter.seconds();
    accepted.update(seconds.map((rates) => rates && [rates.accepted]));
    stored.update(seconds.map((rates) => rates && [rates.written]));
    refused.update(seconds.map((rates) => rates && stack(rates)));
    showReasons();
    showNumbers();
  };

  showReasons();
  return {
    node: h('div', { class: 'rates' }, accepted.node, stored.node, refused.node, reasons, numbers),
    /** @param {Live} live @param {boolean} isShown */
    add(live, isShown) {
      meter.add(live);
      totals = live.refused;
      for (const [reason, total] of Object.entries(live.refused)) if (total > 0 && !met.includes(reason)) met.push(reason);
      met.sort((one, other) => colourOf(one) - colourOf(other));
      if (isShown) show();
    },
    /** @param {boolean} isShown */
    miss(isShown) {
      meter.miss();
      if (isShown) show();
    },
    show,
  };
}
