// A server of its own, a browser, and what the tests of all pages need.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { chromium } from 'playwright-core';

export { pause };

const ROOT = resolve(import.meta.dirname, '../..');
const BINARY = resolve(ROOT, process.env.SECKILL_BIN ?? 'target/debug/seckill');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ADMIN = { username: 'admin', password: 'the administrator of tests' };
export const PASSWORD = 'a password of tests';

/** @param {() => unknown} isSo Waits until it is true, and says what it waited for if it never is. */
export async function until(isSo, what = isSo.toString(), withinMs = 8000) {
  const end = Date.now() + withinMs;
  let failure;
  while (Date.now() < end) {
    try {
      const value = await isSo();
      if (value) return value;
      failure = undefined;
    } catch (error) {
      failure = error;
    }
    await pause(50);
  }
  throw new Error(`not within ${withinMs} ms: ${what}`, { cause: failure });
}

/** A time from now on, as the API writes it. */
export const inSeconds = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

async function freePort() {
  return new Promise((found, failed) => {
    const probe = createServer();
    probe.once('error', failed);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => found(port));
    });
  });
}

export class Server {
  /** @param {Record<string, string>} env more settings, such as SECKILL__SHOP__NAME */
  static async start(env = {}) {
    const server = new Server();
    server.env = env;
    server.directory = await mkdtemp(join(tmpdir(), 'seckill-web-'));
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    await writeFile(join(server.directory, 'config.yaml'), await readFile(join(ROOT, 'config.yaml')));
    await server.#spawn();
    const reply = await server.api('POST', '/login', { body: ADMIN, token: null });
    server.admin = { ...ADMIN, token: reply.body.access_token };
    return server;
  }

  #users = 0;

  async #spawn() {
    const log = await open(join(this.directory, 'log'), 'a');
    this.process = spawn(BINARY, ['serve'], {
      cwd: this.directory,
      stdio: ['ignore', log.fd, log.fd],
      env: {
        PATH: process.env.PATH,
        HOME: this.directory,
        RUST_LOG: 'warn',
        SECKILL__SERVER__PORT: String(this.port),
        SECKILL__ADMIN__PASSWORD: ADMIN.password,
        SECKILL__AUTH__BCRYPT_COST: '4',
        SECKILL__LIMITS__AUTH_PER_MINUTE: '0',
        ...this.env,
      },
    });
    await log.close();
    this.exited = new Promise((resolve) => this.process.once('exit', resolve));
    const { process: started } = this;
    const isReady = async () => {
      if (started.exitCode !== null) throw new Error(`the server ended: ${await this.log()}`);
      return (await fetch(`${this.url}/readyz`)).ok;
    };
    await until(isReady, 'the server is ready', 20_000);
  }

  log() {
    return readFile(join(this.directory, 'log'), 'utf8');
  }

  /** As a crash: nothing is finished. */
  async kill() {
    this.process.kill('SIGKILL');
    await this.exited;
  }

  /** Starts it again with the same data, at the same address. */
  async restart() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.kill();
    await this.#spawn();
  }

  async stop() {
    this.process.kill('SIGTERM');
    await Promise.race([this.exited, pause(3000).then(() => this.process.kill('SIGKILL'))]);
    await this.exited;
    await rm(this.directory, { recursive: true, force: true });
  }

  /**
   * A call as the administrator, unless another token is given. Fails on refusals, unless `refused` says that one is expected.
   * @param {string} method
   * @param {string} path
   */
  async api(method, path, { body, token = this.admin?.token, headers = {}, refused = false } = {}) {
    const reply = await fetch(this.url + path, {
      method,
      headers: { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await reply.text();
    let content = text;
    try {
      content = JSON.parse(text);
    } catch {
      // No JSON, such as CSV.
    }
    if (!refused && !reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`);
    return { status: reply.status, body: content, headers: reply.headers };
  }

  /** Makes a product: on sale now, 10 units of 19.90 USD, unless `more` says otherwise. */
  async product(more = {}) {
    return (await this.api('POST', '/products', { body: { name: 'Lamp', price_cents: 1990, stock: 10, ...more } })).body;
  }

  patch(id, changes) {
    return this.api('PATCH', `/products/${id}`, { body: changes });
  }

  /** A new buyer. */
  async user(name = `buyer${(this.#users += 1)}`) {
    const reply = await this.api('POST', '/register', { body: { username: name, password: PASSWORD }, token: null });
    return { id: reply.body.id, username: name, password: PASSWORD, token: reply.body.access_token };
  }

  /** Buys, and waits until the order is written. */
  async buy(user, productId, quantity = 1) {
    const reply = await this.api('POST', `/seckill/${productId}`, { token: user.token, body: { quantity } });
    const id = reply.body.order_id;
    return until(async () => {
      const order = (await this.api('GET', `/orders/${id}`, { token: user.token })).body;
      return order.status !== 'queued' && order;
    }, 'the order is written');
  }

  /** Pays an order with the test provider. */
  async pay(user, orderId, outcome = 'pay') {
    const payment = (await this.api('POST', `/orders/${orderId}/payments`, { token: user.token })).body;
    const url = new URL(payment.redirect_url, this.url);
    await fetch(url, { method: 'POST', redirect: 'manual', headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, body: `outcome=${outcome}` });
    return payment;
  }
}

/** What is kept in the browser of somebody who is logged in. */
export function loggedIn(user, role = 'buyer') {
  const claims = JSON.parse(Buffer.from(user.token.split('.')[1], 'base64url').toString());
  const kept = { token: user.token, user: { id: Number(claims.sub), username: user.username, role }, expiresAt: claims.exp * 1000 };
  return { 'seckill.session': JSON.stringify(kept) };
}

/** Chromium logs a refusal of the API as an error although the page expects and handles it. */
const REFUSAL = /^Failed to load resource: the server responded with a status of (400|401|403|404|409|412|429|503) \(/;

export class Browser {
  static async launch() {
    const browser = new Browser();
    browser.chromium = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--force-color-profile=srgb'],
    });
    return browser;
  }

  close() {
    return this.chromium.close();
  }

  /**
   * A window of its own. When the test is over, it fails if the page has logged an error that it did not expect.
   * @param {import('node:test').TestContext} test
   * @param {Server} server
   */
  async page(test, server, { path = '/shop', language = 'en', theme = 'light', width = 390, height = 844, user, role, storage = {}, expects = [], init, before, ...more } = {}) {
    const kept = { ...(user ? loggedIn(user, role) : {}), ...storage };
    const context = await this.chromium.newContext({
      locale: language === 'zh' ? 'zh-CN' : 'en-US',
      colorScheme: theme,
      viewport: { width, height },
      reducedMotion: 'reduce',
      storageState: { cookies: [], origins: [{ origin: server.url, localStorage: Object.entries(kept).map(([name, value]) => ({ name, value })) }] },
      ...more,
    });
    const page = await context.newPage();
    const problems = [];
    const note = (text) => {
      if (!REFUSAL.test(text) && !expects.some((expected) => expected.test(text))) problems.push(text);
    };
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && note(message.text()));
    page.on('pageerror', (error) => note(`${error}`));
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol.startsWith('http') && url.origin !== server.url && !expects.some((expected) => expected.test(request.url()))) problems.push(`request to ${request.url()}`);
    });
    test.after(async () => {
      await context.close();
      assert.deepEqual(problems, [], 'what the page has logged');
    });
    if (init) await page.addInitScript(init);
    if (before) await before(page, context);
    if (path) await page.goto(server.url + path);
    return page;
  }
}

/** For `before`: modules can be asked for one by one, though a page has all of them in one file. */
export const modules = (page) =>
  page.route('**/lib/*.js', (route) => route.fulfill({ path: join(ROOT, 'web/lib', new URL(route.request().url()).pathname.split('/').at(-1)) }));

/** All requests of a page from now on, as `METHOD /path`, with the time they began. */
export function requests(page) {
  const all = [];
  page.on('request', (request) => all.push({ line: `${request.method()} ${new URL(request.url()).pathname}`, at: Date.now() }));
  return all;
}

const axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const AXE_TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/**
 * What axe finds wrong with a page, in short.
 * @param {string[]} [rules] only these
 */
export async function violations(page, rules) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axeSource);
  const runOnly = rules ? { type: 'rule', values: rules } : { type: 'tag', values: AXE_TAGS };
  const result = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), runOnly);
  const looked = [...result.passes, ...result.violations, ...result.incomplete, ...result.inapplicable].map((rule) => rule.id);
  assert.ok(rules || looked.includes('target-size'), 'axe looks at the size of targets');
  return result.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => `${node.target} ${node.failureSummary}`).join('; ')}`);
}

/** Whether the page can be scrolled sideways, and what makes it so. */
export function tooWide(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const wide = [...document.body.querySelectorAll('*')].filter((element) => element.getBoundingClientRect().right > width + 0.5);
    return [`${document.documentElement.scrollWidth} > ${width}`, ...wide.map((element) => `${element.tagName}.${element.className}`)];
  });
}

/** Every text that a page shows or says. */
export const said = (page) => page.evaluate(() => document.body.innerText);
