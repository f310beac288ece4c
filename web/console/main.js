/** The console: who is not an administrator sees the log-in, at whatever address. */

import { api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, replace, setText } from '../lib/dom.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { text, t } from '../lib/text.js';
import { theme } from '../lib/theme.js';
import { checkPage } from './check.js';
import { logPage } from './log.js';
import { loginPage } from './login.js';
import { orderPage } from './order.js';
import { ordersPage } from './orders.js';
import { empty, heading } from './parts.js';
import { salePage } from './sale.js';
import { editSalePage, newSalePage } from './sale-form.js';
import { salesPage } from './sales.js';
import { settings } from './settings.js';
import { en } from './text.en.js';
import { zh } from './text.zh.js';
import { webhookPage } from './webhook.js';
import { webhooksPage } from './webhooks.js';

/** @typedef {(root: HTMLElement, params: Record<string, string>) => (() => void) | void} Page */

text.add({ en, zh });

const LINKS = [
  ['/console', 'nav.sales'],
  ['/console/orders', 'nav.orders'],
  ['/console/webhooks', 'nav.webhooks'],
  ['/console/log', 'nav.log'],
  ['/console/check', 'nav.check'],
];

const isAdmin = () => session.user()?.role === 'admin';

/** @param {Page} page @returns {Page} */
const guarded = (page) => (root, params) => (isAdmin() ? page(root, params) : loginPage(root));

/** @type {Page} */
function nowherePage(root) {
  replace(root, heading(t('nowhere.title')), empty(t('nowhere.title'), t('nowhere.body'), h('a', { href: '/console', class: 'button primary' }, t('sales.title'))));
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no #${id}`);
  return found;
}

/** Which of the links leads here. @param {string} href */
function isHere(href) {
  const path = location.pathname;
  if (href === '/console') return path === '/console' || path === '/console/' || path.startsWith('/console/sales');
  return path === href || path.startsWith(`${href}/`);
}

function showHead() {
  const user = session.user();
  const nav = element('nav');
  nav.setAttribute('aria-label', t('nav.label'));
  nav.hidden = !isAdmin();
  replace(nav, ...LINKS.map(([href = '', key = '']) => h('a', { href, class: 'nav-link', aria: { current: isHere(href) ? 'page' : null } }, t(key))));
  setText(element('skip'), t('nav.skip'));
  setText(element('brand-console'), t('nav.console'));
  const other = text.language() === 'zh' ? 'en' : 'zh';
  const themes = /** @type {const} */ (['auto', 'light', 'dark']);
  const chosen = theme.chosen();
  const nextTheme = themes[(themes.indexOf(chosen) + 1) % themes.length] ?? 'auto';
  const changeTheme = () => {
    theme.choose(nextTheme);
    showHead();
  };
  replace(
    element('tools'),
    user ? h('span', { class: 'soft who', translate: 'no' }, user.username) : null,
    h('button', { type: 'button', class: 'quiet', id: 'theme', title: t('nav.theme'), on: { click: changeTheme } }, h('span', { aria: { hidden: 'true' } }, '◐'), h('span', { class: 'unseen' }, `${t('nav.theme')}: `), h('span', { class: 'theme-name' }, t(`theme.${chosen}`))),
    h('button', { type: 'button', class: 'quiet', id: 'language', lang: other === 'zh' ? 'zh-CN' : 'en', on: { click: () => text.choose(other) } }, other === 'zh' ? '中文' : 'English'),
    user ? h('button', { type: 'button', class: 'quiet', id: 'logout', on: { click: () => void logOut() } }, t('nav.logout')) : null,
  );
}

async function logOut() {
  try {
    await api.post('/logout');
  } catch {
    // The token ends by itself; here it is forgotten in any case.
  }
  session.end();
}

const routes = [
  { path: '/console', page: guarded(salesPage) },
  { path: '/console/sales/new', page: guarded(newSalePage) },
  { path: '/console/sales/:id', page: guarded(salePage) },
  { path: '/console/sales/:id/edit', page: guarded(editSalePage) },
  { path: '/console/orders', page: guarded(ordersPage) },
  { path: '/console/orders/:id', page: guarded(orderPage) },
  { path: '/console/webhooks', page: guarded(webhooksPage) },
  { path: '/console/webhooks/:id', page: guarded(webhookPage) },
  { path: '/console/log', page: guarded(logPage) },
  { path: '/console/check', page: guarded(checkPage) },
  { path: '*', page: guarded(nowherePage) },
];

clock.start();
text.on('change', () => {
  showHead();
  void router.again();
});
session.on('change', () => {
  showHead();
  void router.again();
});
void settings().then(({ name }) => setText(element('brand-name'), name), () => {});
router.start(routes, element('main'), { onPage: showHead });
