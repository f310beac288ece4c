/** A dialog with a form of its own: it stays open until what it does has worked. */

import { h } from '../lib/dom.js';
import { t } from '../lib/text.js';
import { form } from './fields.js';

/** @import { Field } from './fields.js' */

let opened = 0;

/**
 * @param {object} options
 * @param {string} options.title
 * @param {string} [options.body]
 * @param {(Node | null)[]} options.content
 * @param {Record<string, Field>} [options.fields]
 * @param {string} options.action
 * @param {boolean} [options.danger]
 * @param {() => Promise<void> | null} options.run null: something is wrong, and was said
 */
export function formDialog({ title, body, content, fields = {}, action, danger = false, run }) {
  const id = `form-dialog-${(opened += 1)}`;
  const before = document.activeElement;
  const close = () => dialog.close();
  const submit = () => {
    const work = run();
    return work && work.then(close);
  };
  const cancel = h('button', { type: 'button', class: 'button', on: { click: close } }, t('form.cancel'));
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      'dialog',
      { class: 'dialog', aria: { labelledby: id } },
      h('h2', { id }, title),
      body ? h('p', {}, body) : null,
      form({ content, fields, action, danger, submit, beside: [cancel] }),
    )
  );
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}
