/** Addresses of the shop that are told what happens here. */

import { api } from '../lib/api.js';
import { h, replace } from '../lib/dom.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { t } from '../lib/text.js';
import { field } from './fields.js';
import { formDialog } from './form-dialog.js';
import { badge, empty, fill, heading, table, time } from './parts.js';
import { settings } from './settings.js';
import { showSecret } from './secret.js';

/** @import { Endpoint, Page } from './types.js' */

/** @type {import('./types.js').EventType[]} */
const EVENTS = ['order.created', 'order.paid', 'order.cancelled', 'order.expired', 'order.rejected', 'payment.refund_due', 'product.changed', 'product.sold_out'];

/** @param {HTMLElement} root */
export function webhooksPage(root) {
  const place = h('div', {});
  const add = () => h('button', { type: 'button', class: 'button primary', data: { action: 'add' }, on: { click: () => create() } }, t('hooks.add'));
  replace(root, heading(t('hooks.title'), add()), h('p', { class: 'soft lead' }, t('hooks.lead')), place);
  const create = () =>
    endpointDialog(null, async (values) => {
      const { body } = await api.post('/admin/webhooks', values);
      router.go(`/console/webhooks/${body.id}`);
      showSecret(body.secret, t('hooks.created'));
    });
  const load = async (/** @type {AbortSignal} */ signal) => {
    const [{ time_zone }, reply] = await Promise.all([settings(), api.get('/admin/webhooks?limit=100', { signal })]);
    return { zone: time_zone, endpoints: /** @type {Page<Endpoint>} */ (reply.body).items };
  };
  const filled = fill(place, load, ({ zone, endpoints }) =>
    endpoints.length === 0
      ? [empty(t('hooks.empty'), t('hooks.empty.body'))]
      : [
          table({
            label: t('hooks.title'),
            columns: ['hooks.url', 'hooks.state', 'hooks.events', 'hooks.since'].map((key) => ({ title: t(key) })),
            rows: endpoints.map((endpoint) => [
              h('span', {}, h('a', { href: `/console/webhooks/${endpoint.id}`, class: 'mono', translate: 'no' }, endpoint.url), endpoint.description ? h('span', { class: 'soft block' }, endpoint.description) : null),
              endpointBadge(endpoint),
              endpoint.events.length === EVENTS.length ? t('hooks.all') : t('hooks.some', { n: endpoint.events.length }),
              time(endpoint.created_at, zone),
            ]),
          }),
        ],
  );
  return filled.stop;
}

/** @param {Endpoint} endpoint */
export function endpointBadge({ active, failing_since }) {
  const state = !active ? 'off' : failing_since ? 'failing' : 'on';
  return badge(state, t(`hooks.${state}`));
}

/**
 * @param {Endpoint | null} endpoint
 * @param {(values: Record<string, unknown>) => Promise<void>} send
 */
export function endpointDialog(endpoint, send) {
  const url = field({ label: t('hooks.url'), input: h('input', { type: 'url', autocomplete: 'off', value: endpoint?.url ?? '', placeholder: 'https://' }), hint: t('hooks.url.hint') });
  const description = field({ label: t('form.description'), input: h('input', { type: 'text', autocomplete: 'off', maxlength: '255', value: endpoint?.description ?? '' }), optional: true });
  const boxes = EVENTS.map((name) => h('input', { type: 'checkbox', value: name, checked: endpoint?.events.includes(name) ?? true }));
  const first = /** @type {HTMLInputElement} */ (boxes[0]);
  const problem = h('p', { class: 'field-error', role: 'alert' });
  const events = {
    input: first,
    node: h('fieldset', { class: 'events' }, h('legend', {}, t('hooks.events')), ...boxes.map((box) => h('label', { class: 'choice' }, box, h('span', {}, t(`event.${box.value}`), ' ', h('span', { class: 'mono soft', translate: 'no' }, box.value)))), problem),
    hint: problem,
    complain: (/** @type {string | null} */ said) => void (problem.textContent = said ?? ''),
  };
  formDialog({
    title: t(endpoint ? 'hooks.edit' : 'hooks.add'),
    content: [url.node, description.node, events.node],
    fields: { url, description, events },
    action: t(endpoint ? 'form.save' : 'hooks.add.action'),
    run: () => {
      const address = url.input.value.trim();
      const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
      events.complain(chosen.length === 0 ? t('hooks.events.none') : null);
      if (address === '') url.complain(t('form.required'));
      if (address === '' || chosen.length === 0) return null;
      return send({ url: address, description: description.input.value.trim(), events: chosen }).then(() => {
        if (endpoint) notice.say(t('form.saved'));
      });
    },
  });
}
