/** What a merchant can do to a sale, each confirmed. */

import { ApiError, api } from '../lib/api.js';
import { clock } from '../lib/clock.js';
import { confirmDialog } from '../lib/dialog.js';
import { h } from '../lib/dom.js';
import { count, instant } from '../lib/format.js';
import { notice } from '../lib/notice.js';
import { t } from '../lib/text.js';
import { SaidAtField, field, wholeNumber } from './fields.js';
import { formDialog } from './form-dialog.js';
import { newKey } from './parts.js';
import { timeField } from './time-field.js';

/** @import { Product } from './types.js' */

const MAX_STOCK = 10_000_000;
const MAX_REASON = 255;

/** What is typed as a reason, as a part of a request; nothing is no reason. */
const because = (/** @type {string} */ reason) => (reason.trim() ? { reason: reason.trim() } : {});

const askReason = () => ({ label: t('sale.reason'), required: false, maxlength: MAX_REASON });

const reasonField = () => field({ label: t('sale.reason'), input: h('input', { type: 'text', maxlength: MAX_REASON, autocomplete: 'off' }) });

/**
 * @param {object} options
 * @param {() => Product} options.product as it is now
 * @param {string} options.zone
 * @param {(product: Product) => void} options.changed
 */
export function saleActions({ product, zone, changed }) {
  const path = () => `/products/${product().id}`;
  const patch = async (/** @type {object} */ body, /** @type {string} */ said, /** @type {number | undefined} */ ifRevision = undefined) => {
    const reply = await api.patch(path(), body, { ifRevision });
    changed(reply.body);
    notice.say(said);
  };

  /** Changes what the merchant sees now. Once they were told that somebody else has changed it, they may change that. */
  const patchSeen = () => {
    let { revision } = product();
    return async (/** @type {object} */ body, /** @type {string} */ said) => {
      try {
        await patch(body, said, revision);
      } catch (error) {
        if (error instanceof ApiError && error.code === 'precondition_failed') revision = error.body.revision;
        throw error;
      }
    };
  };

  const pauseOrResume = () => {
    const { name, paused } = product();
    const verb = paused ? 'resume' : 'pause';
    void confirmDialog({
      title: t(`sale.${verb}.title`),
      body: t(`sale.${verb}.body`, { name }),
      action: t(`sale.${verb}`),
      ask: askReason(),
      run: (reason) => patch({ paused: !paused, ...because(reason) }, t(`sale.${verb}.done`)),
    });
  };

  const publish = () => {
    const { name, starts_at } = product();
    const when = Date.parse(starts_at) <= clock.now() ? t('sale.publish.at_once') : t('sale.publish.later', { time: instant(starts_at, zone) });
    void confirmDialog({
      title: t('sale.publish.title'),
      body: `${t('sale.publish.body', { name })} ${when}`,
      action: t('sale.publish'),
      ask: askReason(),
      run: (reason) => patch({ draft: false, ...because(reason) }, t('sale.publish.done')),
    });
  };

  const end = () => {
    void confirmDialog({
      title: t('sale.end.title'),
      body: t('sale.end.body', { name: product().name }),
      action: t('sale.end'),
      danger: true,
      ask: askReason(),
      run: (reason) => patch({ ends_at: new Date(clock.now()).toISOString(), ...because(reason) }, t('sale.end.done')),
    });
  };

  const extend = () => {
    const { ends_at } = product();
    const change = patchSeen();
    const when = timeField({ label: t('sale.ends'), zone, value: ends_at, optional: true });
    const why = reasonField();
    const from = () => Math.max(clock.now(), ends_at ? Date.parse(ends_at) : 0);
    const quick = [15, 60, 24 * 60].map((minutes) =>
      h('button', { type: 'button', class: 'button small', on: { click: () => when.set(Math.ceil((from() + minutes * 60_000) / 60_000) * 60_000) } }, t(`sale.extend.${minutes}`)),
    );
    formDialog({
      title: t('sale.extend.title'),
      body: t('sale.extend.body'),
      content: [when.node, h('div', { class: 'quick' }, ...quick), why.node],
      fields: { ends_at: when, reason: why },
      action: t('sale.extend.action'),
      run: () => {
        const taken = when.take();
        return taken && change({ ends_at: taken.iso, ...because(why.input.value) }, t('sale.extend.done'));
      },
    });
  };

  const restock = () => {
    const units = field({ label: t('sale.restock.units'), input: numberInput(''), hint: t('sale.restock.hint', { stock: count(product().stock) }) });
    const why = reasonField();
    // The same number keeps its key, also when it is sent again with another reason: then the server says so, and adds nothing twice.
    let key = { units: 0, value: '' };
    formDialog({
      title: t('sale.restock.title'),
      body: t('sale.restock.body'),
      content: [units.node, why.node],
      fields: { units, reason: why },
      action: t('sale.restock'),
      run: () => {
        const number = wholeNumber(units.input.value);
        if (number === null || number < 1 || number > MAX_STOCK) {
          units.complain(t('form.number', { least: '1', most: count(MAX_STOCK) }));
          return null;
        }
        const body = { units: number, ...because(why.input.value) };
        if (key.units !== number) key = { units: number, value: newKey() };
        return api.post(`${path()}/restock`, body, { idempotencyKey: key.value }).then(({ body }) => {
          changed(body);
          notice.say(t('sale.restock.done', { n: count(number) }));
        });
      },
    });
  };

  const lower = () => {
    const { stock, remaining } = product();
    const change = patchSeen();
    const least = stock - remaining;
    const wanted = field({ label: t('sale.lower.stock'), input: numberInput(String(stock)), hint: t('sale.lower.hint', { stock: count(stock), least: count(least) }) });
    const why = reasonField();
    formDialog({
      title: t('sale.lower.title'),
      body: t('sale.lower.body'),
      content: [wanted.node, why.node],
      fields: { stock: wanted, reason: why },
      action: t('sale.lower'),
      danger: true,
      run: () => {
        const number = wholeNumber(wanted.input.value);
        if (number === null || number >= product().stock) {
          wanted.complain(t('sale.lower.less', { stock: count(product().stock) }));
          return null;
        }
        return change({ stock: number, ...because(why.input.value) }, t('sale.lower.done', { n: count(number) })).catch((error) => {
          if (!(error instanceof ApiError && error.code === 'stock_below_sold')) throw error;
          wanted.complain(t('sale.lower.too_few', { least: count(error.body.least) }));
          throw new SaidAtField();
        });
      },
    });
  };

  const archive = () => {
    void confirmDialog({
      title: t('sale.archive.title'),
      body: t('sale.archive.body', { name: product().name }),
      action: t('sale.archive'),
      danger: true,
      ask: askReason(),
      run: async (reason) => {
        const { body } = await api.post(`/admin${path()}/archive`, because(reason));
        changed(body);
        notice.say(t('sale.archive.done'));
      },
    });
  };

  const button = (/** @type {string} */ name, /** @type {() => void} */ click, kind = '') =>
    h('button', { type: 'button', class: `button ${kind}`, data: { action: name, key: name }, on: { click } }, t(`sale.${name}`));
  const buttons = {
    publish: button('publish', publish, 'primary'),
    // One button for both, so that the focus stays where it is when the sale is paused.
    pause: button('pause', pauseOrResume),
    extend: button('extend', extend),
    restock: button('restock', restock),
    lower: button('lower', lower),
    end: button('end', end, 'danger'),
    archive: button('archive', archive, 'danger'),
  };
  const node = h('div', { class: 'actions', role: 'group', aria: { label: t('sale.actions') } }, ...Object.values(buttons));

  return {
    node,
    /** Shows what can be done now. */
    update() {
      const { state, paused, archived_at, draft, starts_at } = product();
      const isOver = state === 'ended';
      const hasBegun = Date.parse(starts_at) <= clock.now();
      buttons.pause.textContent = t(paused ? 'sale.resume' : 'sale.pause');
      buttons.pause.classList.toggle('primary', paused);
      buttons.publish.hidden = !draft;
      buttons.pause.hidden = isOver || draft === true;
      buttons.extend.textContent = t(isOver ? 'sale.reopen' : 'sale.extend');
      buttons.end.hidden = isOver || !hasBegun || draft === true;
      // The server archives nothing that can be bought right now.
      buttons.archive.hidden = state === 'live' || state === 'sold_out';
      node.hidden = archived_at !== undefined;
    },
  };
}

/** @param {string} value */
function numberInput(value) {
  return h('input', { type: 'text', inputmode: 'numeric', autocomplete: 'off', value, class: 'number' });
}
