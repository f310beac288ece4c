import { h } from '../lib/dom.js';
import { t } from '../lib/text.js';
import { titled } from './frame.js';

/** @param {HTMLElement} root */
export function notFoundPage(root) {
  titled(t('not_found.title'));
  root.replaceChildren(h('section', { class: 'empty' }, h('h1', null, t('not_found.title')), h('p', { class: 'soft' }, t('not_found.more')), h('a', { href: '/shop', class: 'button primary' }, t('not_found.sales'))));
}
