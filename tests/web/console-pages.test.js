// Every page of the console for everybody: axe, keyboard, narrow windows, both languages, both themes, and names that are code.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser, Server, inSeconds, tooWide, until, violations } from './support.js';

const CODE = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>';
const LONG = 'Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverleihungsurkunde'.repeat(2).slice(0, 120);

/** @type {Server} */
let server;
/** @type {Browser} */
let browser;
let sale;
let order;
let hook;
before(async () => {
  server = await Server.start({ SECKILL__WEBHOOKS__ALLOW_PRIVATE: 'true', SECKILL__SHOP__NAME: CODE });
  browser = await Browser.launch();
  sale = await server.product({ name: CODE, description: CODE, stock: 40, ends_at: inSeconds(7200) });
  await server.product({ name: LONG, price_cents: 999_999_999_999, stock: 10_000_000, starts_at: inSeconds(86_400 * 40) });
  const buyer = await server.user('a-buyer-with-a-name-of-32-chars_');
  order = await server.buy(buyer, sale.id);
  await server.api('POST', `/admin/orders/${order.id}/mark-paid`, { body: { reference: CODE } });
  await server.api('POST', `/admin/orders/${order.id}/cancel`, { body: { reason: CODE } });
  await server.buy(await server.user(), sale.id);
  for (const paused of [true, false]) await server.api('PATCH', `/products/${sale.id}`, { body: { paused, reason: CODE } });
  hook = (await server.api('POST', '/admin/webhooks', { body: { url: 'http://127.0.0.1:9/%3Cimg%20src=x%3E', description: CODE } })).body;
  await server.api('POST', `/admin/webhooks/${hook.id}/test`);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Each page, and what shows that it is there. */
const pages = () => [
  ['/console', '.sale-card'],
  ['/console/sales/new', 'form'],
  [`/console/sales/${sale.id}`, '.verdict-adds'],
  [`/console/sales/${sale.id}/edit`, 'form'],
  ['/console/orders', '.table'],
  [`/console/orders/${order.id}`, '.history'],
  ['/console/webhooks', '.table'],
  [`/console/webhooks/${hook.id}`, '.hook-url'],
  ['/console/log', '.table'],
  ['/console/check', '[data-check="ready"] .badge'],
  ['/console/nowhere', '.empty'],
];
const open = (context, more = {}) => browser.page(context, server, { path: null, width: 1280, height: 900, user: server.admin, role: 'admin', ...more });
const go = async (page, [path, there]) => {
  await page.goto(server.url + path);
  await page.locator(there).first().waitFor();
};

/** Answers in the server's place. A window that is closed meanwhile needs no answer. */
const answer = (page, path, reply) => page.route(path, (route) => Promise.resolve(reply(route)).catch((error) => assert.match(`${error}`, /closed|not found|already handled/i)));

test('the log-in has no fault that axe finds, and fits into 320 px', async (context) => {
  for (const [language, theme] of [['en', 'light'], ['zh', 'dark']]) {
    const page = await open(context, { user: undefined, language, theme, width: 320, path: '/console' });
    await page.locator('form').waitFor();
    assert.deepEqual(await violations(page), []);
    assert.deepEqual(await tooWide(page), []);
  }
});

for (const [language, theme, width] of [['en', 'light', 1280], ['zh', 'dark', 390]]) {
  test(`no page has a fault that axe finds: ${language}, ${theme}, ${width} px`, async (context) => {
    const page = await open(context, { language, theme, width });
    for (const one of pages()) {
      await go(page, one);
      assert.deepEqual(await violations(page), [], one[0]);
    }
    // And a question, which covers the page.
    await go(page, [`/console/sales/${sale.id}`, '.verdict-adds']);
    for (const action of ['pause', 'extend', 'lower']) {
      await page.locator(`[data-action="${action}"]`).click();
      await page.locator('dialog').waitFor();
      assert.deepEqual(await violations(page), [], action);
      await page.keyboard.press('Escape');
    }
  });
}

test('no page is wider than 320 px, and no field makes a phone zoom in', async (context) => {
  for (const language of ['en', 'zh']) {
    const page = await open(context, { language, width: 320, height: 568 });
    for (const one of pages()) {
      await go(page, one);
      assert.deepEqual(await tooWide(page), [], `${language} ${one[0]}`);
      const small = await page.locator('input:not([type=radio], [type=checkbox]), select, textarea').evaluateAll((all) => all.filter((field) => parseFloat(getComputedStyle(field).fontSize) < 16).map((field) => field.outerHTML));
      assert.deepEqual(small, [], one[0]);
    }
  }
});

test('a name that is code is shown, and not run', async (context) => {
  const page = await open(context, { expects: [/shop\.example/] });
  for (const one of pages()) {
    await go(page, one);
    await page.waitForTimeout(200);
    assert.equal(await page.evaluate(() => 'hacked' in window), false, one[0]);
    assert.equal(await page.locator('img[src="x"]').count(), 0, one[0]);
  }
  await go(page, [`/console/sales/${sale.id}`, '.verdict-adds']);
  assert.equal(await page.locator('h1').innerText(), CODE);
  assert.equal(await page.locator('#brand-name').innerText(), CODE);
  await go(page, [`/console/orders/${order.id}`, '.history']);
  assert.equal(await page.locator('.history q').last().textContent(), CODE);
  await page.goto(`${server.url}/console/orders?q=${encodeURIComponent(CODE)}`);
  await page.locator('.table, .empty').first().waitFor();
  assert.equal(await page.getByRole('searchbox', { name: 'Search' }).inputValue(), CODE);
  assert.equal(await page.evaluate(() => 'hacked' in window), false);
});

test('a sale is paused and resumed by keyboard alone, and the focus is never lost', async (context) => {
  const page = await open(context, { path: `/console/sales/${sale.id}` });
  await page.locator('.verdict-adds').waitFor();
  const focused = () => page.evaluate(() => document.activeElement?.textContent ?? '');
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Skip to the content');
  await page.keyboard.press('Enter');
  await until(async () => (await page.evaluate(() => document.activeElement?.id)) === 'main', 'the content has the focus');
  const tabTo = async (name) => {
    for (let times = 0; times < 40 && (await focused()) !== name; times += 1) await page.keyboard.press('Tab');
    assert.equal(await focused(), name);
    const outline = await page.evaluate(() => getComputedStyle(/** @type {Element} */ (document.activeElement)).outlineStyle);
    assert.notEqual(outline, 'none', `the focus on ${name} is seen`);
  };
  for (const [button, state] of [['Pause', 'Paused'], ['Resume', 'On sale']]) {
    await tabTo(button);
    await page.keyboard.press('Enter');
    await page.locator('dialog').waitFor();
    await tabTo(button);
    await page.keyboard.press('Enter');
    await page.locator('dialog').waitFor({ state: 'detached' });
    await page.locator('.sale-head .badge', { hasText: state }).waitFor();
    assert.notEqual(await page.evaluate(() => document.activeElement?.tagName), 'BODY');
  }
  await tabTo('Lower the stock');
  await page.keyboard.press('Enter');
  await page.locator('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('dialog').waitFor({ state: 'detached' });
  assert.equal(await focused(), 'Lower the stock', 'the focus comes back');
});

test('numbers that move each second are not read out each second', async (context) => {
  const page = await open(context, { path: `/console/sales/${sale.id}` });
  await page.locator('.verdict-adds').waitFor();
  await page.evaluate(() => {
    /** @type {any} */ (window).announced = [];
    const observe = new MutationObserver((all) => all.forEach(({ target }) => {
      const region = (target instanceof Element ? target : target.parentElement)?.closest('[aria-live], [role=status], [role=alert]');
      if (region) /** @type {any} */ (window).announced.push(region.outerHTML.slice(0, 80));
    }));
    observe.observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await page.waitForTimeout(4000);
  assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).announced), []);
  assert.equal(await page.locator('.countdown').getAttribute('role'), 'timer');
});

test('what is heard by screen readers is in the HTML from the start', async () => {
  const html = await (await fetch(`${server.url}/console`)).text();
  for (const region of [/id="notice-status"[^>]*role="status"/, /id="notice-alert"[^>]*role="alert"/]) assert.match(html, region);
  assert.ok(!html.includes('{{'), 'everything is filled in');
});

test('the language and the theme are changed by hand, and stay', async (context) => {
  const page = await open(context, { path: '/console' });
  await page.getByRole('button', { name: '中文' }).click();
  await page.getByRole('heading', { name: '活动', level: 1 }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'zh-CN');
  await page.locator('#theme').click();
  await page.locator('#theme').click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.reload();
  await page.getByRole('heading', { name: '活动', level: 1 }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
});

test('dead letters are shown, put back and deleted with a warning', async (context) => {
  const page = await open(context);
  const letters = [{ id: 'letter-1', parked_at: '2026-11-29T19:00:00.000Z', reason: CODE, product_id: sale.id, purchases: 3, body: `{"items":"${CODE}"}` }];
  const asked = [];
  await answer(page, '**/admin/live', async (route) => {
    const reply = await route.fetch();
    await route.fulfill({ response: reply, json: { ...(await reply.json()), dead_letters: letters.length } });
  });
  await answer(page, '**/admin/dead-letters**', async (route) => {
    const request = route.request();
    asked.push(`${request.method()} ${new URL(request.url()).pathname}`);
    if (request.method() === 'GET') return route.fulfill({ json: { items: letters, next_cursor: null, total: letters.length } });
    if (request.method() === 'DELETE') {
      letters.length = 0;
      return route.fulfill({ status: 204 });
    }
    return route.fulfill({ json: { id: 'letter-1', reason: null, purchases: [{ outcome: 'put_back' }, { outcome: 'decided' }, { outcome: 'kept' }] } });
  });
  await page.goto(`${server.url}/console/sales/${sale.id}`);
  await page.getByText('1 message is set aside.').waitFor();
  assert.equal(await page.evaluate(() => 'hacked' in window), false);
  await page.getByRole('button', { name: 'Put back' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Put back' }).click();
  await page.getByText('Put back 1, decided before 1, still set aside 1.').waitFor();
  await page.getByRole('button', { name: 'Delete' }).click();
  await page.getByText('This breaks the 3 promises in it').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByText('Nothing is set aside.').waitFor();
  assert.ok(asked.includes('POST /admin/dead-letters/letter-1/replay') && asked.includes('DELETE /admin/dead-letters/letter-1'));
});

test('the check says in words what it has measured', async (context) => {
  const page = await open(context, { path: '/console/check' });
  for (const [name, words] of [
    ['clock', /clock and the server’s differ by \d+ ms/],
    ['events', /Events arrive at once/],
    ['address', /sees this browser’s own address/],
    ['secure', /Not encrypted\. That is fine on this machine/],
    ['protocol', /six connections/],
    ['headers', /arrive as the server sent them/],
    ['ready', /Everything that the server needs is there/],
  ]) {
    await until(async () => words.test(await page.locator(`[data-check="${name}"]`).innerText()), `${name}: ${words}`);
  }
});

test('the check finds a clock that is off, held-back events, and a proxy that nobody trusts', async (context) => {
  const init = 'const real = Date; globalThis.Date = class extends real { constructor(...a) { if (a.length) super(...a); else super(real.now() + 61e3); } static now() { return real.now() + 61e3; } };';
  const page = await open(context, { init });
  await answer(page, '**/events?**', (route) => new Promise((done) => setTimeout(() => done(route.abort()), 9000)));
  await answer(page, '**/admin/check', async (route) => {
    const reply = await route.fetch();
    await route.fulfill({ response: reply, json: { ...(await reply.json()), forwarded_for: '203.0.113.9', peer_address: '10.0.0.1' } });
  });
  await page.goto(`${server.url}/console/check`);
  const check = (name) => page.locator(`[data-check="${name}"]`);
  await check('clock').getByText(/clock is 1 min.* ahead/).waitFor();
  await check('address').getByText(/all buyers count as 10\.0\.0\.1/).waitFor();
  await check('address').getByText('Wrong').waitFor();
  await check('events').getByText(/a proxy on the way collects the events/).waitFor({ timeout: 12_000 });
});
