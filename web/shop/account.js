// Logging in, signing up, and what one can do with an account.

import { api, ApiError, PASSWORD_TIMEOUT_MS } from '../lib/api.js';
import { h } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { instant } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { session } from '../lib/session.js';
import { t } from '../lib/text.js';
import { confirmDialog } from '../lib/dialog.js';
import { titled } from './frame.js';
import { settings as shopSettings } from './settings.js';

/** bcrypt reads no more, so the server takes no more. */
const PASSWORD_BYTES = { least: 8, most: 72 };
const USERNAME = /^[A-Za-z0-9_.-]{3,32}$/;
/** What was sent to sign up and has had no answer. */
let unanswered = '';

/** @type {import('../lib/router.js').Page} */
export async function accountPage(root) {
  if (session.user()) {
    account(root);
    return session.on('change', (user) => {
      if (!user) void router.again();
    });
  }
  titled(t('account.log_in'));
  const settings = await shopSettings().catch(() => null);
  const query = new URLSearchParams(location.search);
  const canSignUp = settings?.registration !== 'closed' && settings?.users !== 'external';
  const isNew = canSignUp && query.get('new') === '1';
  titled(t(isNew ? 'account.sign_up' : 'account.log_in'));
  const other = new URLSearchParams(query);
  if (isNew) other.delete('new');
  else other.set('new', '1');
  root.replaceChildren(
    h('section', { class: 'narrow stack' },
      h('h1', null, t(isNew ? 'account.sign_up' : 'account.log_in')),
      session.hasExpired() && h('p', { class: 'callout callout-warn' }, t('account.expired')),
      query.get('next')?.startsWith('/shop/sales/') && !session.hasExpired() && h('p', { class: 'callout callout-good' }, t('account.comes_back')),
      !session.isKept() && h('p', { class: 'callout' }, t('account.not_kept')),
      settings?.users === 'external' && h('p', { class: 'callout' }, t('account.external')),
      credentials(isNew, next(query.get('next'))),
      canSignUp && h('p', null, t(isNew ? 'account.have_one' : 'account.have_none'), ' ', h('a', { href: `/shop/account?${other}`, class: 'other-form' }, t(isNew ? 'account.log_in' : 'account.sign_up')))),
  );
  // Another tab has logged in.
  return session.on('change', (user) => {
    if (user && location.pathname === '/shop/account') router.go(next(query.get('next')), { isReplacement: true });
  });
}

/**
 * Where to go after the log-in: a page of this shop, whatever an address says.
 * @param {string | null} wanted
 */
function next(wanted) {
  return wanted && /^\/shop(\/[\w/.-]*)?$/.test(wanted) && !wanted.startsWith('/shop/account') ? wanted : '/shop';
}

/**
 * @param {boolean} isNew
 * @param {string} then
 */
function credentials(isNew, then) {
  const name = field({ id: 'username', label: t('account.username'), autocomplete: 'username', hint: isNew ? t('account.username_hint') : '' });
  const password = passwordField({ id: 'password', label: t('account.password'), autocomplete: isNew ? 'new-password' : 'current-password', hint: isNew ? t('account.password_hint') : '' });
  const button = h('button', { type: 'submit', class: 'button primary large wide' }, t(isNew ? 'account.sign_up' : 'account.log_in'));
  return form([name, password], button, isNew, async () => {
    const username = name.input.value.trim();
    if (isNew && !USERNAME.test(username)) return name.fail(t('account.username_hint'));
    if (username === '') return name.fail(t('account.missing'));
    if (password.input.value === '') return password.fail(t('account.missing'));
    if (isNew && !isPassword(password.input.value)) return password.fail(t('account.password_hint'));
    const body = { username, password: password.input.value };
    try {
      const reply = isNew ? await signUp(body) : await sendPassword('/login', body);
      await session.start(reply.body.access_token, reply.body.expires_in);
    } catch (error) {
      if (error instanceof ApiError && error.code === 'username_taken') return name.fail(explain(error));
      if (error instanceof ApiError && error.code === 'invalid_credentials') return password.fail(explain(error));
      throw error;
    }
    if (location.pathname === '/shop/account') router.go(then, { isReplacement: true });
  });
}

/**
 * Who signs up again because the last answer was lost on the way may have the account by now: then the name is taken, by them.
 * @param {{username: string, password: string}} body
 */
async function signUp(body) {
  const sent = JSON.stringify(body);
  const isAgain = sent === unanswered;
  try {
    return await sendPassword('/register', body);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status >= 500) unanswered = sent;
    if (!isAgain || !(error instanceof ApiError) || error.code !== 'username_taken') throw error;
    return sendPassword('/login', body).catch((refusal) => {
      throw refusal instanceof ApiError && refusal.code === 'invalid_credentials' ? error : refusal;
    });
  }
}

/**
 * @param {'/register' | '/login'} path
 * @param {{username: string, password: string}} body
 */
function sendPassword(path, body) {
  return api.post(path, body, { auth: false, timeout: PASSWORD_TIMEOUT_MS });
}

/** @param {HTMLElement} root */
function account(root) {
  const user = session.user();
  if (!user) return;
  titled(t('account.title'));
  const ends = session.expiresAt();
  const current = passwordField({ id: 'current', label: t('account.current'), autocomplete: 'current-password', hint: '' });
  const fresh = passwordField({ id: 'new', label: t('account.new'), autocomplete: 'new-password', hint: t('account.password_hint') });
  const change = h('button', { type: 'submit', class: 'button' }, t('account.change'));
  const changeForm = form([current, fresh], change, false, async () => {
    if (current.input.value === '') return current.fail(t('account.missing'));
    if (!isPassword(fresh.input.value)) return fresh.fail(t('account.password_hint'));
    try {
      await api.post('/me/password', { current: current.input.value, new: fresh.input.value }, { timeout: PASSWORD_TIMEOUT_MS });
    } catch (error) {
      if (error instanceof ApiError && error.code === 'invalid_credentials') return current.fail(t('account.current_wrong'));
      throw error;
    }
    // It has ended every log-in, this one too.
    const reply = await sendPassword('/login', { username: user.username, password: fresh.input.value });
    await session.start(reply.body.access_token, reply.body.expires_in);
    current.input.value = '';
    fresh.input.value = '';
    notice.say(t('account.changed'));
  });
  const logOut = h('button', { type: 'button', class: 'button' }, t('account.log_out'));
  logOut.addEventListener('click', () => {
    void confirmDialog({
      title: t('account.log_out_title'),
      body: t('account.log_out_body'),
      action: t('account.log_out'),
      run: async () => {
        await api.post('/logout');
        session.end();
        notice.say(t('account.logged_out'));
        router.go('/shop');
      },
    });
  });
  root.replaceChildren(
    h('section', { class: 'narrow stack' },
      h('h1', null, t('account.title')),
      h('dl', { class: 'facts' },
        h('dt', null, t('account.username')), h('dd', { translate: 'no' }, user.username),
        ends && [h('dt', null, t('account.until')), h('dd', null, h('time', { datetime: new Date(ends).toISOString(), translate: 'no' }, instant(ends)))]),
      !session.isKept() && h('p', { class: 'callout' }, t('account.not_kept')),
      h('p', { class: 'cluster' }, h('a', { href: '/shop/orders', class: 'button' }, t('frame.orders')), logOut),
      h('h2', null, t('account.change')),
      changeForm),
  );
}

/** @param {string} password */
function isPassword(password) {
  const bytes = new TextEncoder().encode(password).length;
  return bytes >= PASSWORD_BYTES.least && bytes <= PASSWORD_BYTES.most;
}

/**
 * @typedef {{element: HTMLElement, input: HTMLInputElement, fail: (why: string) => void, clear: () => void}} Field
 * @param {{id: string, label: string, autocomplete: string, hint: string, type?: string}} of
 * @param {HTMLElement} [beside]
 * @returns {Field}
 */
function field({ id, label, autocomplete, hint, type = 'text' }, beside) {
  const error = h('p', { class: 'field-error', id: `${id}-error`, role: 'alert' });
  const input = h('input', {
    id,
    name: id,
    type,
    class: 'field-input',
    autocomplete,
    autocapitalize: 'none',
    spellcheck: 'false',
    required: true,
    aria: { describedby: hint ? `${id}-hint ${id}-error` : `${id}-error` },
  });
  const element = h('div', { class: 'field' }, h('label', { for: id }, label), beside ? h('div', { class: 'field-row' }, input, beside) : input, hint ? h('span', { class: 'hint', id: `${id}-hint` }, hint) : null, error);
  return {
    element,
    input,
    fail(why) {
      error.textContent = why;
      input.setAttribute('aria-invalid', 'true');
      input.focus();
    },
    clear() {
      error.textContent = '';
      input.removeAttribute('aria-invalid');
    },
  };
}

/**
 * @param {{id: string, label: string, autocomplete: string, hint: string}} of
 * @returns {Field}
 */
function passwordField(of) {
  const show = h('button', { type: 'button', class: 'button field-show', aria: { pressed: 'false', label: t('account.show_password') } }, t('account.show'));
  const made = field({ ...of, type: 'password' }, show);
  show.addEventListener('click', () => {
    const isShown = made.input.type === 'text';
    made.input.type = isShown ? 'password' : 'text';
    show.setAttribute('aria-pressed', String(!isShown));
  });
  return made;
}

/**
 * @param {Field[]} fields
 * @param {HTMLButtonElement} button
 * @param {boolean} goesOn a turn that has not come yet is waited for
 * @param {() => Promise<void>} submit
 */
function form(fields, button, goesOn, submit) {
  const failed = h('p', { class: 'field-error', role: 'alert' });
  const element = h('form', { class: 'stack', noValidate: true, method: 'post' }, ...fields.map((one) => one.element), failed, button);
  let isRunning = false;
  let again = 0;
  let isEdited = false;
  /** Whose turn has not come keeps a place in line, and takes it by coming back. */
  const goOnIn = (/** @type {number} */ seconds) => {
    failed.textContent = t('account.goes_on', { n: seconds });
    // Not all at the same moment.
    again = setTimeout(() => element.isConnected && element.requestSubmit(), seconds * 1000 + Math.random() * 500);
  };
  element.addEventListener('input', () => {
    isEdited = true;
    if (again === 0) return;
    clearTimeout(again);
    again = 0;
    failed.textContent = '';
  });
  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (isRunning) return;
    isRunning = true;
    isEdited = false;
    clearTimeout(again);
    again = 0;
    failed.textContent = '';
    for (const one of fields) one.clear();
    button.setAttribute('aria-disabled', 'true');
    button.setAttribute('aria-busy', 'true');
    try {
      await submit();
    } catch (error) {
      const isTooEarly = error instanceof ApiError && error.code === 'rate_limited' && error.retryAfter !== null;
      if (goesOn && isTooEarly && !isEdited) goOnIn(error.retryAfter ?? 1);
      else failed.textContent = explain(error);
    } finally {
      isRunning = false;
      button.removeAttribute('aria-disabled');
      button.removeAttribute('aria-busy');
    }
  });
  return element;
}
