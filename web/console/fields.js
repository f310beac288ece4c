/** Fields of forms: a label, an input, a hint and a place for what is wrong with it. */

import { h, replace } from '../lib/dom.js';
import { ApiError } from '../lib/api.js';
import { explain } from '../lib/errors.js';
import { t } from '../lib/text.js';

/**
 * @typedef {object} Field
 * @property {HTMLElement} node
 * @property {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} input
 * @property {(problem: string | null) => void} complain
 * @property {HTMLElement} hint
 */

let made = 0;

/**
 * @param {object} options
 * @param {string} options.label
 * @param {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} options.input
 * @param {string} [options.hint]
 * @param {(Node | string)[]} [options.beside] shown in one line with the input
 * @param {boolean} [options.optional]
 * @returns {Field}
 */
export function field({ label, input, hint, beside = [], optional = false }) {
  const id = `field-${(made += 1)}`;
  input.id = id;
  input.classList.add('field-input');
  const hintNode = h('p', { class: 'hint', id: `${id}-hint` }, hint ?? '');
  const problem = h('p', { class: 'field-error', id: `${id}-problem` });
  input.setAttribute('aria-describedby', `${id}-hint ${id}-problem`);
  const complain = (/** @type {string | null} */ text) => {
    problem.textContent = text ?? '';
    if (text) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  };
  input.addEventListener('input', () => complain(null));
  const name = h('label', { for: id }, label, optional ? h('span', { class: 'optional' }, ` ${t('form.optional')}`) : null);
  const row = beside.length > 0 ? h('div', { class: 'field-row' }, input, ...beside) : input;
  return { node: h('div', { class: 'field' }, name, row, hintNode, problem), input, complain, hint: hintNode };
}

/**
 * A number that people type: digits, perhaps grouped. Null if it is none.
 * @param {string} text
 * @returns {number | null}
 */
export function wholeNumber(text) {
  const digits = text.trim().replace(/[\s,.'’٬]/g, '');
  if (!/^\d{1,15}$/.test(digits)) return null;
  return Number(digits);
}

/** It did not work, and why was said at the field. */
export class SaidAtField extends Error {}

/**
 * Puts what the server says of a field at that field. Whether it has found one.
 * @param {unknown} error
 * @param {Record<string, Field>} fields by the API's names
 */
export function placeProblem(error, fields) {
  if (!(error instanceof ApiError) || error.code !== 'invalid_request') return false;
  const match = /^([a-z_]+)(?:\[\d+\])?: (.+)$/s.exec(error.detail ?? '');
  const place = match && fields[match[1] ?? ''];
  if (!place) return false;
  place.complain(t('form.server_says', { problem: match[2] ?? '' }));
  place.input.focus();
  return true;
}

/**
 * A form with a place for what is wrong with all of it, and a button that says that it is at work. The button keeps the focus.
 * @param {object} options
 * @param {(Node | null)[]} options.content
 * @param {string} options.action
 * @param {Record<string, Field>} options.fields by the API's names
 * @param {() => Promise<void> | null} options.submit null: something is wrong, and was said
 * @param {(Node | null)[]} [options.beside] other buttons
 * @param {boolean} [options.danger]
 */
export function form({ content, action, fields, submit, beside = [], danger = false }) {
  const problem = h('p', { class: 'field-error', role: 'alert' });
  const button = h('button', { type: 'submit', class: `button ${danger ? 'danger' : 'primary'}` }, action);
  let isBusy = false;
  const busy = (/** @type {boolean} */ is) => {
    isBusy = is;
    button.setAttribute('aria-disabled', String(is));
    button.textContent = is ? t('form.working') : action;
  };
  const showProblem = () => {
    const first = node.querySelector('[aria-invalid]');
    if (first instanceof HTMLElement) first.focus();
  };
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (isBusy) return;
    replace(problem);
    const work = submit();
    if (!work) return showProblem();
    busy(true);
    try {
      await work;
    } catch (error) {
      if (error instanceof SaidAtField) showProblem();
      else if (!placeProblem(error, fields)) problem.textContent = explain(error);
    } finally {
      busy(false);
    }
  };
  const node = h('form', { novalidate: true, on: { submit: (/** @type {Event} */ event) => void send(event) } }, ...content, problem, h('div', { class: 'form-actions' }, button, ...beside));
  return node;
}
