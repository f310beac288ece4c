// When a sale opens: by the server's clock, whatever the phone believes.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { Browser, inSeconds, modules, pause, requests, Server, until } from './support.js';

let server;
let browser;

before(async () => {
  server = await Server.start();
  browser = await Browser.launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The device's clock is wrong by so much. performance.now() is not. */
const skewed = (ms) => `{
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...args) { if (args.length > 0) super(...args); else super(Real.now() + ${ms}); }
    static now() { return Real.now() + ${ms}; }
  };
}`;

/** The countdown changes with each second of the server's clock: of a start between two of them it is up to a second off. */
const wholeSecond = (time) => time.replace(/\.\d+Z$/, '.000Z');

/** Notes when the button can be pressed, and all texts of the countdown and the sentence above it. */
const WATCH = `
  window.seen = { openedAt: null, texts: [] };
  new MutationObserver(() => {
    const button = document.querySelector('#buy');
    const real = performance.timeOrigin + performance.now();
    if (button && button.getAttribute('aria-disabled') !== 'true' && window.seen.openedAt === null) window.seen.openedAt = real;
    for (const selector of ['.sale-timer', '.sale-line', '.sale-when']) {
      const element = document.querySelector(selector);
      if (element && !element.hidden) window.seen.texts.push(element.textContent);
    }
  }).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
`;

const timer = (page) => page.locator('.sale-timer').textContent();

/** Seconds of `01:02:03`. */
const secondsOf = (text) => text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);

test('cases 1, 2, 5, 18: it opens by the server\'s clock, without a reload, a request or a broken countdown', async (t) => {
  const user = await server.user();
  const starts = wholeSecond(inSeconds(20));
  const product = await server.product({ starts_at: starts, ends_at: inSeconds(24) });
  const path = `/shop/sales/${product.id}`;
  const pages = await Promise.all([3_600_000, -3_600_000, 5000].map((skew) => browser.page(t, server, { path, user, init: skewed(skew) + WATCH })));
  const sent = pages.map(requests);
  await until(async () => (await Promise.all(pages.map(timer))).every((text) => text !== ''), 'all count down', 19_000);
  await pause(600);
  for (const page of pages) {
    // Both at once, by the clock that nobody has shifted.
    const [text, now] = await page.evaluate(() => [document.querySelector('.sale-timer').textContent, performance.timeOrigin + performance.now()]);
    const rest = (Date.parse(starts) - now) / 1000;
    assert.ok(secondsOf(text) >= rest - 0.3 && secondsOf(text) <= rest + 1.3, `${text} shown when ${rest} s are left`);
  }
  await until(() => Date.now() > Date.parse(starts) + 1000, 'it has begun', 25_000);
  for (const [i, page] of pages.entries()) {
    const { openedAt } = await page.evaluate(() => window.seen);
    const late = openedAt - Date.parse(starts);
    assert.ok(Math.abs(late) < 500, `page ${i} opened ${late} ms after the start`);
    assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation').length), 1);
    const around = sent[i].filter(({ at, line }) => line.startsWith('GET') && Math.abs(at - Date.parse(starts)) < 1500);
    assert.deepEqual(around, [], 'nothing is asked for at the start');
  }
  // Its end is as calm as its start.
  await pages[0].locator('.sale-panel[data-state=ended]').waitFor({ timeout: 8000 });
  await pause(1200);
  for (const page of pages) {
    const { texts } = await page.evaluate(() => window.seen);
    const broken = texts.filter((text) => /NaN|--|–:|undefined|-\d|Invalid/.test(text));
    assert.deepEqual(broken, []);
    assert.match(await page.locator('.sale-line').textContent(), /^Ended/);
  }
});

test('case 3: a sale in 30 or 60 days stays closed, and nothing is asked again and again', async (t) => {
  const days = (n) => inSeconds(n * 86_400);
  const products = [await server.product({ starts_at: days(30) }), await server.product({ starts_at: days(60) })];
  for (const product of products) {
    const page = await browser.page(t, server, { path: `/shop/sales/${product.id}`, user: await server.user() });
    await page.locator('.sale-timer').waitFor();
    const sent = requests(page);
    await pause(2000);
    assert.equal(await page.locator('.sale-panel').getAttribute('data-state'), 'upcoming');
    assert.match(await timer(page), /^\d\d days \d\d:\d\d:\d\d$/);
    assert.ok(sent.length <= 3, JSON.stringify(sent));
  }
});

test('case 4: after a sleep, in which performance.now() stood still, it is right within a second', async (t) => {
  const starts = wholeSecond(inSeconds(1200));
  const product = await server.product({ starts_at: starts });
  const stood = `
    window.slept = 0;
    const real = performance.now.bind(performance);
    performance.now = () => real() + 600000 - window.slept;
  `;
  const page = await browser.page(t, server, { path: `/shop/sales/${product.id}`, init: stood });
  await page.locator('.sale-timer').waitFor();
  await pause(800);
  const isRight = async () => Math.abs(secondsOf(await timer(page)) - (Date.parse(starts) - Date.now()) / 1000) < 1.5;
  assert.ok(await isRight());
  await page.evaluate(() => {
    window.slept = 600_000;
  });
  await pause(200);
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await pause(1000);
  assert.ok(await isRight(), `${await timer(page)} is shown`);
});

test('case 8: what is said aloud before the start are four sentences, and the countdown is silent', async (t) => {
  const listen = `
    window.said = [];
    addEventListener('DOMContentLoaded', () => {
      for (const region of document.querySelectorAll('[aria-live],[role=status],[role=alert]')) {
        new MutationObserver(() => region.textContent && window.said.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
      }
    });
  `;
  const at = async (seconds) => {
    const product = await server.product({ starts_at: inSeconds(seconds) });
    return browser.page(t, server, { path: `/shop/sales/${product.id}`, user: await server.user(), init: listen });
  };
  // A busy machine takes seconds to open a page, and what was due before is not said.
  const pages = [await at(315), await at(75), await at(25)];
  await pages[2].locator('.sale-panel[data-state=live]').waitFor({ timeout: 30_000 });
  await pause(500);
  const said = await Promise.all(pages.map((page) => page.evaluate(() => window.said)));
  assert.deepEqual(said, [['The sale opens in 5 minutes.'], ['The sale opens in 60 seconds.'], ['The sale opens in 10 seconds.', 'The sale is open. You can buy now.']]);
  const countdown = pages[0].locator('.sale-timer');
  assert.equal(await countdown.getAttribute('role'), 'timer');
  assert.equal(await countdown.getAttribute('aria-live'), null);
});

test('case 16: a page that was left does nothing any more', async (t) => {
  const first = await server.product({ name: 'First', starts_at: inSeconds(10) });
  const second = await server.product({ name: 'Second', starts_at: inSeconds(3600) });
  const page = await browser.page(t, server, { path: `/shop/sales/${first.id}`, user: await server.user() });
  await page.locator('.sale-timer').waitFor();
  await page.locator('#site-name').click();
  await page.locator(`a[href="/shop/sales/${second.id}"]`).click();
  await page.getByRole('heading', { name: 'Second' }).waitFor();
  await until(() => Date.now() > Date.parse(first.starts_at) + 1000, 'the first has begun', 15_000);
  assert.equal(await page.locator('.sale-panel').getAttribute('data-state'), 'upcoming');
  assert.equal(await page.locator('#announcement').textContent(), '');
  assert.equal(await page.locator('h1').textContent(), 'Second');
});

test('case 18: after a restart of the server not all pages come back in the same moment', async (t) => {
  const fake = `
    window.opened = [];
    window.EventSource = class extends EventTarget {
      constructor() { super(); this.at = performance.now(); window.opened.push(this); }
      close() {}
    };
  `;
  const page = await browser.page(t, server, { path: '/shop/nothing', init: fake, before: modules });
  await page.locator('h1').waitFor();
  const delays = await page.evaluate(async () => {
    const { listenToProducts } = await import(new URL('../lib/stream.js', document.querySelector('script[type=module]').src).href);
    const stops = Array.from({ length: 200 }, () => listenToProducts([1], { onProduct() {} }));
    const lostAt = performance.now();
    for (const stream of window.opened.splice(0)) stream.dispatchEvent(new Event('error'));
    await new Promise((resolve) => setTimeout(resolve, 6300));
    for (const stop of stops) stop();
    return window.opened.map((stream) => stream.at - lostAt);
  });
  assert.equal(delays.length, 200, 'each comes back');
  assert.ok(Math.max(...delays) - Math.min(...delays) > 5000, `within ${Math.max(...delays) - Math.min(...delays)} ms`);
  const inASecond = Array.from({ length: 6 }, (_, second) => delays.filter((ms) => Math.floor(ms / 1000) === second).length);
  assert.ok(Math.max(...inASecond) < 80, `in each second: ${inASecond}`);
});
