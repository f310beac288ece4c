// Times and money as a merchant types them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser, Server, inSeconds, requests, until } from './support.js';

/** @type {Server} */
let server;
/** @type {Browser} */
let browser;
before(async () => {
  server = await Server.start({ SECKILL__SHOP__TIME_ZONE: 'Europe/Berlin' });
  browser = await Browser.launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = (context, path, more = {}) => browser.page(context, server, { path, width: 1280, height: 900, user: server.admin, role: 'admin', ...more });
const fill = async (page, { name = 'Shoe', price = '10', currency = 'EUR', stock = '5' } = {}) => {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Price of one unit').fill(price);
  await page.getByLabel('Currency').fill(currency);
  await page.getByLabel('Units offered').fill(stock);
};
const create = (page) => page.getByRole('button', { name: 'Make the sale' }).click();
/** The product whose page was gone to. */
const made = async (page) => {
  await page.waitForURL(/\/console\/sales\/\d+$/);
  return (await server.api('GET', `/admin/products/${page.url().split('/').at(-1)}`)).body;
};
const field = (page, label) => page.locator('.field', { has: page.getByLabel(label, { exact: true }) });
const ends = (page) => page.getByLabel('Ends (optional)');
const starts = (page) => page.getByLabel('Starts (optional)');

test('a time is the shop’s, whatever zone the browser is in', async (context) => {
  const page = await open(context, '/console/sales/new', { timezoneId: 'Asia/Shanghai' });
  await fill(page);
  await starts(page).fill('2027-01-15T20:00');
  await page.getByText('UTC+1 · 2027-01-15 19:00:00 UTC · in').waitFor();
  assert.match(await field(page, 'Starts (optional)').innerText(), /Europe\/Berlin/);
  await create(page);
  const product = await made(page);
  assert.equal(product.starts_at, '2027-01-15T19:00:00.000Z');
  await page.goto(`${page.url()}/edit`);
  await until(async () => (await page.getByLabel('Starts').inputValue()) === '2027-01-15T20:00', 'the same wall time');
});

test('a time that the clocks skip is refused with words', async (context) => {
  const page = await open(context, '/console/sales/new', { timezoneId: 'America/New_York' });
  const asked = requests(page);
  await fill(page);
  await starts(page).fill('2027-03-28T02:30');
  await page.getByText('This time does not exist: the clocks go from 02:00 to 03:00 that day.').waitFor();
  await create(page);
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('type')), 'datetime-local');
  assert.ok(!asked.some(({ line }) => line === 'POST /products'));
  await starts(page).fill('2027-03-28T03:00');
  await create(page);
  assert.equal((await made(page)).starts_at, '2027-03-28T01:00:00.000Z');
});

test('a time that happens twice is asked about, and the answer is kept', async (context) => {
  const page = await open(context, '/console/sales/new', { timezoneId: 'Pacific/Chatham' });
  await fill(page);
  await starts(page).fill('2027-10-31T02:30');
  await page.getByText('this time happens twice').waitFor();
  await create(page);
  await page.getByText('Please say which of the two is meant.').waitFor();
  await page.getByLabel('The second one (UTC+1)').check();
  await create(page);
  assert.equal((await made(page)).starts_at, '2027-10-31T01:30:00.000Z');
  await page.goto(`${page.url()}/edit`);
  await page.getByLabel('The second one (UTC+1)').waitFor();
  assert.equal(await page.getByLabel('The second one (UTC+1)').isChecked(), true);
  await page.getByLabel('The first one (UTC+2)').check();
  await page.getByRole('button', { name: 'Save' }).click();
  assert.equal((await made(page)).starts_at, '2027-10-31T00:30:00.000Z');
});

test('a form that is only looked at changes nothing, to the millisecond', async (context) => {
  const product = await server.product({ name: 'Untouched', starts_at: '2027-05-01T10:00:07.123Z', ends_at: '2027-05-01T11:00:00.456Z', description: 'two  spaces' });
  const page = await open(context, `/console/sales/${product.id}/edit`);
  const asked = requests(page);
  await page.getByRole('button', { name: 'Save' }).click();
  assert.equal((await made(page)).revision, 1);
  assert.ok(!asked.some(({ line }) => line.startsWith('PATCH')));
});

test('a sale is a draft without a start, or where that is asked for', async (context) => {
  const page = await open(context, '/console/sales/new');
  const draft = page.getByLabel('A draft: nobody sees it until you publish it');
  assert.deepEqual([await draft.isChecked(), await draft.isDisabled()], [true, true]);
  await fill(page, { name: 'Planned' });
  await starts(page).fill('2027-05-01T20:00');
  assert.deepEqual([await draft.isChecked(), await draft.isDisabled()], [false, false]);
  await draft.check();
  await starts(page).fill('2027-05-01T21:00');
  await create(page);
  const product = await made(page);
  assert.deepEqual([product.draft, product.paused, product.starts_at], [true, true, '2027-05-01T19:00:00.000Z']);
  await page.getByRole('button', { name: 'Publish' }).click();
  await page.getByText('They can buy from').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Publish' }).click();
  await page.locator('.sale-head .badge', { hasText: 'Scheduled' }).waitFor();
  assert.equal((await server.api('GET', `/products/${product.id}`)).body.draft, undefined);
});

test('only what was changed is sent, so another’s change stays', async (context) => {
  const product = await server.product({ name: 'Shared', stock: 10 });
  const page = await open(context, `/console/sales/${product.id}/edit`);
  await page.getByLabel('Name').fill('Shared, renamed');
  await server.patch(product.id, { price_cents: 2222, stock: 11 });
  await page.getByRole('button', { name: 'Save' }).click();
  const { name, price_cents, stock } = await made(page);
  assert.deepEqual([name, price_cents, stock], ['Shared, renamed', 2222, 11]);
});

test('the share of an address is set, refused and taken away', async (context) => {
  const page = await open(context, '/console/sales/new');
  const share = (more = ' (optional)') => page.getByLabel(`Units one network address may have in all${more}`);
  await fill(page, { name: 'Shared out' });
  for (const wrong of ['0', 'four', '10000001']) {
    await share().fill(wrong);
    await create(page);
    await page.locator('.field-error', { hasText: 'Must be a whole number from 1 to 10,000,000.' }).waitFor();
  }
  await share().fill('4');
  await create(page);
  assert.equal((await made(page)).max_per_address, 4);
  await page.getByText('up to 4 a network address').waitFor();
  await page.goto(`${page.url()}/edit`);
  await until(async () => (await share().inputValue()) === '4', 'what it is');
  await share().fill('');
  await page.getByRole('button', { name: 'Save' }).click();
  assert.equal((await made(page)).max_per_address, null);
});

test('what another changed in the same field is shown before it is overwritten', async (context) => {
  const product = await server.product({ name: 'Fought over', price_cents: 1000, currency: 'EUR' });
  const page = await open(context, `/console/sales/${product.id}/edit`);
  await page.getByLabel('Name').fill('Mine');
  await page.getByLabel('Price of one unit').fill('30');
  await server.patch(product.id, { price_cents: 2222, name: 'Theirs' });
  await page.getByRole('button', { name: 'Save' }).click();
  const problem = (label) => field(page, label).locator('.field-error').innerText();
  await until(async () => /changed this to: Theirs\./.test(await problem('Name')), 'the other name');
  assert.match(await problem('Price of one unit'), /22\.22/);
  assert.equal((await server.api('GET', `/products/${product.id}`)).body.name, 'Theirs');
  await page.getByRole('button', { name: 'Save' }).click();
  const { name, price_cents } = await made(page);
  assert.deepEqual([name, price_cents], ['Mine', 3000]);
});

for (const [currency, typed, minor, shown] of [
  ['JPY', '19,900', 19900, '¥19,900'],
  ['KWD', '19.900', 19900, 'KWD 19.900'],
  ['CNY', '199', 19900, 'CN¥199.00'],
  ['EUR', '0.5', 50, '€0.50'],
]) {
  test(`${typed} ${currency} is ${minor} in minor units, and comes back the same`, async (context) => {
    const page = await open(context, '/console/sales/new');
    await fill(page, { price: typed, currency });
    await until(async () => (await field(page, 'Price of one unit').locator('.hint').innerText()).replace(/\s/g, ' ') === shown, shown);
    await create(page);
    const product = await made(page);
    assert.equal(product.price_cents, minor);
    await page.goto(`${page.url()}/edit`);
    await page.getByLabel('Name').fill('Renamed');
    await page.getByRole('button', { name: 'Save' }).click();
    assert.equal((await made(page)).price_cents, minor);
  });
}

test('what is wrong is said at its field', async (context) => {
  const page = await open(context, '/console/sales/new');
  await fill(page, { price: '1.234', stock: 'many', name: ' ', currency: 'EU' });
  await page.getByLabel('Picture (optional)').fill('http://shop.example/a.png');
  await page.getByLabel('An order must be paid within').fill('2');
  await page.getByLabel('Unit of time').selectOption('seconds');
  await create(page);
  for (const [label, problem] of [
    ['Name', 'Please fill this in.'],
    ['Picture (optional)', 'Must begin with https://'],
    ['Currency', 'Three letters'],
    ['Units offered', 'Must be a whole number'],
    ['An order must be paid within', 'From 5 seconds to 30 days.'],
  ]) {
    assert.ok((await field(page, label).locator('.field-error').innerText()).includes(problem), label);
    assert.equal(await page.getByLabel(label, { exact: true }).getAttribute('aria-invalid'), 'true', label);
  }
  await page.getByLabel('Currency').fill('JPY');
  await create(page);
  assert.match(await field(page, 'Price of one unit').locator('.field-error').innerText(), /such as 1990/);
});

test('what the server refuses is said at its field, too', async (context) => {
  const page = await open(context, '/console/sales/new');
  await fill(page, { name: 'Bad\u202ename' });
  await create(page);
  await until(async () => /The server refuses it: .*direction/.test(await field(page, 'Name').innerText()));
  await page.getByLabel('Name').fill('Good name');
  await page.getByLabel('Currency').fill('QQQ');
  await create(page);
  await until(async () => /ISO 4217/.test(await field(page, 'Currency').locator('.field-error').innerText()));
});

test('an end before the start is refused', async (context) => {
  const page = await open(context, '/console/sales/new');
  await fill(page);
  await starts(page).fill('2027-05-01T20:00');
  await ends(page).fill('2027-05-01T19:00');
  await create(page);
  await page.getByText('Must be after the start.').waitFor();
});

test('all fields of a sale are there, and all of them arrive', async (context) => {
  const page = await open(context, '/console/sales/new', { expects: [/shop\.example/, /ERR_/] });
  await fill(page, { name: 'Everything', price: '12.34', stock: '1,000' });
  await page.getByLabel('Description (optional)').fill('Line one\nline two');
  await page.getByLabel('Picture (optional)').fill('https://shop.example/picture.png');
  await page.getByLabel('Units one order may have').selectOption('10');
  await page.getByLabel('No time limit').check();
  await ends(page).fill('2028-02-29T12:00');
  await create(page);
  const product = await made(page);
  assert.deepEqual(
    [product.description, product.image_url, product.stock, product.max_per_order, product.payment_window_seconds, product.ends_at],
    ['Line one line two', 'https://shop.example/picture.png', 1000, 10, null, '2028-02-29T11:00:00.000Z'],
  );
});

test('a reply that is lost does not make a second sale', async (context) => {
  const page = await open(context, '/console/sales/new', { expects: [/ERR_FAILED/] });
  await fill(page, { name: 'Made once' });
  await page.route('**/products', async (route) => {
    await route.fetch();
    await route.abort();
  });
  await create(page);
  await until(async () => /\S/.test(await page.locator('form > .field-error').innerText()), 'it says that nobody answered');
  await page.unroute('**/products');
  await create(page);
  await made(page);
  const { items } = (await server.api('GET', '/admin/products?limit=100')).body;
  assert.equal(items.filter(({ name }) => name === 'Made once').length, 1);
});

test('a sale that is sold further than the wished stock is not lowered', async (context) => {
  const product = await server.product({ name: 'Half sold', stock: 4, starts_at: inSeconds(-10) });
  const page = await open(context, `/console/sales/${product.id}/edit`);
  await server.buy(await server.user(), product.id);
  await server.buy(await server.user(), product.id);
  await page.getByLabel('Units offered').fill('1');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('At least 2: so many are sold or promised.').waitFor();
});
