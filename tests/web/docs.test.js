// The API to read and to try: Swagger UI at /docs.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { Browser, Server } from './support.js';

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

// Requests to others and errors in the browser's log fail a test, whatever it is about.
test('the API can be read and tried', async (t) => {
  const page = await browser.page(t, server, { path: null });
  await page.goto(`${server.url}/docs`);
  const buy = page.locator('#operations-Purchases-buy');
  await buy.waitFor();
  assert.match(await page.locator('.info').innerText(), /seckill/);
  const shown = await page.locator('.opblock').count();
  const document = await (await fetch(`${server.url}/openapi.json`)).json();
  const described = Object.values(document.paths).reduce((count, path) => count + Object.keys(path).length, 0);
  assert.equal(shown, described);

  // A buyer's token goes in, and a click comes back as a promise.
  const product = await server.product({ stock: 1 });
  const user = await server.user();
  await page.locator('.btn.authorize').first().click();
  await page.locator('.auth-container input').fill(user.token);
  await page.locator('.auth-btn-wrapper .authorize').click();
  await page.locator('.auth-btn-wrapper .btn-done').click();
  await buy.locator('.opblock-summary-control').click();
  await buy.locator('tr[data-param-name="id"] input').fill(String(product.id));
  await buy.locator('.execute').click();
  const reply = buy.locator('.live-responses-table .response-col_status').filter({ hasText: '202' });
  await reply.waitFor();
  assert.match(await buy.locator('.live-responses-table').innerText(), /"status": "queued"/);
  if (process.env.PICTURE) await page.screenshot({ path: process.env.PICTURE });
});
