// Calls of the server's API.

import { Offline } from './offline.js';
import { session } from './session.js';

export { Offline };

/**
 * @typedef {{status: number, body: any, headers: Headers}} Reply
 * @typedef {{
 *   signal?: AbortSignal,
 *   auth?: boolean,
 *   idempotencyKey?: string,
 *   ifRevision?: number,
 *   timeout?: number,
 *   as?: 'json' | 'text' | 'blob',
 *   isFresh?: boolean,
 * }} Options
 *   `auth: false` sends no token. `ifRevision`: only if the product still has it. `isFresh`: not from the browser's cache, which knows an older `server_time`.
 */

const TIMEOUT_MS = 10_000;
/** When many log in, the server holds a request for 20 s until its turn to hash a password comes. */
export const PASSWORD_TIMEOUT_MS = 30_000;

/** A refusal, as the server says it (RFC 9457). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {any} body
   * @param {Headers} headers
   */
  constructor(status, body, headers) {
    super(body?.detail ?? `HTTP ${status}`);
    this.name = 'ApiError';
    this.status = status;
    /** @type {string} */
    this.code = body?.code ?? (status >= 500 ? 'unavailable' : 'unknown');
    /** @type {string} */
    this.detail = body?.detail ?? '';
    this.body = body ?? {};
    this.requestId = headers.get('X-Request-Id');
    const wait = Number.parseInt(headers.get('Retry-After') ?? '', 10);
    /** In seconds. */
    this.retryAfter = Number.isFinite(wait) ? wait : null;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @param {Options} options
 * @returns {Promise<Reply>}
 */
async function request(method, path, body, options) {
  const token = options.auth === false ? null : session.token();
  /** @type {Record<string, string>} */
  const headers = { Accept: 'application/json' };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (options.ifRevision !== undefined) headers['If-Match'] = `"${options.ifRevision}"`;
  if (options.idempotencyKey) headers['Idempotency-Key'] = options.idempotencyKey;
  const signals = [AbortSignal.timeout(options.timeout ?? TIMEOUT_MS)];
  if (options.signal) signals.push(options.signal);
  const abort = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) abort.abort(signal.reason);
    else signal.addEventListener('abort', () => abort.abort(signal.reason), { once: true });
  }
  let reply;
  let content;
  try {
    reply = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: abort.signal,
      cache: method === 'GET' && !options.isFresh ? 'no-cache' : 'no-store',
      credentials: 'omit',
    });
    content = await contentOf(reply, options.as ?? 'json');
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Offline(error);
  }
  if (reply.ok) return { status: reply.status, body: content, headers: reply.headers };
  const refusal = new ApiError(reply.status, content, reply.headers);
  // A token that was replaced meanwhile says nothing about the new one.
  if (refusal.code === 'unauthorized' && token && token === session.token()) session.expire();
  throw refusal;
}

/**
 * @param {Response} reply
 * @param {'json' | 'text' | 'blob'} as
 */
async function contentOf(reply, as) {
  if (reply.ok && as === 'blob') return reply.blob();
  const text = await reply.text();
  if (reply.ok && as === 'text') return text;
  try {
    return text === '' ? null : JSON.parse(text);
  } catch {
    // A proxy's page of its own, for example.
    return null;
  }
}

export const api = {
  /**
   * @param {string} path
   * @param {Options} [options]
   */
  get: (path, options = {}) => request('GET', path, undefined, options),
  /**
   * @param {string} path
   * @param {unknown} [body]
   * @param {Options} [options]
   */
  post: (path, body, options = {}) => request('POST', path, body, options),
  /**
   * @param {string} path
   * @param {unknown} body
   * @param {Options} [options]
   */
  patch: (path, body, options = {}) => request('PATCH', path, body, options),
  /**
   * @param {string} path
   * @param {Options} [options]
   */
  delete: (path, options = {}) => request('DELETE', path, undefined, options),
};
