/** Administrators log in. */

import { ApiError, PASSWORD_TIMEOUT_MS, api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, replace } from '../lib/dom.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { t } from '../lib/text.js';
import { SaidAtField, field, form } from './fields.js';
import { heading } from './parts.js';

/** @param {HTMLElement} root */
export function loginPage(root) {
  const name = field({ label: t('login.name'), input: h('input', { type: 'text', name: 'username', autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false', required: true }) });
  const password = field({ label: t('login.password'), input: h('input', { type: 'password', name: 'password', autocomplete: 'current-password', required: true }) });
  const submit = () => {
    const [username, secret] = [name.input.value.trim(), password.input.value];
    name.complain(username === '' ? t('form.required') : null);
    password.complain(secret === '' ? t('form.required') : null);
    if (username === '' || secret === '') return null;
    return logIn(username, secret).catch((error) => {
      if (!(error instanceof ApiError && error.code === 'invalid_credentials')) throw error;
      password.complain(t('login.wrong'));
      password.input.value = '';
      throw new SaidAtField();
    });
  };
  const user = session.user();
  const why = user ? t('login.not_admin', { name: user.username }) : session.hasExpired() ? t('login.expired') : '';
  replace(
    root,
    h(
      'div',
      { class: 'login card' },
      heading(t('login.title')),
      h('p', { class: 'soft' }, t('login.lead')),
      h('p', { class: 'callout callout-warn' }, why),
      session.isKept() ? null : h('p', { class: 'callout' }, t('login.not_kept')),
      form({ content: [name.node, password.node], fields: { username: name, password }, action: t('login.action'), submit }),
    ),
  );
}

/** @param {string} username @param {string} password */
async function logIn(username, password) {
  const { body } = await api.post('/login', { username, password }, { auth: false, timeout: PASSWORD_TIMEOUT_MS });
  const user = await session.start(body.access_token, body.expires_in);
  clock.start();
  // The page that was wanted is behind this one.
  if (user.role === 'admin') router.go(location.pathname + location.search, { isReplacement: true });
}
