// A client whose types are generated from the API's description buys something, and pays. `scripts/test-openapi` checks its types, so
// that a field that is not described does not pass, and runs it: node buy.js ADDRESS ADMINISTRATOR PASSWORD

import createClient from 'openapi-fetch';

/**
 * @typedef {import('../../target/openapi-types/api').paths} paths
 * @typedef {import('../../target/openapi-types/api').components['schemas']} schemas
 * @typedef {import('openapi-fetch').Client<paths>} Client
 * @typedef {Awaited<ReturnType<typeof refusalOf>>} Refusal
 */

const ORDER_WITHIN_MS = 10_000;
const POLL_EVERY_MS = 50;

const [address = '', administrator = '', adminPassword = ''] = process.argv.slice(2);

/**
 * @param {string} [token]
 * @returns {Client}
 */
function clientOf(token) {
  /** @type {Record<string, string>} */
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return createClient({ baseUrl: address, headers, fetch: (request) => fetch(request, { signal: AbortSignal.timeout(10_000) }) });
}

/**
 * @template T
 * @param {{data?: T, error?: unknown, response: Response}} reply
 * @returns {T}
 */
function granted({ data, error, response }) {
  if (data === undefined) throw new Error(`${response.url}: ${response.status} ${JSON.stringify(error)}`);
  return data;
}

/** @param {unknown} actual @param {unknown} expected @param {string} what */
function check(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
}

/** @param {never} code */
function unknown(code) {
  throw new Error(`the description knows no such refusal of a purchase: ${code}`);
}

/**
 * What a buyer is told. Each refusal that is described has its line, or this does not pass.
 * @param {Refusal} refusal
 */
function words(refusal) {
  switch (refusal.code) {
    case 'not_started':
      return `opens at ${refusal.starts_at}`;
    case 'already_purchased':
      return `you have it: ${refusal.order_id}`;
    case 'not_enough_left':
      return `only ${refusal.remaining} left`;
    case 'sold_out':
    case 'address_limit':
    case 'ended':
    case 'paused':
      return refusal.code;
    case 'rate_limited':
    case 'unavailable':
      return 'ask again';
    case 'unauthorized':
      return 'log in';
    case 'product_not_found':
    case 'invalid_request':
    case 'payload_too_large':
    case 'unsupported_media_type':
    case 'internal':
      return refusal.detail;
    default:
      return unknown(refusal);
  }
}

/** @param {Client} buyer @param {number} id @param {number} [quantity] */
async function refusalOf(buyer, id, quantity) {
  const { error, response } = await buyer.POST('/seckill/{id}', { params: { path: { id } }, body: { quantity } });
  if (!error) throw new Error(`product ${id} was sold: ${response.status}`);
  return error;
}

/** @param {Client} buyer @param {string} id */
async function written(buyer, id) {
  const until = Date.now() + ORDER_WITHIN_MS;
  for (;;) {
    const order = granted(await buyer.GET('/orders/{id}', { params: { path: { id } } }));
    if (order.status !== 'queued') return order;
    if (Date.now() > until) throw new Error(`order ${id} is still queued`);
    await new Promise((resolve) => setTimeout(resolve, POLL_EVERY_MS));
  }
}

/** @param {Partial<schemas['CreateProduct']>} fields @param {Client} admin */
async function newProduct(admin, fields) {
  const body = { name: 'Sneaker', price_cents: 19900, stock: 2, max_per_order: 2, ...fields };
  return granted(await admin.POST('/products', { body }));
}

async function main() {
  const anyone = clientOf();
  const credentials = { username: `client-${Date.now()}`, password: 'correct horse' };
  const registered = granted(await anyone.POST('/register', { body: credentials }));
  const buyer = clientOf(registered.access_token);
  const login = await anyone.POST('/login', { body: { username: administrator, password: adminPassword } });
  const admin = clientOf(granted(login).access_token);

  const product = await newProduct(admin, {});
  check(product.state, 'live', 'a new sale');
  const { data: promise } = await buyer.POST('/seckill/{id}', { params: { path: { id: product.id } } });
  if (!promise) throw new Error('nothing was sold');
  check(promise.status, 'queued', 'a promise');
  const order = await written(buyer, promise.order_id);
  check(order.status, 'unpaid', 'the order');
  check(order.total_cents, product.price_cents, 'its price');

  const start = await buyer.POST('/orders/{id}/payments', { params: { path: { id: order.id } } });
  const payment = granted(start);
  check(start.response.status, 201, 'a new payment');
  check(payment.status, 'pending', 'a new payment');
  check(payment.amount_cents, order.total_cents, 'its amount');
  const orders = granted(await buyer.GET('/orders', { params: { query: { limit: 10 } } }));
  check(orders.items.map(({ id }) => id).join(), order.id, "the buyer's orders");
  const sold = granted(await admin.GET('/admin/orders', { params: { query: { product_id: product.id, status: 'unpaid' } } }));
  check(sold.items[0]?.username, registered.username, 'who bought');

  const later = await newProduct(admin, { starts_at: '2100-01-01T00:00:00Z' });
  const none = await newProduct(admin, { stock: 0 });
  const one = await newProduct(admin, { stock: 1 });
  const paused = await newProduct(admin, {});
  granted(await admin.PATCH('/products/{id}', { params: { path: { id: paused.id } }, body: { paused: true } }));
  check(words(await refusalOf(buyer, product.id)), `you have it: ${order.id}`, 'a second click');
  check(words(await refusalOf(buyer, later.id)), 'opens at 2100-01-01T00:00:00.000Z', 'a click too early');
  check(words(await refusalOf(buyer, none.id)), 'sold_out', 'a click too late');
  check(words(await refusalOf(buyer, one.id, 2)), 'only 1 left', 'a click for two');
  check(words(await refusalOf(buyer, paused.id)), 'paused', 'a click in a pause');
  check(words(await refusalOf(anyone, product.id)), 'log in', "a stranger's click");
  check(words(await refusalOf(buyer, 9_007_199_254_740_991)), 'There is no such product.', 'a click for nothing');
}

await main();
