// A question before something that cannot be taken back. It stays open while that is done, and says what went wrong.

import { h } from './dom.js';
import { explain } from './errors.js';
import { t, text } from './text.js';

let count = 0;

/**
 * @typedef {{label: string, required?: boolean, value?: string, type?: string, hint?: string, min?: number, max?: number, maxlength?: number}} Ask
 * @param {{
 *   title: string,
 *   body?: string | Node | (string | Node)[],
 *   action: string,
 *   danger?: boolean,
 *   ask?: Ask | null,
 *   run: (answer: string) => Promise<unknown>,
 * }} question  `ask` is something to type, such as a reason
 * @returns {Promise<boolean>} whether it was done
 */
export function confirmDialog({ title, body, action, danger = false, ask = null, run }) {
  count += 1;
  const id = `dialog-${count}`;
  const input = ask && h('input', {
    id: `${id}-answer`,
    type: ask.type ?? 'text',
    class: 'field-input',
    required: ask.required ?? false,
    min: ask.min,
    max: ask.max,
    maxlength: ask.maxlength,
    value: ask.value ?? '',
    autocomplete: 'off',
    aria: { describedby: ask.hint ? `${id}-hint` : null },
  });
  const error = h('p', { class: 'field-error', role: 'alert' });
  const yes = h('button', { type: 'submit', class: danger ? 'button danger' : 'button primary' }, action);
  const no = h('button', { type: 'button', class: 'button' }, t('dialog.back'));
  const form = h(
    'form',
    { noValidate: true },
    h('h2', { id: `${id}-title` }, title),
    body ? h('div', { id: `${id}-body`, class: 'dialog-body' }, body) : null,
    input && h('p', { class: 'field' }, h('label', { for: input.id }, ask.label), input, ask.hint ? h('span', { id: `${id}-hint`, class: 'hint' }, ask.hint) : null),
    error,
    h('div', { class: 'dialog-actions' }, no, yes),
  );
  const dialog = h('dialog', { class: 'dialog', aria: { labelledby: `${id}-title`, describedby: body ? `${id}-body` : null } }, form);
  const opener = document.activeElement;
  document.body.append(dialog);
  dialog.showModal();
  (input ?? no).focus();

  return new Promise((resolve) => {
    let isRunning = false;
    let isDone = false;
    dialog.addEventListener('cancel', (event) => isRunning && event.preventDefault());
    dialog.addEventListener('close', () => {
      dialog.remove();
      // The page may have changed meanwhile; then the focus is where it was put.
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
      resolve(isDone);
    });
    no.addEventListener('click', () => !isRunning && dialog.close());
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (isRunning) return;
      error.textContent = '';
      if (input && !input.checkValidity()) {
        error.textContent = input.value.trim() === '' ? t('dialog.required') : input.validationMessage;
        input.focus();
        return;
      }
      isRunning = true;
      for (const button of [yes, no]) button.setAttribute('aria-disabled', 'true');
      yes.setAttribute('aria-busy', 'true');
      try {
        await run(input?.value.trim() ?? '');
        isDone = true;
        dialog.close();
      } catch (failure) {
        error.textContent = explain(failure);
      } finally {
        isRunning = false;
        for (const button of [yes, no]) button.removeAttribute('aria-disabled');
        yes.removeAttribute('aria-busy');
      }
    });
  });
}

text.add({
  en: { 'dialog.back': 'Back', 'dialog.required': 'Please fill this in.' },
  zh: { 'dialog.back': '返回', 'dialog.required': '请填写此项。' },
});
