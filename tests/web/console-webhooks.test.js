// Webhooks, with a shop that listens.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { Browser, Server, until } from './support.js';

/** @type {Server} */
let server;
/** @type {Browser} */
let browser;
let shop;
let answer = 200;
const heard = [];
before(async () => {
  server = await Server.start({ SECKILL__WEBHOOKS__ALLOW_PRIVATE: 'true', SECKILL__WEBHOOKS__RETRY_SECONDS: '0,600' });
  browser = await Browser.launch();
  shop = createServer((request, reply) => {
    let body = '';
    request.on('data', (piece) => (body += piece));
    request.on('end', () => {
      heard.push({ type: JSON.parse(body).type, id: request.headers['webhook-id'], signatures: request.headers['webhook-signature'] });
      reply.writeHead(answer).end();
    });
  });
  await new Promise((done) => shop.listen(0, '127.0.0.1', done));
});
after(async () => {
  await browser?.close();
  await server?.stop();
  shop?.close();
});

const dialog = (page) => page.getByRole('dialog');
const act = async (page, name, confirm) => {
  await page.locator(`[data-action="${name}"]`).click();
  await dialog(page).getByRole('button', { name: confirm, exact: true }).click();
};

test('an endpoint is added, tested, read, switched off and on, given a new secret, and deleted', async (context) => {
  const url = `http://127.0.0.1:${shop.address().port}/hook`;
  const page = await browser.page(context, server, { path: '/console/webhooks', width: 1280, height: 900, user: server.admin, role: 'admin' });
  await page.getByRole('heading', { name: 'Nobody is told yet' }).waitFor();
  await page.getByRole('button', { name: 'Add an endpoint' }).click();
  await dialog(page).getByRole('button', { name: 'Add', exact: true }).click();
  await dialog(page).getByText('Please fill this in.').waitFor();
  await dialog(page).getByLabel('Address').fill('ftp://shop.example');
  await dialog(page).getByRole('button', { name: 'Add', exact: true }).click();
  await dialog(page).getByText('The server refuses it').waitFor();
  await dialog(page).getByLabel('Address').fill(url);
  await dialog(page).getByLabel(/Sale changed/).uncheck();
  await dialog(page).getByRole('button', { name: 'Add', exact: true }).click();

  const secret = dialog(page).getByLabel('Secret');
  await secret.waitFor();
  assert.match(await secret.inputValue(), /^whsec_/);
  await page.keyboard.press('Escape');
  assert.equal(await dialog(page).isVisible(), true, 'a slip of a key does not lose it');
  await dialog(page).getByRole('button', { name: 'I have kept it' }).click();
  const path = new URL(page.url()).pathname;
  const endpoint = (await server.api('GET', `/admin/webhooks/${path.split('/').at(-1)}`)).body;
  assert.deepEqual([endpoint.url, endpoint.events.includes('product.changed'), endpoint.events.length], [url, false, 7]);
  await page.reload();
  await page.getByText(url).first().waitFor();
  assert.equal(await page.getByText('whsec_').count(), 0, 'it is shown once');

  await page.locator('[data-action="test"]').click();
  await until(() => heard.some(({ type }) => type === 'webhook.test'), 'the shop hears of it');
  await page.getByRole('cell', { name: 'Delivered' }).waitFor();

  answer = 500;
  const product = await server.product();
  const order = await server.buy(await server.user(), product.id);
  await until(() => heard.some(({ type }) => type === 'order.created'));
  await until(async () => (await server.api('GET', `/admin${path.replace('/console', '')}/deliveries?status=pending`)).body.items[0]?.last_status === 500);
  await page.getByRole('button', { name: 'Refresh' }).click();
  const row = page.getByRole('row').filter({ hasText: 'order.created' });
  await row.getByText('Waiting').waitFor();
  assert.match(await row.innerText(), /500/);
  assert.match(await row.innerText(), new RegExp(order.id));
  answer = 200;
  await row.getByRole('button', { name: 'Send again' }).click();
  await until(() => heard.filter(({ type }) => type === 'order.created').length === 2, 'it is sent again');
  await row.getByText('Delivered').waitFor();
  await page.getByLabel('Status').selectOption('failed');
  await page.getByText('Nothing was sent.').waitFor();
  assert.equal(new URL(page.url()).search, '?status=failed');

  await act(page, 'rotate', 'New secret');
  await dialog(page).getByLabel('Secret').waitFor();
  await dialog(page).getByRole('button', { name: 'I have kept it' }).click();
  await page.getByText('The old secret signs until').waitFor();
  await act(page, 'deactivate', 'Switch off');
  await page.locator('.hook-url .badge', { hasText: 'Off' }).waitFor();
  await act(page, 'activate', 'Switch on');
  await page.locator('.hook-url .badge', { hasText: 'On' }).waitFor();

  await page.locator('[data-action="edit"]').click();
  await dialog(page).getByLabel('Description').fill('Shipping');
  await dialog(page).getByRole('button', { name: 'Save' }).click();
  await page.getByText('Shipping', { exact: true }).waitFor();

  await act(page, 'delete', 'Delete');
  await page.getByRole('heading', { name: 'Nobody is told yet' }).waitFor();
  await page.goto(`${server.url}/console/log`);
  for (const said of ['Registered the webhook', 'Rotated the webhook’s secret', 'Deleted the webhook']) await page.getByRole('cell', { name: said }).first().waitFor();
});
