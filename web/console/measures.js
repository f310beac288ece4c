/** The measurements of the check page. Each says what it found, perhaps more than once. */

import { api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { text, t } from '../lib/text.js';
import { parts } from './words.js';

/** @import { Check, Page, Product } from './types.js' */

/**
 * @typedef {object} Finding
 * @property {'good' | 'note' | 'warn' | 'bad'} verdict
 * @property {string} words
 * @property {string[]} [facts]
 *
 * @typedef {{ signal: AbortSignal, show: (finding: Finding) => void }} Task
 */

/** The server's answers are the same for several measurements. @type {Promise<Check> | null} */
let asked = null;
const check = (/** @type {AbortSignal} */ signal) => {
  asked ??= api.get('/admin/check', { signal }).then(({ body }) => body);
  asked.finally(() => (asked = null)).catch(() => {});
  return asked;
};

const ms = (/** @type {number} */ value) => t('check.ms', { n: Math.round(value) });
const wait = (/** @type {number} */ time) => new Promise((resolve) => setTimeout(resolve, time));

/** @param {Task} task */
async function clocks({ signal, show }) {
  /** @type {{ trip: number, ahead: number } | null} */
  let best = null;
  for (let tries = 0; tries < 5; tries += 1) {
    const asked = performance.now();
    const { body } = await api.get('/time', { signal });
    const trip = performance.now() - asked;
    // What the device's clock showed in the middle of the trip.
    const ahead = Date.now() - trip / 2 - Date.parse(body.now);
    if (best === null || trip < best.trip) best = { trip, ahead };
    await wait(100);
  }
  if (!best) return;
  const { trip, ahead } = best;
  const facts = [t('check.clock.trip', { time: ms(trip) }), t('check.clock.exact', { time: ms(clock.uncertainty()) })];
  if (Math.abs(ahead) < 1_000) show({ verdict: 'good', words: t('check.clock.good', { time: ms(Math.abs(ahead)) }), facts });
  else show({ verdict: Math.abs(ahead) < 15_000 ? 'note' : 'warn', words: t(ahead > 0 ? 'check.clock.ahead' : 'check.clock.behind', { time: parts(ahead, text.language()) }), facts });
}

/** @param {Task} task */
async function address({ signal, show }) {
  const seen = await check(signal);
  const peer = seen.peer_address ?? '–';
  const facts = [
    t('check.address.client', { address: seen.client_address }),
    t('check.address.peer', { address: peer }),
    t('check.address.forwarded', { value: seen.forwarded_for ?? '–' }),
  ];
  if (seen.via_proxy) show({ verdict: 'good', words: t('check.address.proxy'), facts });
  else if (seen.forwarded_for !== null) show({ verdict: 'bad', words: t('check.address.untrusted', { address: peer }), facts });
  else show({ verdict: isLocal(location.hostname) || !isPrivate(peer) ? 'good' : 'warn', words: t(isPrivate(peer) && !isLocal(location.hostname) ? 'check.address.silent' : 'check.address.direct'), facts });
}

/** @param {string} host */
const isLocal = (host) => host === 'localhost' || host === '[::1]' || host.startsWith('127.') || isPrivate(host);

/** @param {string} address */
const isPrivate = (address) => /^(10\.|127\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|::1$|f[cd]|fe80)/i.test(address);

/** @param {Task} task */
async function secure({ signal, show }) {
  const seen = await check(signal);
  const here = location.protocol.replace(':', '');
  const facts = [t('check.secure.browser', { scheme: here, host: location.host }), t('check.secure.server', { scheme: seen.scheme ?? '–', host: seen.host ?? '–' })];
  if (seen.host !== location.host) return show({ verdict: 'warn', words: t('check.secure.host'), facts });
  if (here === 'https') return show({ verdict: 'good', words: t('check.secure.good'), facts });
  show(isLocal(location.hostname) ? { verdict: 'note', words: t('check.secure.local'), facts } : { verdict: 'bad', words: t('check.secure.bad'), facts });
}

/** @param {Task} task */
async function protocol({ signal, show }) {
  const seen = await check(signal);
  const entries = /** @type {PerformanceResourceTiming[]} */ (performance.getEntriesByType('resource'));
  const here = entries.findLast((entry) => entry.name.startsWith(location.origin) && entry.nextHopProtocol)?.nextHopProtocol ?? '';
  const facts = [t('check.protocol.browser', { version: here || '–' }), t('check.protocol.server', { version: seen.http_version })];
  if (here === 'h2' || here === 'h3') show({ verdict: 'good', words: t('check.protocol.good'), facts });
  else show({ verdict: isLocal(location.hostname) ? 'note' : 'warn', words: t('check.protocol.old'), facts });
}

/** How long the first bytes and the first event may take beyond a trip. */
const LATE = 1_500;
const COMMENT_WITHIN = 20_000;

/** @param {Task} task */
async function events({ signal, show }) {
  const { items } = /** @type {Page<Product>} */ ((await api.get('/products?limit=1', { signal })).body);
  const product = items[0]?.id ?? 1;
  const asked = performance.now();
  const ended = new AbortController();
  signal.addEventListener('abort', () => ended.abort());
  const patience = setTimeout(() => ended.abort(), 8_000);
  /** @type {string[]} */
  const facts = [];
  let firstByte = NaN;
  let lag = NaN;
  let heard = '';
  try {
    const reply = await fetch(`/events?products=${product}`, { headers: { Accept: 'text/event-stream' }, cache: 'no-store', signal: ended.signal });
    if (!reply.ok || !reply.body) return show({ verdict: 'bad', words: t('check.events.refused', { status: reply.status }) });
    facts.push(t('check.events.headers', { buffering: reply.headers.get('X-Accel-Buffering') ?? '–', cache: reply.headers.get('Cache-Control') ?? '–', encoding: reply.headers.get('Content-Encoding') ?? '–' }));
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    while (true) {
      const { value, done } = await reader.read();
      if (done) break;
      if (Number.isNaN(firstByte)) firstByte = performance.now() - asked;
      heard += value;
      const told = /"server_time":"([^"]+)"/.exec(heard)?.[1];
      if (told && Number.isNaN(lag)) {
        lag = Math.max(0, clock.now() - Date.parse(told));
        clearTimeout(patience);
        facts.unshift(t('check.events.first', { first: ms(firstByte), lag: ms(lag) }));
        if (firstByte > LATE || lag > LATE) return void show({ verdict: 'bad', words: t('check.events.late'), facts });
        show({ verdict: 'good', words: t('check.events.good'), facts: [...facts, t('check.events.waiting')] });
        heard = '';
        setTimeout(() => ended.abort(), COMMENT_WITHIN);
      } else if (!Number.isNaN(lag) && /^:/m.test(heard)) {
        const seconds = ((performance.now() - asked) / 1_000).toFixed(1);
        return void show({ verdict: 'good', words: t('check.events.good'), facts: [...facts, t('check.events.comment', { n: seconds })] });
      }
    }
    show({ verdict: 'bad', words: t('check.events.broken'), facts });
  } catch (error) {
    if (signal.aborted) return;
    if (!ended.signal.aborted) throw error;
    if (Number.isNaN(firstByte)) show({ verdict: 'bad', words: t('check.events.silent'), facts });
    else if (Number.isNaN(lag)) show({ verdict: items.length === 0 ? 'note' : 'bad', words: t(items.length === 0 ? 'check.events.no_sale' : 'check.events.silent'), facts: [...facts, t('check.events.byte', { first: ms(firstByte) })] });
    else show({ verdict: 'warn', words: t('check.events.no_comment'), facts });
  } finally {
    clearTimeout(patience);
    ended.abort();
  }
}

/** Headers of a page, and what has to be in them. @type {[string, RegExp][]} */
const WANTED = [
  ['Content-Security-Policy', /default-src 'none'.*frame-ancestors 'none'/],
  ['X-Content-Type-Options', /^nosniff$/],
  ['Referrer-Policy', /^(no-referrer|same-origin|strict-origin)/],
];

/** @param {Task} task */
async function headers({ signal, show }) {
  const page = await fetch('/console', { method: 'HEAD', cache: 'no-store', signal });
  const facts = WANTED.map(([name]) => `${name}: ${page.headers.get(name) ?? '–'}`);
  const missing = WANTED.filter(([name, pattern]) => !pattern.test(page.headers.get(name) ?? '')).map(([name]) => name);
  if (missing.length > 0) show({ verdict: 'bad', words: t('check.headers.bad', { names: missing.join(', ') }), facts });
  else show({ verdict: 'good', words: t('check.headers.good'), facts });
}

/** @param {Task} task */
async function caching({ signal, show }) {
  const [asset, page] = await Promise.all([fetch(import.meta.url, { method: 'HEAD', signal }), fetch('/console', { method: 'HEAD', cache: 'no-store', signal })]);
  const [ofAsset, ofPage] = [asset, page].map((reply) => reply.headers.get('Cache-Control') ?? '');
  const facts = [t('check.caching.asset', { value: ofAsset || '–' }), t('check.caching.page', { value: ofPage || '–' })];
  const isGood = /immutable/.test(ofAsset ?? '') && /no-cache|max-age=0/.test(ofPage ?? '');
  show({ verdict: isGood ? 'good' : 'warn', words: t(isGood ? 'check.caching.good' : 'check.caching.bad'), facts });
}

/** @param {Task} task */
async function ready({ signal, show }) {
  const reply = await fetch('/readyz', { cache: 'no-store', signal });
  const body = await reply.json().catch(() => null);
  const checks = body?.checks ? Object.entries(body.checks).map(([name, state]) => `${name}: ${typeof state === 'string' ? state : JSON.stringify(state)}`) : [];
  show(reply.ok ? { verdict: 'good', words: t('check.ready.good'), facts: checks } : { verdict: 'bad', words: t('check.ready.bad'), facts: checks });
}

/** @type {{ name: string, measure: (task: Task) => Promise<void> }[]} */
export const measures = [
  { name: 'clock', measure: clocks },
  { name: 'events', measure: events },
  { name: 'address', measure: address },
  { name: 'secure', measure: secure },
  { name: 'protocol', measure: protocol },
  { name: 'headers', measure: headers },
  { name: 'caching', measure: caching },
  { name: 'ready', measure: ready },
];
