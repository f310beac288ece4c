// What stands around every page: the shop's name, where one can go, language and colours.

import { h, replace, setText } from '../lib/dom.js';
import { notice } from '../lib/notice.js';
import { session } from '../lib/session.js';
import { t, text } from '../lib/text.js';
import { theme } from '../lib/theme.js';
import { loadLanguage } from './languages.js';
import { settings } from './settings.js';

let shopName = '';
let title = '';

/** @param {string} of the page's title */
export function titled(of) {
  title = of;
  document.title = shopName ? `${of} · ${shopName}` : of;
}

/** Draws the frame, and again when somebody logs in or out or chooses a language. */
export function startFrame() {
  const head = /** @type {HTMLElement} */ (document.getElementById('head'));
  const foot = /** @type {HTMLElement} */ (document.getElementById('foot'));
  const draw = () => {
    drawHead(head);
    drawFoot(foot);
  };
  draw();
  session.on('change', draw);
  text.on('change', draw);
  settings().then(
    ({ name }) => {
      shopName = name;
      titled(title);
      draw();
    },
    () => {},
  );
}

/** Marks where one is. @param {string} path */
export function markPlace(path) {
  for (const link of document.querySelectorAll('#head nav a')) {
    const here = link.getAttribute('href')?.split('?')[0] ?? '';
    const isHere = here === '/shop' ? path === '/shop' || path.startsWith('/shop/sales') : path.startsWith(here);
    if (isHere) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

/** @param {HTMLElement} head */
function drawHead(head) {
  const user = session.user();
  const other = text.language() === 'en' ? /** @type {const} */ ('zh') : /** @type {const} */ ('en');
  const language = h('button', { type: 'button', class: 'quiet', id: 'language', lang: other === 'zh' ? 'zh-CN' : 'en', translate: 'no', on: { click: () => void loadLanguage(other).then(() => text.choose(other), () => notice.fail(t('error.offline'))) } }, other === 'zh' ? '中文' : 'English');
  replace(
    head,
    h('a', { href: '/shop', class: 'site-name', id: 'site-name', translate: 'no' }, shopName || t('frame.shop')),
    h('nav', { aria: { label: t('frame.nav') } },
      h('a', { href: '/shop', class: 'quiet nav-sales', id: 'nav-sales' }, t('frame.sales')),
      h('a', { href: '/shop/orders', class: 'quiet', id: 'nav-orders' }, t('frame.orders')),
      h('a', { href: '/shop/account', class: 'quiet', id: 'nav-account' }, t(user ? 'frame.account' : 'frame.log_in')),
      language),
  );
  setText(/** @type {HTMLElement} */ (document.getElementById('skip')), t('frame.skip'));
  markPlace(location.pathname);
}

/** @param {HTMLElement} foot */
function drawFoot(foot) {
  const user = session.user();
  const themes = /** @type {const} */ (['auto', 'light', 'dark']);
  const choose = themes.map((name) =>
    h('button', {
      type: 'button',
      class: 'quiet',
      id: `theme-${name}`,
      aria: { pressed: theme.chosen() === name },
      on: { click: () => { theme.choose(name); drawFoot(foot); } },
    }, t(`frame.theme.${name}`)),
  );
  replace(
    foot,
    h('p', { class: 'soft small' }, user ? [t('frame.logged_in'), ' ', h('span', { translate: 'no' }, user.username)] : t('frame.not_logged_in')),
    h('div', { class: 'segments', role: 'group', aria: { label: t('frame.theme') } }, choose),
  );
}
