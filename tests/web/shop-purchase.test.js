// From the click to the paid order, and all that can come between.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { Browser, inSeconds, PASSWORD, pause, requests, said, Server, until } from './support.js';

let server;
let browser;

before(async () => {
  // So that a test can say where a browser is.
  server = await Server.start({ SECKILL__SERVER__TRUSTED_PROXIES: '127.0.0.1' });
  browser = await Browser.launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = async (t, product, options = {}) => {
  const page = await browser.page(t, server, { path: `/shop/sales/${product.id}`, ...options });
  await page.locator('#buy').waitFor({ state: 'attached' });
  return page;
};
const buy = (page) => page.locator('#buy');
const own = (page, status) => page.locator(`.own[data-status=${status}]`);
const ordersOf = async (user) => (await server.api('GET', '/orders', { token: user.token })).body.items;
const purchases = (sent) => sent.filter(({ line }) => line.startsWith('POST /seckill/'));

test('a buyer signs up in the middle, buys, pays, and comes back to a paid order (case 15)', async (t) => {
  const product = await server.product({ name: 'Walnut lamp', stock: 5, max_per_order: 3 });
  const page = await open(t, product);
  await page.getByRole('button', { name: 'One more' }).click();
  await buy(page).click();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.locator('.other-form').click();
  await page.getByLabel('User name').fill('journey');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign up' }).click();
  // Back at the sale with what was chosen, one click away.
  await page.waitForURL(`**/shop/sales/${product.id}`);
  await until(() => page.evaluate(() => document.activeElement?.id === 'buy'), 'the button has the focus');
  assert.equal(await page.locator('.quantity-number').textContent(), '× 2');
  assert.match(await page.locator('.sale-hint').textContent(), /One more click/);
  await page.keyboard.press('Enter');
  await own(page, 'unpaid').waitFor();
  assert.match(await page.locator('.own-title').textContent(), /^Yours\. Pay within (15:00|14:5\d)$/);
  assert.ok(await page.evaluate(() => document.activeElement?.classList.contains('own-title')), 'the result has the focus');
  await pause(800);
  await page.getByRole('button', { name: 'Pay $39.80' }).click();
  await page.waitForURL('**/pay/test/*');
  await page.getByRole('button', { name: 'Pay', exact: true }).click();
  await until(async () => /\/shop\/orders\//.test(page.url()) || (await said(page)).includes('paid'), 'it is paid');
  await page.goto(`${server.url}/shop/orders`);
  await page.getByRole('link', { name: '2 × Walnut lamp' }).click();
  await own(page, 'paid').waitFor();
  assert.match(await said(page), /Paid\. It is yours\./);
  assert.match(await said(page), /\$39\.80/);
});

test('who comes from an address that has had its share is told so, and buys elsewhere', async (t) => {
  const product = await server.product({ name: 'Shared out', max_per_address: 1, stock: 3 });
  const at = async (address) => open(t, product, { user: await server.user(), extraHTTPHeaders: { 'X-Forwarded-For': address } });
  const first = await at('192.0.2.7');
  await buy(first).click();
  await own(first, 'unpaid').waitFor();
  const second = await at('192.0.2.7');
  await buy(second).click();
  await until(async () => (await said(second)).includes('Your network has had all that one network may buy.'), 'why not');
  assert.equal(await buy(second).isEnabled(), true);
  const elsewhere = await at('192.0.2.8');
  await buy(elsewhere).click();
  await own(elsewhere, 'unpaid').waitFor();
});

test('who signs up again because the answer was lost has the account, and a name of somebody else stays taken', async (t) => {
  const other = await server.user();
  const page = await browser.page(t, server, { path: '/shop/account?new=1', expects: [/net::ERR_FAILED/, /status of 409/, /status of 401/] });
  const signUp = async (name, isAnswered) => {
    await page.unroute('**/register');
    await page.route('**/register', async (route) => {
      if (isAnswered) return route.continue();
      await route.fetch();
      return route.abort();
    });
    await page.getByLabel('User name').fill(name);
    await page.getByLabel('Password', { exact: true }).fill(`${PASSWORD}, mine`);
    await page.getByRole('button', { name: 'Sign up' }).click();
  };
  const problem = (text) => page.locator('.field-error', { hasText: text }).waitFor();
  await signUp(other.username, false);
  await problem('No connection');
  await signUp(other.username, true);
  await problem('taken');
  await signUp('unheard', false);
  await problem('No connection');
  await signUp('unheard', true);
  await page.waitForURL('**/shop');
  await page.goto(`${server.url}/shop/account`);
  await page.locator('#page').getByText('unheard').waitFor();
});

test('whose turn to sign up has not come goes on without a click, unless something else is typed', async (t) => {
  const page = await browser.page(t, server, { path: '/shop/account?new=1', expects: [/status of 429/] });
  let refused = 0;
  await page.route('**/register', async (route) => {
    if (refused >= 3) return route.continue();
    refused += 1;
    return route.fulfill({ status: 429, headers: { 'Retry-After': '1' }, contentType: 'application/problem+json', body: JSON.stringify({ status: 429, code: 'rate_limited', detail: 'Too many tries.' }) });
  });
  const notYet = page.locator('.field-error', { hasText: 'goes on by itself in 1 second.' });
  await page.getByLabel('User name').fill('patient');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign up' }).click();
  await notYet.waitFor();
  await page.getByLabel('User name').fill('patient-2');
  await notYet.waitFor({ state: 'detached' });
  await pause(2_000);
  assert.equal(refused, 1, 'it waits for a click again');
  await page.getByRole('button', { name: 'Sign up' }).click();
  await page.waitForURL('**/shop');
  assert.equal(refused, 3);
  await page.goto(`${server.url}/shop/account`);
  await page.locator('#page').getByText('patient-2').waitFor();
});

test('case 6: double click, Enter and two tabs at once are one order, and one request at a time', async (t) => {
  const product = await server.product({ stock: 50 });
  const user = await server.user();
  const [first, second] = [await open(t, product, { user }), await open(t, product, { user })];
  const sent = [requests(first), requests(second)];
  await Promise.all([buy(first).dblclick(), buy(second).dblclick()]);
  await Promise.all([first, second].map((page) => own(page, 'unpaid').waitFor()));
  await pause(1000);
  assert.equal((await ordersOf(user)).length, 1);
  for (const one of sent) assert.ok(purchases(one).length <= 2, JSON.stringify(purchases(one)));
  const texts = await Promise.all([first, second].map((page) => page.locator('.own-title').textContent()));
  assert.deepEqual(texts.map((text) => text.startsWith('You already have one.')).sort(), [false, true]);
  assert.ok(!first.url().includes('/pay/') && !second.url().includes('/pay/'), 'the second click of a double click pays nothing');
});

test('case 6: on a slow network more clicks send nothing more; case 10: the focus stays on the button', async (t) => {
  const product = await server.product({ stock: 50 });
  const user = await server.user();
  const page = await open(t, product, { user });
  await page.route('**/seckill/*', async (route) => {
    await pause(1500);
    await route.continue();
  });
  const sent = requests(page);
  await buy(page).focus();
  await page.keyboard.press('Enter');
  await pause(300);
  assert.equal(await buy(page).getAttribute('aria-busy'), 'true');
  assert.equal(await buy(page).getAttribute('aria-disabled'), 'true');
  assert.ok(await page.evaluate(() => document.activeElement?.id === 'buy'), 'the button keeps the focus');
  assert.match(await page.locator('.sale-line').textContent(), /Your click is in/);
  assert.equal(await page.locator('#announcement').textContent(), 'Your click is in. Do not reload: it cannot be lost.');
  await page.keyboard.press('Enter');
  await buy(page).click({ force: true });
  await own(page, 'unpaid').waitFor();
  assert.equal(purchases(sent).length, 1);
});

test('a reload in the middle, and a connection that is lost after the click: the order is found again', async (t) => {
  const product = await server.product({ stock: 50 });
  const reloading = await server.user();
  const page = await open(t, product, { user: reloading });
  await page.evaluate((id) => {
    void fetch(`/seckill/${id}`, { method: 'POST', keepalive: true, headers: { Authorization: `Bearer ${JSON.parse(localStorage['seckill.session']).token}` } });
  }, product.id);
  await page.reload();
  await own(page, 'unpaid').waitFor();

  // The server has taken the click, and its answer is lost.
  const user = await server.user();
  const lost = await open(t, product, { user, expects: [/net::ERR_FAILED/] });
  let tries = 0;
  await lost.route('**/seckill/*', async (route) => {
    tries += 1;
    if (tries > 1) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await buy(lost).click();
  await lost.locator('.sale-line', { hasText: 'No connection' }).waitFor();
  await own(lost, 'unpaid').waitFor();
  assert.equal(tries, 2);
  assert.match(await lost.locator('.own-title').textContent(), /^You already have one\. Pay within/);
  assert.equal((await ordersOf(user)).length, 1);
});

test('busy and too fast: it waits as long as it is told, once a second at most, and goes on by itself', async (t) => {
  const product = await server.product({ stock: 50 });
  const page = await open(t, product, { user: await server.user(), expects: [/status of 502/] });
  const replies = [
    { status: 503, headers: { 'Retry-After': '1' }, body: '{"status":503,"code":"unavailable"}' },
    { status: 429, headers: { 'Retry-After': '2' }, body: '{"status":429,"code":"rate_limited"}' },
    { status: 502, body: '<html>a proxy</html>' },
  ];
  const at = [];
  await page.route('**/seckill/*', (route) => {
    at.push(Date.now());
    const reply = replies.shift();
    return reply ? route.fulfill(reply) : route.continue();
  });
  const sentences = [];
  await page.exposeFunction('noted', (text) => sentences.push(text));
  await page.evaluate(() => new MutationObserver(() => window.noted(document.querySelector('.sale-line').textContent)).observe(document.querySelector('.sale-line'), { childList: true, characterData: true, subtree: true }));
  await buy(page).click();
  await own(page, 'unpaid').waitFor({ timeout: 15_000 });
  const waits = at.slice(1).map((time, i) => time - at[i]);
  assert.ok(waits[0] >= 1000 && waits[1] >= 2000 && waits[2] >= 1000, `waits: ${waits}`);
  const all = sentences.join('\n');
  assert.match(all, /Busy\. Trying again in \d seconds?; you lose nothing\./);
  assert.match(all, /Too many tries\. The next one in \d seconds?, by itself\./);
});

test('nobody has to wait: "stop trying" ends it, and what was taken meanwhile is shown', async (t) => {
  const product = await server.product({ stock: 50 });
  const user = await server.user();
  const page = await open(t, product, { user });
  await page.route('**/seckill/*', async (route) => {
    await route.fetch();
    return route.fulfill({ status: 503, headers: { 'Retry-After': '30' }, body: '{"status":503,"code":"unavailable"}' });
  });
  await buy(page).click();
  await page.getByRole('button', { name: 'Stop trying' }).click();
  await own(page, 'unpaid').waitFor();
  assert.match(await page.locator('.own-title').textContent(), /^Yours/);
});

test('the server is killed after the click, and started again: the buyer has the order', async (t) => {
  const own_ = await Server.start();
  try {
    const product = await own_.product({ stock: 50 });
    const user = await own_.user();
    const page = await browser.page(t, own_, { path: `/shop/sales/${product.id}`, user, expects: [/net::ERR_/] });
    await page.locator('#buy').waitFor();
    await page.route('**/seckill/*', async (route) => {
      await route.fetch();
      await own_.kill();
      await route.abort();
    }, { times: 1 });
    await page.locator('#buy').click();
    await page.locator('.sale-line', { hasText: 'No connection' }).waitFor();
    await page.locator('.callout', { hasText: 'Connection lost' }).waitFor();
    await own_.restart();
    await page.locator('.own[data-status=unpaid]').waitFor({ timeout: 15_000 });
    const orders = (await own_.api('GET', '/orders', { token: user.token })).body.items;
    assert.equal(orders.length, 1);
  } finally {
    await own_.stop();
  }
});

test('not paid in time: the units come back, and both who lost and who waits see it by themselves', async (t) => {
  const product = await server.product({ stock: 1, payment_window_seconds: 5 });
  const slow = await server.user();
  const waiting = await open(t, product, { user: await server.user() });
  const page = await open(t, product, { user: slow });
  await buy(page).click();
  await own(page, 'unpaid').waitFor();
  await waiting.locator('.sale-panel[data-state=sold_out]').waitFor();
  await waiting.getByText('All units are taken. 1 is not paid yet and may come back.').first().waitFor();
  assert.equal(await buy(waiting).getAttribute('aria-disabled'), 'true');
  assert.equal(await page.getByRole('button', { name: 'Too late to begin a payment' }).getAttribute('aria-disabled'), 'true');
  await page.locator('.sale-note', { hasText: 'was not paid in time. You may buy again.' }).waitFor({ timeout: 12_000 });
  await until(async () => (await buy(waiting).getAttribute('aria-disabled')) === null, 'the button is back');
  assert.equal(await waiting.locator('#announcement').textContent(), 'You can buy again.');
  await buy(waiting).click();
  await own(waiting, 'unpaid').waitFor();
});

test('case 15: a log-in that ends too early is said before the start; one that ended keeps what was wanted', async (t) => {
  const user = await server.user();
  const soon = await server.product({ starts_at: inSeconds(600) });
  const claims = JSON.parse(Buffer.from(user.token.split('.')[1], 'base64url').toString());
  const short = { token: user.token, user: { id: Number(claims.sub), username: user.username, role: 'buyer' }, expiresAt: Date.now() + 20_000 };
  const early = await open(t, soon, { storage: { 'seckill.session': JSON.stringify(short) } });
  assert.match(await early.locator('.sale-hint').textContent(), /Your log-in ends at .* Log in again now\./);
  assert.equal(await buy(early).textContent(), 'Log in again');

  const product = await server.product({ stock: 5, max_per_order: 2 });
  const page = await open(t, product, { user });
  await server.api('POST', '/logout', { token: user.token });
  await page.getByRole('button', { name: 'One more' }).click();
  await pause(300);
  await buy(page).click();
  await page.getByText('Your log-in has ended.').waitFor({ timeout: 10_000 });
  await page.getByLabel('User name').fill(user.username);
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.waitForURL(`**/shop/sales/${product.id}`);
  assert.equal(await page.locator('.quantity-number').textContent(), '× 2');
  await buy(page).click();
  await own(page, 'unpaid').waitFor();
  assert.match(await said(page), /2 × Lamp/);
});

test('several units: fewer are left than were chosen', async (t) => {
  const product = await server.product({ stock: 3, max_per_order: 3 });
  const page = await open(t, product, { user: await server.user() });
  await page.getByRole('button', { name: 'One more' }).click();
  await page.getByRole('button', { name: 'One more' }).click();
  // Another buyer was faster, and the page has not heard of it.
  await page.route('**/events*', (route) => route.abort());
  await server.buy(await server.user(), product.id, 2);
  await buy(page).click();
  await page.getByText('Only 1 is left, fewer than you chose. Choose again.').first().waitFor();
  assert.equal(await page.locator('.quantity-number').textContent(), '× 1');
});

test('an order is cancelled after a question, and may be bought again', async (t) => {
  const product = await server.product({ stock: 2 });
  const user = await server.user();
  const order = await server.buy(user, product.id);
  const page = await browser.page(t, server, { path: `/shop/orders/${order.id}`, user });
  await page.getByRole('button', { name: 'Cancel the order' }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this order?' });
  await dialog.getByRole('button', { name: 'Back' }).click();
  assert.equal((await ordersOf(user))[0].status, 'unpaid');
  await page.getByRole('button', { name: 'Cancel the order' }).click();
  await dialog.getByRole('button', { name: 'Cancel the order' }).click();
  await own(page, 'cancelled').waitFor();
  assert.equal((await ordersOf(user))[0].status, 'cancelled');
  await page.locator('.facts').getByRole('link', { name: 'Lamp' }).click();
  await page.getByText('was cancelled. You may buy again.').waitFor();
  await buy(page).click();
  await own(page, 'unpaid').waitFor();
});

test('a payment that is declined, and money that must be given back, are said with the order', async (t) => {
  const product = await server.product({ stock: 5 });
  const user = await server.user();
  const order = await server.buy(user, product.id);
  await server.pay(user, order.id, 'decline');
  const page = await browser.page(t, server, { path: `/shop/orders/${order.id}`, user });
  await page.getByText('A payment of $19.90 was declined. No money moved.').waitFor();
  await server.pay(user, order.id);
  await own(page, 'paid').waitFor();
  await server.api('POST', `/admin/orders/${order.id}/cancel`, { body: { reason: 'broken' } });
  await page.getByText('$19.90 came too late or is not needed any more. You get it back from the shop.').waitFor();
});

test('a 202 is a promise: whatever is lost after it, the page shows the order and never "try again"', async (t) => {
  const product = await server.product({ stock: 5 });
  const page = await open(t, product, { user: await server.user(), expects: [/net::ERR_FAILED/] });
  await page.route('**/orders/**', (route) => route.abort());
  await buy(page).click();
  await own(page, 'queued').waitFor();
  assert.match(await said(page), /Accepted\.\n.*\n?.*Order \w{8}…\w{4} is being written\. Nobody can take it from you\./s);
  await pause(1500);
  assert.equal(await own(page, 'queued').count(), 1);
  await page.unroute('**/orders/**');
  await own(page, 'unpaid').waitFor({ timeout: 15_000 });
});

test('an order that could not be written says why, and that nothing was charged', async (t) => {
  const product = await server.product({ stock: 5 });
  const page = await browser.page(t, server, { path: null, user: await server.user() });
  const order = { id: '01a22701-a824-75a1-8000-044a9651cbc5', product_id: product.id, product_name: 'Lamp', price_cents: 1990, quantity: 1, total_cents: 1990, currency: 'USD', status: 'rejected', reason: 'late', created_at: inSeconds(-9), updated_at: inSeconds(-8), expires_at: null, paid_at: null };
  await page.route('**/orders?*', (route) => route.fulfill({ json: { items: [order], next_cursor: null } }));
  await page.goto(`${server.url}/shop/sales/${product.id}`);
  await page.getByText('did not work out: it came a moment too late. Nothing was charged. You may buy again.').waitFor();
  assert.equal(await buy(page).getAttribute('aria-disabled'), null);
});

test('a shop that takes no payments and no new accounts says so', async (t) => {
  const other = await Server.start({ SECKILL__PAYMENTS__PROVIDER: 'none' });
  try {
    const product = await other.product();
    const user = await other.user();
    const page = await browser.page(t, other, { path: `/shop/sales/${product.id}`, user });
    await page.locator('#buy').click();
    await page.getByText('The shop tells you how to pay.').waitFor();
    assert.match(await page.locator('.own-title').textContent(), /^Yours\. Now it has to be paid\.$/);
    assert.equal(await page.getByRole('button', { name: /^Pay/ }).count(), 0);
    other.env.SECKILL__AUTH__REGISTRATION = 'closed';
    await page.context().close();
    await other.restart();
    const outside = await browser.page(t, other, { path: '/shop/account', expects: [/net::ERR_/] });
    await outside.getByRole('button', { name: 'Log in' }).waitFor();
    assert.equal(await outside.locator('.other-form').count(), 0);
  } finally {
    await other.stop();
  }
});
