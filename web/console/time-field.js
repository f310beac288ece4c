/** A time in the shop's zone, with what it is in UTC and how far away it is. Asks which one is meant of a time that happens twice. */

import { clock } from '../lib/clock.js';
import { h, replace } from '../lib/dom.js';
import { text, t } from '../lib/text.js';
import { field } from './fields.js';
import { distance } from './words.js';
import { gapAround, instantsOf, offsetName, wallTime } from './zoned.js';

/**
 * @param {object} options
 * @param {string} options.label
 * @param {string} options.zone
 * @param {string | null} [options.value] an instant
 * @param {boolean} [options.optional]
 */
export function timeField({ label, zone, value = null, optional = false }) {
  const initial = value === null ? null : Date.parse(value);
  const shown = initial === null ? '' : wallTime(initial, zone);
  // Seconds are asked for only where there are some.
  const hasSeconds = shown !== '' && !shown.endsWith(':00');
  const short = hasSeconds ? shown : shown.slice(0, 16);
  const input = /** @type {HTMLInputElement} */ (h('input', { type: 'datetime-local', value: short, min: '2000-01-01T00:00', max: '9999-12-31T23:59' }));
  if (hasSeconds) input.step = '1';
  const made = field({ label, input, beside: [h('span', { class: 'zone', translate: 'no' }, zone)], optional });
  const meant = h('p', { class: 'meant', aria: { live: 'polite' } });
  const which = h('div', { class: 'which' });
  made.node.append(which, meant);

  /** Of a time that happens twice. @type {number | null} */
  let chosen = initial;
  /** What `which` asks about. */
  let asked = '';

  const isUntouched = () => input.value === short && short !== '';

  const ask = (/** @type {number[]} */ instants) => {
    if (asked === input.value) return;
    asked = input.value;
    if (chosen !== null && !instants.includes(Math.floor(chosen / 1000) * 1000)) chosen = null;
    const options = instants.map((instant, index) => {
      const radio = /** @type {HTMLInputElement} */ (h('input', { type: 'radio', name: `${input.id}-which`, value: String(instant) }));
      radio.checked = chosen !== null && Math.floor(chosen / 1000) * 1000 === instant;
      radio.addEventListener('change', () => {
        chosen = instant;
        made.complain(null);
        show();
      });
      return h('label', { class: 'choice' }, radio, t(index === 0 ? 'time.first' : 'time.second', { offset: offsetName(instant, zone) }));
    });
    replace(which, h('fieldset', {}, h('legend', {}, t('time.twice')), ...options));
  };

  /** @returns {{ instant: number | null, problem: string | null }} */
  const read = () => {
    if (input.value === '') {
      if (input.validity.badInput) return { instant: null, problem: t('time.half') };
      return { instant: null, problem: optional ? null : t('form.required') };
    }
    // To the millisecond what it was: a form that is only looked at changes nothing.
    if (isUntouched() && initial !== null) return { instant: chosen !== null && instantsOf(input.value, zone)?.includes(chosen) ? chosen : initial, problem: null };
    const instants = instantsOf(input.value, zone);
    if (!instants) return { instant: null, problem: t('time.half') };
    const [first] = instants;
    if (first === undefined) {
      const gap = gapAround(input.value, zone);
      return { instant: null, problem: t('time.skipped', { from: clockFace(gap?.from), to: clockFace(gap?.to) }) };
    }
    if (instants.length === 1) return { instant: first, problem: null };
    const known = instants.find((instant) => instant === chosen);
    return known === undefined ? { instant: null, problem: t('time.which') } : { instant: known, problem: null };
  };

  const show = () => {
    const instants = input.value === '' ? null : instantsOf(input.value, zone);
    if (instants && instants.length > 1) ask(instants);
    else {
      asked = '';
      replace(which);
    }
    const { instant, problem } = read();
    if (instant === null) {
      const isSkipped = instants?.length === 0;
      if (isSkipped) made.complain(problem);
      replace(meant, '');
      return;
    }
    const utc = `${new Date(instant).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
    const parts = [offsetName(instant, zone), utc, distance(instant - clock.now(), text.language())];
    replace(meant, parts.filter((part, index) => index === 0 || part !== parts[index - 1]).join(' · '));
  };

  input.addEventListener('input', () => {
    chosen = null;
    asked = '';
    show();
  });
  show();

  return {
    ...made,
    /**
     * The instant, or what is wrong, said at the field.
     * @returns {{ iso: string | null, isChanged: boolean } | null}
     */
    take() {
      const { instant, problem } = read();
      made.complain(problem);
      if (problem) return null;
      return { iso: instant === null ? null : new Date(instant).toISOString(), isChanged: instant !== initial };
    },
    /** @param {number} instant */
    set(instant) {
      input.value = wallTime(instant, zone).slice(0, input.step === '1' ? 19 : 16);
      chosen = instant;
      asked = '';
      made.complain(null);
      show();
    },
    /** To be called as time passes. */
    show,
  };
}

/** @param {string | undefined} wall */
function clockFace(wall) {
  return wall?.slice(11, 16) ?? '';
}
