// What axe finds wrong: on every page and state, light and dark, in both languages.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { Browser, inSeconds, Server, until, violations } from './support.js';

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

/** A product in each state, and an order in each. */
async function everything() {
  const user = await server.user();
  const sale = (product) => `/shop/sales/${product.id}`;
  const upcoming = await server.product({ starts_at: inSeconds(3600) });
  const live = await server.product({ ends_at: inSeconds(3600), max_per_order: 2, description: 'Warm light.' });
  const paused = await server.product();
  await server.patch(paused.id, { paused: true });
  const sold = await server.product({ stock: 1 });
  await server.buy(await server.user(), sold.id);
  const ended = await server.product({ ends_at: inSeconds(1) });
  const orders = [];
  for (const status of ['unpaid', 'paid', 'cancelled']) orders.push(await server.buy(user, (await server.product({ name: `For ${status}`, stock: 2 })).id));
  await server.pay(user, orders[1].id);
  await server.api('POST', `/orders/${orders[2].id}/cancel`, { token: user.token });
  const inside = [...[upcoming, live, paused, sold, ended].map(sale), ...orders.map(({ product_id }) => `/shop/sales/${product_id}`), ...orders.map(({ id }) => `/shop/orders/${id}`), '/shop/orders', '/shop/account'];
  return { user, inside, outside: ['/shop', sale(upcoming), sale(live), '/shop/account', '/shop/account?new=1', '/shop/nothing'], unpaid: `/shop/orders/${orders[0].id}` };
}

test('axe finds nothing on any page of the shop', async (t) => {
  const { user, inside, outside, unpaid } = await everything();
  const found = [];
  for (const [language, width, first, second] of [['en', 1280, 'light', 'dark'], ['zh', 390, 'dark', 'light']]) {
    for (const [paths, who] of [[outside, undefined], [inside, user]]) {
      const page = await browser.page(t, server, { language, width, theme: first, user: who, path: null });
      const look = async (where) => {
        for (const violation of await violations(page)) found.push(`${where} ${language} ${first}: ${violation}`);
        // Another theme is the same page in other colours.
        await page.emulateMedia({ colorScheme: second });
        for (const violation of await violations(page, ['color-contrast'])) found.push(`${where} ${language} ${second}: ${violation}`);
        await page.emulateMedia({ colorScheme: first });
      };
      for (const path of paths) {
        await page.goto(server.url + path);
        await page.locator('main h1:not(.unseen)').waitFor();
        await until(async () => (await page.locator('main .skeleton').count()) === 0, `${path} is loaded`);
        await look(path);
      }
      if (who) {
        await page.goto(server.url + unpaid);
        await page.locator('.own-more .quiet').click();
        await look('the question before an order is cancelled');
      }
    }
  }
  assert.deepEqual(found, []);
});
