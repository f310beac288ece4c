/**
 * Times as a clock on a wall shows them in a zone, and the instants that they are.
 *
 * A wall time is a text: `2026-10-25T02:30:00`, as `<input type="datetime-local">` writes it. When the clocks go forward some wall times
 * never happen, and when they go back some happen twice. Only `Intl` knows the rules of the zones; it goes from instants to wall times,
 * so the way back is to try.
 */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();

/** @param {string} zone */
function formatOf(zone) {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formats.set(zone, format);
  }
  return format;
}

/**
 * Whether the browser knows a zone.
 * @param {string} zone
 */
export function isZone(zone) {
  try {
    formatOf(zone);
    return true;
  } catch {
    return false;
  }
}

/**
 * What the wall clock shows, written as if it were UTC: a number to count with.
 * @param {number} instant in ms
 * @param {string} zone
 */
function wallNumber(instant, zone) {
  /** @type {Record<string, number>} */
  const part = {};
  for (const { type, value } of formatOf(zone).formatToParts(instant)) part[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/**
 * How far a zone's clock is ahead of UTC at an instant, in ms.
 * @param {number} instant in ms
 * @param {string} zone
 */
export function offsetAt(instant, zone) {
  return wallNumber(instant, zone) - Math.floor(instant / 1000) * 1000;
}

/** @param {number} number */
function written(number) {
  return new Date(number).toISOString().slice(0, 19);
}

/**
 * The number of a wall time, or null: such as of 30 February, or of half a date.
 * @param {string} wall
 */
function readNumber(wall) {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?$/.exec(wall);
  if (!match) return null;
  const whole = `${wall.slice(0, 16)}:${match[6] ?? '00'}`;
  const number = Date.parse(`${whole}Z`);
  return Number.isNaN(number) || written(number) !== whole ? null : number;
}

/**
 * What the clock on the wall shows at an instant, to the second.
 * @param {number} instant in ms
 * @param {string} zone
 */
export function wallTime(instant, zone) {
  return written(wallNumber(instant, zone));
}

/**
 * All instants at which the clock shows a wall time: mostly one, none in a gap, two where the clocks went back. The first one first.
 * Null if it is no time at all.
 * @param {string} wall
 * @param {string} zone
 * @returns {number[] | null}
 */
export function instantsOf(wall, zone) {
  const number = readNumber(wall);
  if (number === null) return null;
  // No zone is more than 14 hours off, so one of these offsets holds before a change of the clocks that is near, and one after it.
  const offsets = new Set([-DAY, -DAY / 2, 0, DAY / 2, DAY].map((away) => offsetAt(number + away, zone)));
  const instants = [...offsets].map((offset) => number - offset).filter((instant) => wallNumber(instant, zone) === number);
  return instants.sort((one, other) => one - other);
}

/**
 * A wall time that never happens: what the clock shows last before the gap, and first after it. Null if it is in no gap.
 * @param {string} wall
 * @param {string} zone
 * @returns {{ from: string, to: string } | null}
 */
export function gapAround(wall, zone) {
  const number = readNumber(wall);
  if (number === null || instantsOf(wall, zone)?.length !== 0) return null;
  // The clock jumps over the wall time between these two: it shows less before, and more after.
  let before = Math.floor((number - DAY) / 1000);
  let after = Math.floor((number + DAY) / 1000);
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (wallNumber(middle * 1000, zone) < number) before = middle;
    else after = middle;
  }
  return { from: written(wallNumber(before * 1000, zone) + 1000), to: wallTime(after * 1000, zone) };
}

/**
 * An offset as people write it: `UTC+1`, `UTC−3:30`.
 * @param {number} instant in ms
 * @param {string} zone
 */
export function offsetName(instant, zone) {
  const offset = offsetAt(instant, zone);
  if (offset === 0) return 'UTC';
  const minutes = Math.round(Math.abs(offset) / 60_000);
  const rest = minutes % 60;
  return `UTC${offset < 0 ? '−' : '+'}${Math.floor(minutes / 60)}${rest ? `:${String(rest).padStart(2, '0')}` : ''}`;
}
