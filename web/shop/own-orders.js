// The buyer's own orders of a product, and what can be done with them.

import { api, ApiError, Offline } from '../lib/api.js';
import { session } from '../lib/session.js';

/**
 * @typedef {import('../../target/openapi-types/api').components['schemas']} Schemas
 * @typedef {Schemas['OrderStatus']} OrderStatus
 * @typedef {Schemas['Order']} Order
 * @typedef {Schemas['Payment']} Payment
 */

/** @param {Order} order whether it holds its units, or may come to hold them */
export const isLive = (order) => ['queued', 'unpaid', 'paid'].includes(order.status);

/** @param {Order} order whether anything can still become of it by itself */
export const isOpen = (order) => order.status === 'queued' || order.status === 'unpaid';

/** A payment cannot be begun later than this before the time is over. */
export const LAST_PAYMENT_MS = 10_000;

/**
 * The order of a product that counts: the live one, else the newest.
 * @param {number} productId
 * @param {AbortSignal} signal
 * @returns {Promise<Order | null>}
 */
export async function findOrder(productId, signal) {
  /** @type {Order[]} */
  const orders = (await api.get('/orders?limit=100', { signal })).body.items;
  const own = orders.filter((order) => order.product_id === productId);
  return own.find(isLive) ?? own[0] ?? null;
}

/**
 * The same, asked again until there is an answer; null if nobody is logged in any more.
 * @param {number} productId
 * @param {AbortSignal} signal
 */
export async function findOrderSurely(productId, signal) {
  for (let failures = 0; session.token() && !signal.aborted; failures += 1) {
    try {
      return await findOrder(productId, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof Offline || (error instanceof ApiError && error.status >= 429))) throw error;
      const wait = Math.max((error instanceof ApiError && error.retryAfter) || 0, Math.min(15, 2 ** failures)) * 1000;
      await new Promise((resolve) => setTimeout(resolve, wait + Math.random() * 1000));
    }
  }
  return null;
}

/**
 * What a 202 says, as an order.
 * @param {import('./purchase.js').Accepted} accepted
 * @param {import('./product.js').Product} product
 * @param {number} now
 * @returns {Order}
 */
export function orderOf(accepted, product, now) {
  const at = new Date(now).toISOString();
  return {
    id: accepted.order_id,
    product_id: product.id,
    product_name: product.name,
    price_cents: product.price_cents,
    quantity: accepted.quantity,
    total_cents: accepted.total_cents ?? product.price_cents * accepted.quantity,
    currency: product.currency,
    revision: product.revision,
    status: 'queued',
    reason: null,
    created_at: at,
    updated_at: at,
    expires_at: accepted.expires_at ?? null,
    paid_at: null,
  };
}

/**
 * Begins a payment, or goes on with the one that was begun, and leaves for where one pays.
 * @param {string} orderId
 */
export async function pay(orderId) {
  const payment = await untilNotBusy(() => api.post(`/orders/${orderId}/payments`));
  const url = payment.body.redirect_url;
  if (!url) throw new Error('the payment has no address');
  // The test provider's page leads back here; others are told where by their own settings.
  location.assign(url.startsWith('/pay/test/') ? `${url}?shop` : url);
}

/**
 * @param {string} orderId
 * @returns {Promise<Order>}
 */
export async function cancel(orderId) {
  return (await untilNotBusy(() => api.post(`/orders/${orderId}/cancel`))).body;
}

/**
 * Asks three times more if the server is busy. Both calls may be repeated.
 * @template T
 * @param {() => Promise<T>} ask
 * @returns {Promise<T>}
 */
async function untilNotBusy(ask) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      if (tries === 4 || !(error instanceof ApiError) || error.status !== 503) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 1) * 1000 + Math.random() * 500));
    }
  }
}
