/** What a browser sees of the way to the server, each with a verdict in words: to be looked at an hour before a drop. */

import { h, replace } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { t } from '../lib/text.js';
import { badge, heading } from './parts.js';
import { measures } from './measures.js';

/** @import { Finding } from './measures.js' */

/** @type {Record<Finding['verdict'], string>} */
const TONES = { good: 'on', note: 'upcoming', warn: 'paused', bad: 'failed' };

/** @param {HTMLElement} root */
export function checkPage(root) {
  /** @type {AbortController} */
  let aborter = new AbortController();
  const list = h('ul', { class: 'checks' });
  const begin = () => {
    aborter.abort();
    aborter = new AbortController();
    const { signal } = aborter;
    replace(
      list,
      ...measures.map(({ name, measure }) => {
        const verdict = h('span', { class: 'state' }, h('span', { class: 'soft' }, t('check.measuring')));
        const words = h('div', { class: 'check-words' });
        const show = (/** @type {Finding} */ finding) => {
          replace(verdict, badge(TONES[finding.verdict], t(`check.verdict.${finding.verdict}`)));
          replace(words, h('p', {}, finding.words), ...(finding.facts ?? []).map((fact) => h('p', { class: 'soft mono', translate: 'no' }, fact)));
        };
        measure({ signal, show }).catch((error) => {
          if (!signal.aborted) show({ verdict: 'warn', words: explain(error) });
        });
        return h('li', { class: 'card check', data: { check: name } }, h('div', { class: 'check-head' }, h('h2', {}, t(`check.${name}`)), verdict), words);
      }),
    );
  };
  replace(root, heading(t('check.title'), h('button', { type: 'button', class: 'button', on: { click: begin } }, t('check.again'))), h('p', { class: 'soft lead' }, t('check.lead')), list);
  begin();
  return () => aborter.abort();
}

