/** A secret that is shown once. */

import { h } from '../lib/dom.js';
import { t } from '../lib/text.js';

/** @param {string} secret @param {string} title */
export function showSecret(secret, title) {
  const value = h('input', { type: 'text', readonly: true, value: secret, class: 'code-input', spellcheck: 'false', translate: 'no', aria: { label: t('secret.label') } });
  const said = h('p', { class: 'hint', role: 'status' });
  const copy = async () => {
    value.select();
    try {
      await navigator.clipboard.writeText(secret);
      said.textContent = t('secret.copied');
    } catch {
      // Not allowed, or no https: it is selected, so that a key copies it.
      said.textContent = t('secret.selected');
    }
  };
  const dialog = h(
    'dialog',
    { class: 'dialog', aria: { labelledby: 'secret-title' } },
    h('h2', { id: 'secret-title' }, title),
    h('p', {}, t('secret.body')),
    h('div', { class: 'field-row' }, value, h('button', { type: 'button', class: 'button primary', on: { click: () => void copy() } }, t('secret.copy'))),
    said,
    h('div', { class: 'dialog-actions' }, h('button', { type: 'button', class: 'button', on: { click: () => dialog.close() } }, t('secret.close'))),
  );
  // Not by a slip of a key: it does not come again.
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  dialog.addEventListener('close', () => {
    dialog.remove();
    const heading = document.querySelector('main h1');
    if (heading instanceof HTMLElement) heading.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}
