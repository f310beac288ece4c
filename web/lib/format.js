// Money, numbers and times, written as the chosen language writes them.

import { t, text } from './text.js';

/**
 * Digits of the minor unit, of all currencies that do not have two, as ISO 4217 says. Browsers do not know them: to them forint, rupiah
 * and peso have none, and a price would be a hundred times too high.
 * @type {Record<number, string>}
 */
const DIGITS = {
  0: 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX',
  3: 'BHD IQD JOD KWD LYD OMR TND',
  4: 'CLF UYW',
};

/** @type {Map<string, number>} */
const digitsOf = new Map(Object.entries(DIGITS).flatMap(([digits, codes]) => codes.split(' ').map((code) => [code, Number(digits)])));

/**
 * @param {string} currency
 * @returns {number}
 */
export function digits(currency) {
  return digitsOf.get(currency) ?? 2;
}

/** @type {Map<string, any>} */
const made = new Map();

/**
 * Formatters are slow to make and needed each second.
 * @template T
 * @param {string} key
 * @param {(locale: string) => T} make
 * @returns {T}
 */
function once(key, make) {
  const name = `${text.locale()} ${key}`;
  if (!made.has(name)) made.set(name, make(text.locale()));
  return made.get(name);
}

/**
 * @param {number} minor in minor units
 * @param {string} currency
 */
export function money(minor, currency) {
  const fraction = digits(currency);
  const format = once(`money ${currency}`, (locale) => {
    const options = { style: /** @type {const} */ ('currency'), currency, minimumFractionDigits: fraction, maximumFractionDigits: fraction };
    return new Intl.NumberFormat(locale, options);
  });
  // As decimal digits, for a division would round.
  return format.format(/** @type {any} */ (fromMinor(minor, currency)));
}

/**
 * For an input: plain digits and a point.
 * @param {number} minor
 * @param {string} currency
 */
export function fromMinor(minor, currency) {
  const fraction = digits(currency);
  const sign = minor < 0 ? '-' : '';
  const all = String(Math.abs(minor)).padStart(fraction + 1, '0');
  return fraction === 0 ? sign + all : `${sign}${all.slice(0, -fraction)}.${all.slice(-fraction)}`;
}

/**
 * What somebody typed, in minor units; null if it is no amount of that currency.
 * @param {string} typed
 * @param {string} currency
 * @returns {number | null}
 */
export function toMinor(typed, currency) {
  const plain = typed.normalize('NFKC').trim();
  const grouped = /^(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?$/.exec(plain);
  if (!grouped) return null;
  const fraction = grouped[2] ?? '';
  if (fraction.length > digits(currency)) return null;
  const minor = Number((grouped[1] ?? '').replaceAll(',', '') + fraction.padEnd(digits(currency), '0'));
  return Number.isSafeInteger(minor) ? minor : null;
}

/**
 * Exact, in groups.
 * @param {number} n
 */
export function count(n) {
  return once('count', (locale) => new Intl.NumberFormat(locale, { maximumFractionDigits: 0 })).format(n);
}

/**
 * A day and a time, with the name of the zone: the reader's own, or `zone`.
 * @param {string | number} at
 * @param {string} [zone]
 */
export function instant(at, zone) {
  const date = new Date(at);
  const isThisYear = date.getFullYear() === new Date().getFullYear();
  const clock = once(`instant ${zone} ${isThisYear}`, (locale) => new Intl.DateTimeFormat(locale, {
    ...(isThisYear ? {} : { year: 'numeric' }),
    weekday: 'short',
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
    timeZone: zone,
  }));
  return t('format.instant', { time: clock.format(date), zone: zoneName(date, zone) });
}

/**
 * Such as GMT+8: short names of zones are not known to everybody, and some are names of several.
 * @param {Date} date
 * @param {string} [zone]
 */
function zoneName(date, zone) {
  const format = once(`zone ${zone}`, (locale) => new Intl.DateTimeFormat(locale, { timeZoneName: 'shortOffset', timeZone: zone }));
  return format.formatToParts(date).find((/** @type {Intl.DateTimeFormatPart} */ part) => part.type === 'timeZoneName')?.value ?? '';
}

/**
 * @param {string | number} at
 * @param {string} [zone]
 */
export function timeOfDay(at, zone) {
  const options = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZone: zone };
  return once(`time ${zone}`, (locale) => new Intl.DateTimeFormat(locale, /** @type {any} */ (options))).format(new Date(at));
}

/**
 * What is left, in seconds that have begun: `00:00:01` until it is over, and never less than nothing.
 * @param {number} ms
 */
export function span(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const days = Math.floor(seconds / 86_400);
  const clock = [Math.floor((seconds % 86_400) / 3600), Math.floor((seconds % 3600) / 60), seconds % 60].map(two).join(':');
  return days > 0 ? t('format.days', { n: count(days), count: days, clock }) : clock;
}

/**
 * The same, as short as it goes: `14:32`.
 * @param {number} ms
 */
export function shortSpan(ms) {
  const long = span(ms);
  return long.startsWith('00:') ? long.slice(3) : long;
}

/**
 * How long it took, in words.
 * @param {number} ms
 */
export function duration(ms) {
  const tenths = Math.max(0, Math.round(ms / 100));
  if (tenths < 100) return t('format.seconds', { n: new Intl.NumberFormat(text.locale(), { minimumFractionDigits: 1 }).format(tenths / 10), count: 2 });
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return t('format.seconds', { n: count(seconds) });
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return t('format.minutes', { n: count(minutes) });
  const hours = Math.round(minutes / 60);
  return hours < 48 ? t('format.hours', { n: count(hours) }) : t('format.whole_days', { n: count(Math.round(hours / 24)) });
}

/**
 * How long ago, or in how long.
 * @param {number} ms in the past
 */
export function ago(ms) {
  const format = once('ago', (locale) => new Intl.RelativeTimeFormat(locale, { numeric: 'auto' }));
  const seconds = Math.round(-ms / 1000);
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [['day', 86_400], ['hour', 3600], ['minute', 60]];
  for (const [unit, length] of units) {
    if (Math.abs(seconds) >= length) return format.format(Math.trunc(seconds / length), unit);
  }
  return format.format(seconds, 'second');
}

/**
 * The beginning of an order's or payment's id: enough to tell one's own apart.
 * @param {string} id
 */
export function shortId(id) {
  return `${id.slice(0, 8)}…${id.slice(-4)}`;
}

text.add({
  en: {
    'format.instant': '{time} ({zone})',
    'format.days': { one: '{n} day {clock}', other: '{n} days {clock}' },
    'format.seconds': { one: '{n} second', other: '{n} seconds' },
    'format.minutes': { one: '{n} minute', other: '{n} minutes' },
    'format.hours': { one: '{n} hour', other: '{n} hours' },
    'format.whole_days': { one: '{n} day', other: '{n} days' },
  },
  zh: {
    'format.instant': '{time}（{zone}）',
    'format.days': '{n} 天 {clock}',
    'format.seconds': '{n} 秒',
    'format.minutes': '{n} 分钟',
    'format.hours': '{n} 小时',
    'format.whole_days': '{n} 天',
  },
});
