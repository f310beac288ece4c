/** A new sale, or the changes of one. */

import { ApiError, api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { h, replace, setText } from '../lib/dom.js';
import { count, duration, fromMinor, instant, money, toMinor } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { text, t } from '../lib/text.js';
import { SaidAtField, field, form, wholeNumber } from './fields.js';
import { failure, heading, loading, newKey } from './parts.js';
import { settings } from './settings.js';
import { timeField } from './time-field.js';

/** @import { Product, Settings } from './types.js' */

const MAX_STOCK = 10_000_000;
const MAX_PRICE = 1_000_000_000_000;
const UNITS = /** @type {const} */ ([
  ['days', 86_400],
  ['hours', 3_600],
  ['minutes', 60],
  ['seconds', 1],
]);

/** @param {HTMLElement} root */
export function newSalePage(root) {
  return page(root, null);
}

/** @param {HTMLElement} root @param {Record<string, string>} params */
export function editSalePage(root, params) {
  return page(root, Number(params.id));
}

/** @param {HTMLElement} root @param {number | null} id */
function page(root, id) {
  let isLeft = false;
  /** @type {() => void} */
  let stop = () => {};
  const begin = async () => {
    replace(root, loading());
    try {
      const [shop, reply] = await Promise.all([settings(), id === null ? null : api.get(`/admin/products/${id}`)]);
      if (!isLeft) stop = show(root, shop, reply?.body ?? null);
    } catch (error) {
      if (!isLeft) replace(root, heading(t('form.edit')), failure(error, () => void begin()));
    }
  };
  void begin();
  return () => {
    isLeft = true;
    stop();
  };
}

/** @param {string} value @param {object} [more] */
const textInput = (value, more = {}) => h('input', { type: 'text', autocomplete: 'off', value, ...more });

/**
 * @param {HTMLElement} root
 * @param {Settings} shop
 * @param {Product | null} product null: a new one
 * @returns {() => void}
 */
function show(root, shop, product) {
  const zone = shop.time_zone;
  const currencyBefore = product?.currency ?? shop.currency;
  const name = field({ label: t('form.name'), input: textInput(product?.name ?? '', { maxlength: '200' }) });
  const description = field({ label: t('form.description'), input: h('textarea', { rows: '3', maxlength: '5000', value: product?.description ?? '' }), optional: true });
  const image = field({ label: t('form.image'), input: textInput(product?.image_url ?? '', { type: 'url', placeholder: 'https://' }), hint: t('form.image.hint'), optional: true });
  const currency = field({ label: t('form.currency'), input: textInput(currencyBefore, { maxlength: '3', size: '5', class: 'code-input', list: 'currencies', autocapitalize: 'characters', spellcheck: 'false' }) });
  const price = field({ label: t('form.price'), input: textInput(product ? fromMinor(product.price_cents, currencyBefore) : '', { inputmode: 'decimal', class: 'number' }) });
  const stock = field({ label: t('form.stock'), input: textInput(product ? String(product.stock) : '', { inputmode: 'numeric', class: 'number' }), hint: product ? t('form.stock.hint', { least: count(product.stock - product.remaining) }) : '' });
  const most = field({ label: t('form.most'), input: h('select', {}, ...Array.from({ length: 10 }, (_, index) => h('option', { value: String(index + 1) }, String(index + 1)))) });
  most.input.value = String(product?.max_per_order ?? 1);
  const share = field({ label: t('form.share'), input: textInput(String(product?.max_per_address ?? ''), { inputmode: 'numeric', class: 'number' }), hint: t('form.share.hint'), optional: true });
  const starts = timeField({ label: t('form.starts'), zone, value: product?.starts_at ?? null, optional: !product });
  const ends = timeField({ label: t('form.ends'), zone, value: product?.ends_at ?? null, optional: true });
  if (!product) starts.hint.textContent = t('form.starts.hint');
  const draft = h('input', { type: 'checkbox' });
  // Nothing goes on sale because a time was forgotten.
  const showDraft = () => {
    const isForced = starts.input.value === '';
    if (isForced || draft.disabled) draft.checked = isForced;
    draft.disabled = isForced;
  };
  starts.input.addEventListener('input', showDraft);
  showDraft();
  ends.hint.textContent = t('form.ends.hint');

  const windowBefore = product ? product.payment_window_seconds : shop.payments === 'none' ? null : shop.payment_window_seconds;
  const [unitName, unitSeconds] = UNITS.find(([, seconds]) => (windowBefore ?? 900) % seconds === 0) ?? ['seconds', 1];
  const unit = h('select', { class: 'field-input', aria: { label: t('form.window.unit') } }, ...UNITS.map(([word]) => h('option', { value: word }, t(`form.${word}`))));
  unit.value = unitName;
  const pay = field({ label: t('form.window'), input: textInput(String((windowBefore ?? 900) / unitSeconds), { inputmode: 'numeric', class: 'number' }), beside: [unit], hint: t('form.window.hint') });
  const forEver = h('input', { type: 'checkbox', checked: windowBefore === null });
  const fields = { name, description, image_url: image, currency, price_cents: price, stock, max_per_order: most, max_per_address: share, payment_window_seconds: pay, starts_at: starts, ends_at: ends };

  const currencyCode = () => currency.input.value.trim().toUpperCase();
  const isCurrency = () => /^[A-Z]{3}$/.test(currencyCode());
  const priceValue = () => (isCurrency() ? toMinor(price.input.value, currencyCode()) : null);
  const explainMoney = () => {
    const value = priceValue();
    setText(price.hint, value === null ? '' : money(value, currencyCode()));
    setText(currency.hint, isCurrency() ? (new Intl.DisplayNames([text.language()], { type: 'currency', fallback: 'code' }).of(currencyCode()) ?? '') : '');
  };
  const showWindow = () => {
    pay.input.disabled = forEver.checked;
    unit.disabled = forEver.checked;
    if (forEver.checked) pay.complain(null);
  };
  price.input.addEventListener('input', explainMoney);
  currency.input.addEventListener('input', explainMoney);
  forEver.addEventListener('change', showWindow);
  explainMoney();
  showWindow();

  const windowSeconds = () => {
    if (forEver.checked) return null;
    const seconds = UNITS.find(([word]) => word === unit.value)?.[1] ?? 1;
    const number = wholeNumber(pay.input.value);
    const value = number === null ? 0 : number * seconds;
    if (value < 5 || value > 2_592_000) {
      pay.complain(t('form.window.bounds'));
      return undefined;
    }
    return value;
  };

  // A reply that was lost must not make a second sale: the same request keeps its key.
  let key = { request: '', value: '' };

  const submit = () => {
    Object.values(fields).forEach((one) => one.complain(null));
    let isGood = true;
    const complain = (/** @type {{ complain: (problem: string) => void }} */ one, /** @type {string} */ problem) => {
      isGood = false;
      one.complain(problem);
    };
    if (name.input.value.trim() === '') complain(name, t('form.required'));
    const imageUrl = image.input.value.trim();
    if (imageUrl !== '' && !/^https:\/\/[^/]/i.test(imageUrl)) complain(image, t('form.image.https'));
    if (!isCurrency()) complain(currency, t('form.currency.wrong'));
    const cents = priceValue();
    if (isCurrency() && (cents === null || cents < 0 || cents > MAX_PRICE)) complain(price, t('form.price.wrong', { example: fromMinor(1990, currencyCode()) }));
    const units = wholeNumber(stock.input.value);
    if (units === null || units > MAX_STOCK) complain(stock, t('form.number', { least: '0', most: count(MAX_STOCK) }));
    const limit = share.input.value.trim() === '' ? null : wholeNumber(share.input.value);
    if (limit !== null ? limit < 1 || limit > MAX_STOCK : share.input.value.trim() !== '') complain(share, t('form.number', { least: '1', most: count(MAX_STOCK) }));
    const seconds = windowSeconds();
    if (seconds === undefined) isGood = false;
    const [from, to] = [starts.take(), ends.take()];
    if (!from || !to) isGood = false;
    else if (to.iso !== null && Date.parse(to.iso) <= (from.iso === null ? clock.now() : Date.parse(from.iso))) complain(ends, t('form.ends.before'));
    if (!isGood || !from || !to) return null;

    /** @type {Record<string, unknown>} */
    const all = {
      name: name.input.value.trim(),
      // One line: the server takes no line breaks.
      description: description.input.value.replace(/\s*[\r\n]+\s*/g, ' '),
      image_url: imageUrl === '' ? null : imageUrl,
      currency: currencyCode(),
      price_cents: cents,
      stock: units,
      max_per_order: Number(most.input.value),
      max_per_address: limit,
      payment_window_seconds: seconds,
      starts_at: from.iso,
      ends_at: to.iso,
    };
    return product ? change(product, all, { starts_at: from.isChanged, ends_at: to.isChanged }) : create({ ...all, draft: draft.checked });
  };

  const create = async (/** @type {Record<string, unknown>} */ all) => {
    for (const absent of ['image_url', 'max_per_address', 'starts_at', 'ends_at']) if (all[absent] === null) delete all[absent];
    const request = JSON.stringify(all);
    if (key.request !== request) key = { request, value: newKey() };
    const { body } = await api.post('/products', all, { idempotencyKey: key.value });
    notice.say(t('form.created', { name: body.name }));
    router.go(`/console/sales/${body.id}`);
  };

  // The sale as far as the merchant was told of it.
  let known = product;

  /** What somebody else changed meanwhile stays. Where it is the same field, the merchant is told, and can save again. */
  const save = async (/** @type {number} */ id, /** @type {Record<string, unknown>} */ changes) => {
    for (let tries = 1; ; tries += 1) {
      try {
        return await api.patch(`/products/${id}`, changes, { ifRevision: known?.revision });
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.code === 'stock_below_sold') {
          stock.complain(t('sale.lower.too_few', { least: count(error.body.least) }));
          throw new SaidAtField();
        }
        if (error.code !== 'precondition_failed' || tries === 3) throw error;
      }
      const now = (await api.get(`/admin/products/${id}`, { isFresh: true })).body;
      const before = /** @type {Record<string, unknown>} */ (known ?? {});
      known = now;
      const clashes = Object.keys(changes).filter((of) => now[of] !== before[of] && now[of] !== changes[of]);
      for (const of of clashes) fields[/** @type {keyof typeof fields} */ (of)].complain(t('form.clash', { value: shown(of, now) }));
      if (clashes.length > 0) throw new SaidAtField();
    }
  };

  const shown = (/** @type {string} */ of, /** @type {any} */ now) => {
    if (now[of] === null || now[of] === '') return '–';
    if (of === 'price_cents') return money(now[of], now.currency);
    if (of === 'payment_window_seconds') return duration(now[of] * 1_000);
    return of.endsWith('_at') ? instant(now[of], zone) : String(now[of]);
  };

  const change = async (/** @type {Product} */ before, /** @type {Record<string, unknown>} */ all, /** @type {Record<string, boolean>} */ times) => {
    // Only what was changed: what another administrator changes meanwhile stays.
    const changes = Object.fromEntries(Object.entries(all).filter(([of, value]) => times[of] ?? value !== (before[/** @type {keyof Product} */ (of)] ?? null)));
    if (Object.keys(changes).length > 0) {
      await save(before.id, changes);
      notice.say(t('form.saved'));
    }
    router.go(`/console/sales/${before.id}`);
  };

  const currencies = h('datalist', { id: 'currencies' }, ...Intl.supportedValuesOf('currency').map((value) => h('option', { value })));
  const title = product ? t('form.edit') : t('form.new');
  const back = product ? `/console/sales/${product.id}` : '/console';
  const part = (/** @type {string} */ legend, /** @type {(Node | null)[]} */ ...content) => h('fieldset', { class: 'card form-part' }, h('legend', {}, legend), ...content);
  replace(
    root,
    h('nav', { class: 'crumbs', aria: { label: t('nav.where') } }, h('a', { href: '/console' }, t('sales.title')), product ? h('a', { href: back }, product.name) : null),
    heading(title),
    currencies,
    h(
      'div',
      { class: 'sale-form' },
      form({
        fields,
        action: product ? t('form.save') : t('form.create'),
        submit,
        beside: [h('a', { href: back, class: 'button' }, t('form.cancel'))],
        content: [
          h(
            'div',
            { class: 'form-columns' },
            h(
              'div',
              { class: 'form-column' },
              part(t('form.part.what'), name.node, description.node, image.node),
              part(t('form.part.price'), h('div', { class: 'field-pair' }, price.node, currency.node), h('div', { class: 'field-pair' }, stock.node, most.node), share.node),
            ),
            h(
              'div',
              { class: 'form-column' },
              part(t('form.part.when'), h('p', { class: 'soft' }, t('form.zone', { zone })), starts.node, ends.node, product ? null : h('label', { class: 'choice' }, draft, t('form.draft'))),
              part(t('form.part.pay'), pay.node, h('label', { class: 'choice' }, forEver, t('form.window.none')), shop.payments === 'none' ? h('p', { class: 'hint' }, t('form.window.by_hand')) : null),
            ),
          ),
        ],
      }),
    ),
  );
  return clock.every(1_000, () => {
    starts.show();
    ends.show();
  });
}
