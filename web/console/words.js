/** Distances and ranges in time, in words. */

import { text } from '../lib/text.js';

const STEPS = /** @type {const} */ ([
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
  ['second', 1],
]);

/**
 * The two greatest parts of a time span: "3 days 4 hr".
 * @param {number} ms
 * @param {string} language
 */
export function parts(ms, language) {
  let rest = Math.floor(Math.abs(ms) / 1000);
  /** @type {string[]} */
  const words = [];
  for (const [unit, seconds] of STEPS) {
    const many = Math.floor(rest / seconds);
    rest %= seconds;
    if (many > 0 || (unit === 'second' && words.length === 0)) {
      words.push(new Intl.NumberFormat(language, { style: 'unit', unit, unitDisplay: unit === 'day' ? 'long' : 'short' }).format(many));
    } else if (words.length > 0) break;
    if (words.length === 2) break;
  }
  return words.join(language.startsWith('zh') ? '' : ' ');
}

/**
 * How far away something is: "in 3 days 4 hr", "5 min ago".
 * @param {number} ms
 * @param {string} language
 */
export function distance(ms, language) {
  const words = parts(ms, language);
  if (language.startsWith('zh')) return ms >= 0 ? `${words}后` : `${words}前`;
  return ms >= 0 ? `in ${words}` : `${words} ago`;
}

/**
 * From when to when, in a zone: what both have in common is said once. Null: no end.
 * @param {string} from
 * @param {string | null} to
 * @param {string} zone
 * @param {string} openEnded
 */
export function range(from, to, zone, openEnded) {
  const [first, last] = [new Date(from), new Date(to ?? from)];
  const hasSeconds = [first, last].some((date) => Math.floor(date.getTime() / 1000) % 60 !== 0);
  const format = new Intl.DateTimeFormat(text.locale(), {
    weekday: 'short',
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    ...(hasSeconds ? { second: '2-digit' } : {}),
    hourCycle: 'h23',
    timeZone: zone,
    timeZoneName: 'shortOffset',
  });
  return to === null ? `${format.format(first)} – ${openEnded}` : format.formatRange(first, last);
}
