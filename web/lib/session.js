// Who is logged in. The token is kept in the browser and sent in a header; it is never part of an address.

import { clock } from './clock.js';
import { Listeners } from './events.js';
import { Offline } from './offline.js';
import { store } from './store.js';

/**
 * @typedef {{id: number, username: string, role: 'buyer' | 'admin'}} User
 * @typedef {{token: string, user: User, expiresAt: number}} Kept  `expiresAt` by the server's clock
 */

const KEY = 'seckill.session';

/** @type {Listeners<[User | null]>} */
const listeners = new Listeners();

/** @type {Kept | null} */
let current = read();
let isExpired = false;

/** @returns {Kept | null} */
function read() {
  const kept = store.get(KEY);
  return kept && typeof kept.token === 'string' && kept.user && typeof kept.expiresAt === 'number' ? kept : null;
}

/**
 * When a token ends, by the clock of who issued it.
 * @param {string} token
 * @returns {number | null}
 */
function endOf(token) {
  try {
    const claims = JSON.parse(atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')));
    return typeof claims.exp === 'number' ? claims.exp * 1000 : null;
  } catch {
    return null;
  }
}

/**
 * @param {string} token
 * @returns {Promise<User>}
 */
async function profile(token) {
  try {
    const reply = await fetch('/me', { headers: { Authorization: `Bearer ${token}` }, credentials: 'omit', signal: AbortSignal.timeout(10_000) });
    if (reply.ok) return await reply.json();
  } catch (error) {
    throw new Offline(error);
  }
  throw new Offline();
}

/** @param {Kept | null} next */
function become(next) {
  const before = current?.token;
  current = next;
  if (before !== next?.token) listeners.tell(next?.user ?? null);
}

// Another tab logs in or out: this one follows.
window.addEventListener('storage', (event) => {
  if (event.key === KEY || event.key === null) become(read());
});

export const session = {
  /** @returns {string | null} */
  token: () => current?.token ?? null,

  /** @returns {User | null} */
  user: () => current?.user ?? null,

  /** When the log-in ends, in ms by the server's clock. */
  expiresAt: () => current?.expiresAt ?? null,

  /** Whether it outlasts this tab. */
  isKept: () => store.isKept(),

  /** Whether the last log-in was not ended by its user. */
  hasExpired: () => isExpired,

  /**
   * Logs in with a token that was just issued.
   * @param {string} token
   * @param {number} expiresIn seconds
   * @returns {Promise<User>}
   */
  async start(token, expiresIn) {
    const { id, username, role } = await profile(token);
    const user = { id, username, role };
    isExpired = false;
    const next = { token, user, expiresAt: endOf(token) ?? clock.now() + expiresIn * 1000 };
    store.set(KEY, next);
    become(next);
    return user;
  },

  /** The user logs out. */
  end() {
    isExpired = false;
    store.remove(KEY);
    become(null);
  },

  /** The server does not take the token any more. */
  expire() {
    if (!current) return;
    isExpired = true;
    store.remove(KEY);
    become(null);
  },

  /**
   * @param {'change'} _event
   * @param {(user: User | null) => void} listener
   */
  on: (_event, listener) => listeners.add(listener),
};
