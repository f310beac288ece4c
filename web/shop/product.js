// What a product is at a moment.

/**
 * @typedef {import('../../target/openapi-types/api').components['schemas']} Schemas
 * @typedef {Schemas['SaleState']} SaleState
 * @typedef {Schemas['Product']} Product
 */

/**
 * The state by the server's word and its clock. Nobody has to tell a page that the time has come; and if somebody does before the
 * page's clock says so, they are right.
 * @param {Product} product
 * @param {number} now by the server's clock
 * @returns {SaleState}
 */
export function saleState(product, now) {
  if (product.ends_at && now >= Date.parse(product.ends_at)) return 'ended';
  if (product.state !== 'upcoming' || now < Date.parse(product.starts_at)) return product.state;
  if (product.paused) return 'paused';
  return product.remaining === 0 ? 'sold_out' : 'live';
}

/**
 * The product after an event about it.
 * @param {Product} product
 * @param {import('../lib/stream.js').ProductEvent} event
 * @returns {Product}
 */
export function merged(product, event) {
  return { ...product, ...event, paused: event.state === 'upcoming' ? product.paused : event.state === 'paused' };
}

/**
 * How long it took until everything was sold.
 * @param {Product} product
 * @returns {number | null} in ms
 */
export function soldOutWithin(product) {
  if (!product.sold_out_at) return null;
  const ms = Date.parse(product.sold_out_at) - Date.parse(product.starts_at);
  return ms >= 0 ? ms : null;
}
