// A merchant's evening with nothing but a browser: from the first log-in to the file of orders.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';

import { Browser, Server, inSeconds, until } from './support.js';

/** @type {Server} */
let server;
/** @type {Browser} */
let browser;
before(async () => {
  server = await Server.start({ SECKILL__SHOP__NAME: 'Nordlicht', SECKILL__SHOP__TIME_ZONE: 'Europe/Berlin' });
  browser = await Browser.launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = (context, path, more = {}) => browser.page(context, server, { path, width: 1280, height: 900, user: server.admin, role: 'admin', ...more });
const dialog = (page) => page.getByRole('dialog');
/** Presses a button of the sale, and then the one of the question that has the same name, unless another is given. */
async function act(page, action, confirm, fill, reason) {
  await page.locator(`[data-action="${action}"]`).click();
  if (fill !== undefined) await dialog(page).locator('input').first().fill(fill);
  if (reason !== undefined) await dialog(page).getByLabel('Reason').fill(reason);
  await dialog(page).getByRole('button', { name: confirm, exact: true }).click();
  await dialog(page).waitFor({ state: 'detached' });
}
const part = async (page, name) => Number((await page.locator(`[data-part="${name}"]`).innerText()).replace(/\D/g, ''));
const summary = async (id) => (await server.api('GET', `/admin/products/${id}/summary`)).body;

test('the first log-in leads to a first sale', async (context) => {
  const page = await browser.page(context, server, { path: '/console', width: 1280, height: 900 });
  await page.getByLabel('User name').fill('admin');
  await page.getByLabel('Password').fill('not the password');
  await page.keyboard.press('Enter');
  await page.getByText('The user name or the password is wrong.').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('type')), 'password');
  await page.getByLabel('Password').fill(server.admin.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'No sale yet' }).waitFor();
  await page.locator('.empty').getByRole('link', { name: 'New sale' }).click();

  await page.getByRole('button', { name: 'Make the sale' }).click();
  await page.getByText('Please fill this in.').first().waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.closest('.field')?.querySelector('label')?.textContent), 'Name');
  await page.getByLabel('Name').fill('Aurora shoe');
  await page.getByLabel('Price of one unit').fill('189.00');
  await page.getByLabel('Currency').fill('eur');
  await page.getByLabel('Units offered').fill('20');
  await page.getByLabel('Units one order may have').selectOption('2');
  await page.getByRole('button', { name: 'Make the sale' }).click();
  await page.getByRole('heading', { name: 'Aurora shoe', level: 1 }).waitFor();
  assert.match(new URL(page.url()).pathname, /^\/console\/sales\/\d+$/);
  const id = Number(page.url().split('/').at(-1));
  // Without a start it is a draft, which no buyer sees.
  assert.equal((await server.api('GET', `/products/${id}`, { refused: true })).status, 404);
  await page.locator('.sale-head .badge', { hasText: 'Draft' }).waitFor();
  assert.equal(await page.getByRole('button', { name: 'Resume' }).count(), 0);
  await page.getByRole('button', { name: 'Publish' }).click();
  await page.getByText('They can buy at once.').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Publish' }).click();
  await page.locator('.sale-head .badge', { hasText: 'On sale' }).waitFor();
  assert.equal(await page.getByRole('button', { name: 'Publish' }).count(), 0);
  const { body } = await server.api('GET', `/products/${id}`);
  assert.deepEqual([body.name, body.price_cents, body.currency, body.stock, body.max_per_order, body.payment_window_seconds], ['Aurora shoe', 18900, 'EUR', 20, 2, 900]);
});

test('a sale opens by itself, and its bar says what the API says', async (context) => {
  const product = await server.product({ name: 'Tea set', stock: 12, starts_at: inSeconds(8) });
  const page = await open(context, `/console/sales/${product.id}`);
  await page.getByText('Opens in').waitFor();
  await page.locator('.sale-head .badge', { hasText: 'Scheduled' }).waitFor();
  await page.locator('.sale-head .badge', { hasText: 'On sale' }).waitFor({ timeout: 12_000 });
  const [ann, ben, cid] = [await server.user(), await server.user(), await server.user()];
  const bought = [await server.buy(ann, product.id), await server.buy(ben, product.id), await server.buy(cid, product.id)];
  await server.pay(ann, bought[0].id);
  await until(async () => (await summary(product.id)).paid === 1);
  const expected = await summary(product.id);
  assert.deepEqual([expected.stock, expected.remaining, expected.queued, expected.unpaid, expected.paid, expected.balanced], [12, 9, 0, 2, 1, true]);
  await until(async () => (await part(page, 'paid')) === 1 && (await part(page, 'unpaid')) === 2, 'the bar follows');
  for (const name of ['stock', 'remaining', 'queued', 'unpaid', 'paid']) assert.equal(await part(page, name), expected[name], name);
  assert.match(await page.locator('.stock-bar').getAttribute('aria-label'), /^12 units: 1 paid, 2 not paid yet, 0 being written, 9 left\.$/);
  await page.getByText('It adds up').waitFor();
  await page.getByText('$19.90').first().waitFor();
  const widths = await page.locator('.segment').evaluateAll((all) => all.map((one) => one.getBoundingClientRect().width));
  const whole = widths.reduce((sum, width) => sum + width, 0);
  assert.ok(Math.abs(widths[0] / whole - 1 / 12) < 0.02 && Math.abs(widths[1] / whole - 2 / 12) < 0.02, `${widths}`);
  await page.getByRole('button', { name: 'Audit the sale' }).click();
  await page.getByText('Audited: the gate and the database agree').waitFor();
});

test('pause, resume, restock, lower, extend, end and archive do what they say', async (context) => {
  const product = await server.product({ name: 'Poster', stock: 10 });
  const buyer = await server.user();
  await server.buy(buyer, product.id);
  const page = await open(context, `/console/sales/${product.id}`);
  const product_ = async () => (await server.api('GET', `/products/${product.id}`)).body;
  const refusal = async () => (await server.api('POST', `/seckill/${product.id}`, { token: (await server.user()).token, refused: true })).body.code;

  await act(page, 'pause', 'Pause', undefined, 'Wrong picture');
  assert.equal(await refusal(), 'paused');
  await page.locator('.sale-head .badge', { hasText: 'Paused' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Resume', 'the focus stays on the button');
  await act(page, 'pause', 'Resume');
  await page.locator('.sale-head .badge', { hasText: 'On sale' }).waitFor();

  await act(page, 'restock', 'Add units', '5', 'Found a box');
  await until(async () => (await part(page, 'stock')) === 15, 'the bar knows of the units');

  await page.locator('[data-action="lower"]').click();
  await dialog(page).getByLabel('Units offered in all').fill('0');
  await dialog(page).getByRole('button', { name: 'Lower the stock' }).click();
  await dialog(page).getByText('At least 1: so many are sold or promised.').waitFor();
  await dialog(page).getByLabel('Units offered in all').fill('4');
  await dialog(page).getByRole('button', { name: 'Lower the stock' }).click();
  await until(async () => (await part(page, 'stock')) === 4, 'the stock is lower');

  await page.locator('[data-action="extend"]').click();
  await dialog(page).getByRole('button', { name: '1 hour more' }).click();
  await dialog(page).getByRole('button', { name: 'Set the end' }).click();
  await until(async () => (await product_()).ends_at !== null);
  const ends = Date.parse((await product_()).ends_at);
  assert.ok(Math.abs(ends - Date.now() - 3_600_000) < 90_000, 'an hour from now');
  await page.getByText('Ends in').waitFor();

  await act(page, 'end', 'End now');
  await page.locator('.sale-head .badge', { hasText: 'Ended' }).waitFor();
  assert.equal(await refusal(), 'ended');
  assert.equal(await page.locator('[data-action="pause"]').isVisible(), false);

  await act(page, 'archive', 'Archive', undefined, 'All gone');
  await page.locator('.sale-head .badge', { hasText: 'Archived' }).waitFor();
  assert.equal(await page.locator('.actions').isVisible(), false);
  for (const said of ['Made the sale', 'Paused the sale', 'Resumed the sale', 'Added units', 'Archived the sale']) await page.getByRole('cell', { name: said, exact: true }).first().waitFor();
  for (const reason of ['Wrong picture', 'Found a box', 'All gone']) await page.locator('td q', { hasText: reason }).waitFor();

  // Gone from the list, and to be found in that of the archived ones.
  await page.goto(`${server.url}/console`);
  await page.getByRole('link', { name: 'Archived sales' }).click();
  await page.getByRole('heading', { name: 'Archived sales' }).waitFor();
  await page.locator('.sale-card', { hasText: 'Poster' }).locator('.badge', { hasText: 'Archived' }).waitFor();
  await page.getByRole('link', { name: 'All sales' }).click();
  await page.getByRole('heading', { name: 'Sales', exact: true }).waitFor();
  await page.locator('.sale-list, .empty').first().waitFor();
  assert.equal(await page.locator('.sale-card', { hasText: 'Poster' }).count(), 0);
});

test('a question that fails stays open and says why', async (context) => {
  const product = await server.product({ name: 'Kettle' });
  const page = await open(context, `/console/sales/${product.id}`, { expects: [/Failed to load resource: net::ERR_FAILED/] });
  await page.locator('[data-action="pause"]').click();
  await page.route(`**/products/${product.id}`, (route) => (route.request().method() === 'PATCH' ? route.abort() : route.continue()));
  await dialog(page).getByRole('button', { name: 'Pause', exact: true }).click();
  await dialog(page).getByRole('alert').filter({ hasText: /\S/ }).waitFor();
  await page.unroute(`**/products/${product.id}`);
  await dialog(page).getByRole('button', { name: 'Pause', exact: true }).click();
  await dialog(page).waitFor({ state: 'detached' });
  assert.equal((await server.api('GET', `/products/${product.id}`)).body.paused, true);
});

test('clicks are seen as rates, and updates can be held', async (context) => {
  const product = await server.product({ name: 'Hat', stock: 3 });
  const page = await open(context, `/console/sales/${product.id}`);
  const buyers = await Promise.all(Array.from({ length: 12 }, () => server.user()));
  await page.waitForTimeout(2500);
  await Promise.all(buyers.map(({ token }) => server.api('POST', `/seckill/${product.id}`, { token, refused: true })));
  await page.locator('.reasons li', { hasText: 'Sold out' }).waitFor();
  await until(async () => /now .*, at most ([1-9]|<)/.test((await page.locator('.rate-accepted .chart').getAttribute('aria-label')) ?? ''), 'the chart says so in words');
  assert.ok((await page.locator('.rate-accepted .chart-1').first().getAttribute('d'))?.includes('M'), 'there is a column');
  await page.locator('.numbers summary').click();
  await until(async () => (await page.locator('.numbers tbody tr').count()) > 0);

  await until(async () => (await part(page, 'unpaid')) === 3);
  await page.getByRole('button', { name: 'Pause updates' }).click();
  await page.getByText('Updates are paused.').waitFor();
  await server.api('POST', `/products/${product.id}/restock`, { body: { units: 4 } });
  await page.waitForTimeout(2200);
  assert.equal(await part(page, 'stock'), 3, 'nothing moves');
  await page.getByRole('button', { name: 'Go on with updates' }).click();
  await until(async () => (await part(page, 'stock')) === 7, 'it goes on');
});

test('the countdown goes by the server’s clock on a device that is an hour off', async (context) => {
  const product = await server.product({ name: 'Watch', starts_at: inSeconds(600) });
  const init = 'const real = Date; globalThis.Date = class extends real { constructor(...a) { if (a.length) super(...a); else super(real.now() + 3600e3); } static now() { return real.now() + 3600e3; } };';
  const page = await open(context, `/console/sales/${product.id}`, { init });
  await until(async () => /^00:0\d:\d\d$/.test(await page.locator('.countdown').innerText()), 'less than ten minutes are left');
  const [, minutes, seconds] = (await page.locator('.countdown').innerText()).split(':').map(Number);
  const left = (Date.parse(product.starts_at) - Date.now()) / 1000;
  assert.ok(Math.abs(minutes * 60 + seconds - left) <= 2, `${minutes}:${seconds} of ${left}`);
});

test('a server that is gone is said, and the numbers say when they are from', async (context) => {
  const own = await Server.start();
  context.after(() => own.stop());
  const product = await own.product();
  const page = await browser.page(context, own, { path: `/console/sales/${product.id}`, width: 1280, user: own.admin, role: 'admin', expects: [/ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED|ERR_FAILED|ERR_SOCKET/] });
  await until(async () => (await part(page, 'stock')) === 10);
  await own.kill();
  await page.getByText(/The numbers are from/).waitFor();
  assert.equal(await part(page, 'stock'), 10);
  await own.restart();
  await until(async () => (await page.locator('.trouble').innerText()) === '', 'it is there again', 15_000);
});

test('orders are found, paid by hand, cancelled with a reason, and come as a file', async (context) => {
  const product = await server.product({ name: 'Lamp, large', price_cents: 4950, stock: 9, max_per_order: 3 });
  const [ann, ben] = [await server.user('ann-of-orders'), await server.user('ben-of-orders')];
  const order = await server.buy(ann, product.id, 2);
  await server.buy(ben, product.id);
  const page = await open(context, '/console/orders');
  await page.getByRole('searchbox', { name: 'Search' }).fill('ann-of-orders');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByText('1 order', { exact: true }).waitFor();
  assert.equal(new URL(page.url()).search, '?q=ann-of-orders');
  await page.reload();
  await page.getByText('1 order', { exact: true }).waitFor();
  assert.equal(await page.getByRole('searchbox', { name: 'Search' }).inputValue(), 'ann-of-orders');
  await page.locator('.table a').first().click();
  await page.getByText('$99.00').first().waitFor();

  await page.locator('[data-action="mark"]').click();
  await dialog(page).getByRole('button', { name: 'Mark as paid' }).click();
  await dialog(page).getByText('Please fill this in.').waitFor();
  await dialog(page).getByLabel('Reference').fill('TRANSFER 77');
  await dialog(page).getByRole('button', { name: 'Mark as paid' }).click();
  await page.locator('.order-head .badge', { hasText: 'Paid' }).waitFor();
  await page.getByRole('cell', { name: 'TRANSFER 77' }).waitFor();

  await page.locator('[data-action="cancel"]').click();
  await dialog(page).getByText('$99.00 is then due back').waitFor();
  await dialog(page).getByRole('textbox').fill('Damaged in the store');
  await dialog(page).getByRole('button', { name: 'Cancel the order' }).click();
  await page.getByRole('heading', { name: 'Money must be given back' }).waitFor();
  await page.getByText('Damaged in the store').waitFor();
  assert.equal((await server.api('GET', `/orders/${order.id}`)).body.status, 'cancelled');

  await page.goto(`${server.url}/console/orders?product_id=${product.id}`);
  await page.getByText('2 orders', { exact: true }).waitFor();
  const [file] = await Promise.all([page.waitForEvent('download'), page.locator('[data-action="csv"]').click()]);
  const lines = (await readFile(await file.path(), 'utf8')).trim().split('\r\n');
  assert.equal(lines.length, 3);
  assert.match(file.suggestedFilename(), /\.csv$/);
  assert.ok(lines.some((line) => line.includes('ann-of-orders') && line.includes('99.00')));

  await page.getByLabel('Refund').selectOption('Due');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByText('1 order', { exact: true }).waitFor();
  assert.match(page.url(), /refund_due=true/);

  await page.goto(`${server.url}/console/orders?status=rejected`);
  await page.getByRole('heading', { name: 'No order is like that' }).waitFor();
});

test('more orders than a page has are shown page by page', async (context) => {
  const product = await server.product({ name: 'Card', stock: 60 });
  const buyers = await Promise.all(Array.from({ length: 55 }, () => server.user()));
  await Promise.all(buyers.map(({ token }) => server.api('POST', `/seckill/${product.id}`, { token })));
  await until(async () => (await summary(product.id)).unpaid === 55);
  const page = await open(context, `/console/orders?product_id=${product.id}`);
  await page.getByText('50 orders, and there are more').waitFor();
  await page.getByRole('button', { name: 'Show more' }).click();
  await page.getByText('55 orders', { exact: true }).waitFor();
  assert.equal(new Set(await page.locator('.table tbody a.mono').evaluateAll((all) => all.map((one) => one.getAttribute('href')))).size, 55);
});

test('the list of sales says what is on, and follows', async (context) => {
  const product = await server.product({ name: 'Followed', stock: 4, price_cents: 1990, currency: 'JPY' });
  const page = await open(context, '/console');
  const card = page.locator('.sale-card', { hasText: 'Followed' });
  await card.getByText('0 of 4 sold').waitFor();
  const order = await server.buy(await server.user(), product.id);
  await card.getByText('1 of 4 sold').waitFor();
  await card.getByText('3 left').waitFor();
  await server.api('POST', `/admin/orders/${order.id}/mark-paid`, { body: { reference: 'x' } });
  await page.reload();
  await card.getByText('¥1,990').nth(1).waitFor();
});

test('who is logged out goes on where they were', async (context) => {
  const product = await server.product({ name: 'Kept place' });
  const login = (await server.api('POST', '/login', { body: { username: 'admin', password: server.admin.password }, token: null })).body;
  const page = await open(context, `/console/sales/${product.id}`, { user: { ...server.admin, token: login.access_token } });
  await page.getByRole('heading', { name: 'Kept place', level: 1 }).waitFor();
  await page.evaluate(() => {
    const kept = JSON.parse(localStorage.getItem('seckill.session') ?? '');
    kept.token += 'x';
    localStorage.setItem('seckill.session', JSON.stringify(kept));
  });
  await page.reload();
  await page.getByText('Your log-in has ended.').waitFor();
  await page.getByLabel('User name').fill('admin');
  await page.getByLabel('Password').fill(server.admin.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Kept place', level: 1 }).waitFor();
});

test('a buyer sees nothing of the console', async (context) => {
  const page = await browser.page(context, server, { path: '/console/orders', width: 1280, user: await server.user('only-a-buyer') });
  await page.getByText('You are logged in as only-a-buyer, who is no administrator.').waitFor();
  assert.equal(await page.locator('#nav').isVisible(), false);
});
