// Sentences that are said to everybody, also to those who do not see them. The regions are in the HTML from the start, for a region
// that is put in together with its text is not read out.

import { h, setText } from './dom.js';
import { t, text } from './text.js';

const SAID_FOR_MS = 6000;

/**
 * @param {string} id
 * @param {string} role
 * @param {string} className
 */
function region(id, role, className) {
  const found = document.getElementById(id);
  if (found) return found;
  const made = h('div', { id, role, class: className, aria: { atomic: 'true' } });
  document.body.append(made);
  return made;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

export const notice = {
  /**
   * Something went well. It leaves by itself.
   * @param {string} sentence
   */
  say(sentence) {
    const status = region('notice-status', 'status', 'notice');
    clearTimeout(timer);
    setText(status, sentence);
    timer = setTimeout(() => setText(status, ''), SAID_FOR_MS);
  },

  /**
   * Something went wrong. It stays until it is dismissed, or something else goes wrong.
   * @param {string} sentence
   */
  fail(sentence) {
    const alert = region('notice-alert', 'alert', 'notice notice-bad');
    const dismiss = h('button', { type: 'button', class: 'quiet', on: { click: () => alert.replaceChildren() } }, t('notice.dismiss'));
    alert.replaceChildren(h('span', null, sentence), dismiss);
  },

  /** Nothing is wrong any more. */
  clear() {
    document.getElementById('notice-alert')?.replaceChildren();
  },

  /**
   * For screen readers only, of what others see change on the page.
   * @param {string} sentence
   */
  announce(sentence) {
    const place = region('announcement', 'status', 'unseen');
    // The same words again are said again only if they are another text.
    place.textContent = place.textContent === sentence ? `${sentence}\u00a0` : sentence;
  },
};

text.add({ en: { 'notice.dismiss': 'Dismiss' }, zh: { 'notice.dismiss': '关闭' } });
