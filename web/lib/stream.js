// What the server tells by itself (server-sent events). A page that nobody looks at does not listen; after a lost connection all
// pages come back at different times; and where a proxy holds events back, the page asks instead.

import { api, ApiError } from './api.js';
import { clock } from './clock.js';
import { session } from './session.js';

/**
 * @typedef {'live' | 'lost'} StreamState
 * @typedef {{data: () => void, lost: () => void, ended: () => void, over: () => void}} Events
 *   What a connection tells: it brought data; it is gone; the server has ended it, as it does now and then; there is nothing to listen
 *   to any more.
 * @typedef {{connect: (events: Events) => () => void, look: (signal: AbortSignal) => Promise<void>, onState: (state: StreamState) => void}} Source
 */

/** A browser has six connections to a server without HTTP/2, for all its tabs. */
const HIDDEN_CLOSES_AFTER_MS = 10_000;
/** The first event comes at once. If it does not, something in between holds it back. */
const FIRST_EVENT_WITHIN_MS = 6000;
const RECONNECT_MS = 6000;
const RECONNECT_AT_MOST_MS = 30_000;
/** The server says something every 15 seconds. Whoever hears nothing for longer listens to a connection that is dead. */
const SILENCE_MS = 40_000;
const POLL_MS = 3000;
/** A connection that lived so long was a good one. */
const GOOD_AFTER_MS = 30_000;
/** The server ends those of an order after five minutes, to look at the token again. Before that it is about to stop. */
const RENEWED_AFTER_MS = 290_000;

/** @param {number} upTo */
const jitter = (upTo) => Math.random() * upTo;

/**
 * Holds a connection while the page is looked at.
 * @param {Source} source
 * @returns {() => void} stops it
 */
function hold({ connect, look, onState }) {
  /** @type {(() => void) | null} */
  let disconnect = null;
  /** @type {Set<ReturnType<typeof setTimeout>>} */
  const timers = new Set();
  /** @type {AbortController | null} */
  let asking = null;
  let failures = 0;
  let silences = 0;
  let isOver = false;
  /** @type {StreamState | null} */
  let state = null;

  /** @param {StreamState} next */
  const become = (next) => {
    if (state === next || isOver) return;
    state = next;
    onState(next);
  };

  /**
   * @param {number} ms
   * @param {() => void} then
   */
  const later = (ms, then) => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      then();
    }, ms);
    timers.add(timer);
    return timer;
  };

  const close = () => {
    for (const timer of timers) clearTimeout(timer);
    timers.clear();
    asking?.abort();
    asking = null;
    disconnect?.();
    disconnect = null;
  };

  const stop = () => {
    close();
    isOver = true;
    document.removeEventListener('visibilitychange', onVisibility);
    window.removeEventListener('pagehide', close);
    window.removeEventListener('pageshow', onShow);
    window.removeEventListener('online', onOnline);
    window.removeEventListener('offline', onOffline);
  };

  const open = () => {
    if (isOver || disconnect || asking || document.hidden) return;
    close();
    if (silences >= 2) {
      poll();
      return;
    }
    const openedAt = performance.now();
    let hasSpoken = false;
    const patience = later(FIRST_EVENT_WITHIN_MS, () => {
      silences += 1;
      again();
    });
    const again = () => {
      if (isOver) return;
      close();
      become('lost');
      if (performance.now() - openedAt > GOOD_AFTER_MS) failures = 0;
      const upTo = Math.min(RECONNECT_AT_MOST_MS, RECONNECT_MS * 2 ** failures);
      failures += 1;
      later(jitter(upTo), open);
    };
    let silence = later(SILENCE_MS, again);
    disconnect = connect({
      data: () => {
        clearTimeout(silence);
        timers.delete(silence);
        silence = later(SILENCE_MS, again);
        if (!hasSpoken) {
          hasSpoken = true;
          silences = 0;
          clearTimeout(patience);
          timers.delete(patience);
        }
        become('live');
      },
      lost: again,
      ended() {
        if (performance.now() - openedAt < RENEWED_AFTER_MS) {
          again();
          return;
        }
        close();
        later(jitter(1000), open);
      },
      over: stop,
    });
  };

  /** Asks again and again, and now and then tries to listen. */
  const poll = () => {
    let asked = 0;
    const once = async () => {
      asking = new AbortController();
      const { signal } = asking;
      try {
        await look(signal);
        failures = 0;
        become('live');
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        become('lost');
        if (error instanceof ApiError && (error.status === 404 || error.status === 401)) {
          stop();
          return;
        }
      }
      asked += 1;
      if (asked >= 20) {
        silences = 1;
        later(0, () => {
          asking = null;
          open();
        });
        return;
      }
      later(POLL_MS + jitter(Math.min(RECONNECT_AT_MOST_MS, POLL_MS * 2 ** failures)), once);
    };
    void once();
  };

  const onVisibility = () => {
    if (document.hidden) {
      later(HIDDEN_CLOSES_AFTER_MS, () => document.hidden && close());
    } else {
      open();
    }
  };
  // With an open connection a page is not kept for "back".
  const onShow = () => {
    if (!document.hidden) open();
  };
  const onOnline = () => {
    if (document.hidden) return;
    failures = 0;
    close();
    later(jitter(1000), open);
  };
  const onOffline = () => become('lost');

  document.addEventListener('visibilitychange', onVisibility);
  window.addEventListener('pagehide', close);
  window.addEventListener('pageshow', onShow);
  window.addEventListener('online', onOnline);
  window.addEventListener('offline', onOffline);
  if (document.hidden) later(0, () => void look(AbortSignal.timeout(10_000)).catch(() => become('lost')));
  else open();
  return stop;
}

/**
 * What a product's event says; `held` units are in unpaid orders and may come back.
 * @typedef {import('../../target/openapi-types/api').components['schemas']['ProductEvent']} ProductEvent
 */

/**
 * Listens to products.
 * @param {number[]} ids 20 at most
 * @param {{onProduct: (product: ProductEvent) => void, onState?: (state: StreamState) => void}} listeners
 * @returns {() => void} stops it
 */
export function listenToProducts(ids, { onProduct, onState = () => {} }) {
  if (ids.length === 0) return () => {};
  return hold({
    onState,
    connect({ data, lost }) {
      const source = new EventSource(`/events?products=${ids.join(',')}`);
      /** @type {Map<number, ProductEvent>} */
      const newest = new Map();
      source.addEventListener('product', (event) => {
        const product = JSON.parse(event.data);
        newest.set(product.id, product);
        clock.heard(product.server_time);
        data();
        onProduct(product);
      });
      // Nothing has changed, and that is known of now.
      source.addEventListener('alive', (event) => {
        const { server_time } = JSON.parse(event.data);
        clock.heard(server_time);
        data();
        for (const product of newest.values()) onProduct({ ...product, server_time });
      });
      // By itself it would come back after the same time on every page.
      source.addEventListener('error', () => {
        source.close();
        lost();
      });
      return () => source.close();
    },
    async look(signal) {
      for (const id of ids) onProduct((await api.get(`/products/${id}`, { signal, auth: false, isFresh: true })).body);
    },
  });
}

/**
 * Listens to an order of one's own, until nothing can become of it any more.
 * @param {string} id
 * @param {{onOrder: (order: any) => void, onState?: (state: StreamState) => void}} listeners
 * @returns {() => void} stops it
 */
export function listenToOrder(id, { onOrder, onState = () => {} }) {
  return hold({
    onState,
    connect(events) {
      const abort = new AbortController();
      void read(`/orders/${id}/events`, abort.signal, (name, json) => {
        events.data();
        if (name === 'order') onOrder(JSON.parse(json));
      }).then(
        (isThere) => {
          if (abort.signal.aborted) return;
          if (isThere) events.ended();
          else events.over();
        },
        () => {
          if (!abort.signal.aborted) events.lost();
        },
      );
      return () => abort.abort();
    },
    async look(signal) {
      onOrder((await api.get(`/orders/${id}`, { signal })).body);
    },
  });
}

/**
 * Reads events as an EventSource does, which cannot send a token.
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {(name: string, data: string) => void} onEvent
 * @returns {Promise<boolean>} whether there is something to listen to; resolved when the stream ends
 */
async function read(path, signal, onEvent) {
  const token = session.token();
  if (!token) return false;
  const headers = { Accept: 'text/event-stream', Authorization: `Bearer ${token}` };
  const reply = await fetch(path, { headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  if (reply.status === 401) {
    if (token === session.token()) session.expire();
    return false;
  }
  if (reply.status === 403 || reply.status === 404) return false;
  if (!reply.ok || !reply.body) throw new Error(`${path} answered ${reply.status}`);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let name = '';
  /** @type {string[]} */
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return true;
    const lines = (rest + value).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines.map((line) => line.replace(/\r$/, ''))) {
      if (line === '') {
        if (data.length > 0) onEvent(name || 'message', data.join('\n'));
        name = '';
        data = [];
      } else if (line.startsWith('event:')) {
        name = line.slice(6).trim();
      } else if (line.startsWith('data:')) {
        data.push(line.slice(5).replace(/^ /, ''));
      }
    }
  }
}
