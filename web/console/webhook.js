/** One endpoint, and what it was told. */

import { api } from '../lib/api.js';
import { confirmDialog } from '../lib/dialog.js';
import { h, replace } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { notice } from '../lib/notice.js';
import { router } from '../lib/router.js';
import { t } from '../lib/text.js';
import { badge, code, fill, heading, table, time } from './parts.js';
import { showSecret } from './secret.js';
import { settings } from './settings.js';
import { endpointBadge, endpointDialog } from './webhooks.js';

/** @import { Delivery, Endpoint, Page } from './types.js' */

const STATUSES = ['pending', 'delivered', 'failed'];

/**
 * @param {HTMLElement} root
 * @param {Record<string, string>} params
 */
export function webhookPage(root, params) {
  const path = `/admin/webhooks/${encodeURIComponent(params.id ?? '')}`;
  const facts = h('div', {});
  const list = h('div', {});
  const chosen = new URLSearchParams(location.search).get('status') ?? '';
  const status = h('select', { id: 'delivery-status', class: 'field-input' }, h('option', { value: '' }, t('orders.any')), ...STATUSES.map((value) => h('option', { value }, t(`delivery.${value}`))));
  status.value = STATUSES.includes(chosen) ? chosen : '';
  status.addEventListener('change', () => {
    history.replaceState(null, '', `${location.pathname}${status.value ? `?status=${status.value}` : ''}`);
    deliveries.again();
  });
  replace(
    root,
    h('nav', { class: 'crumbs', aria: { label: t('nav.where') } }, h('a', { href: '/console/webhooks' }, t('hooks.title'))),
    heading(t('hook.title')),
    facts,
    h(
      'section',
      { class: 'card' },
      h('div', { class: 'section-head' }, h('h2', {}, t('deliveries.title')), h('label', { class: 'inline-label', for: 'delivery-status' }, t('orders.status')), status, h('button', { type: 'button', class: 'button small', on: { click: () => deliveries.again() } }, t('refresh'))),
      list,
    ),
  );

  const endpoint = fill(
    facts,
    async (signal) => {
      const [{ time_zone }, reply] = await Promise.all([settings(), api.get(path, { signal })]);
      return { zone: time_zone, endpoint: /** @type {Endpoint} */ (reply.body) };
    },
    (loaded) => [endpointCard(path, loaded.endpoint, loaded.zone, { changed: () => endpoint.again(), told: () => deliveries.again() })],
  );
  const deliveries = fill(
    list,
    async (signal) => {
      const query = new URLSearchParams({ limit: '100', ...(status.value ? { status: status.value } : {}) });
      const [{ time_zone }, reply] = await Promise.all([settings(), api.get(`${path}/deliveries?${query}`, { signal })]);
      return { zone: time_zone, page: /** @type {Page<Delivery>} */ (reply.body) };
    },
    ({ zone, page }) => deliveriesPart(path, page, zone, () => deliveries.again()),
  );
  return () => {
    endpoint.stop();
    deliveries.stop();
  };
}

/**
 * @param {string} path
 * @param {Endpoint} endpoint
 * @param {string} zone
 * @param {{ changed: () => void, told: () => void }} after
 */
function endpointCard(path, endpoint, zone, { changed, told }) {
  const fact = (/** @type {string} */ name, /** @type {Node | string} */ value) => h('div', { class: 'fact' }, h('dt', {}, t(name)), h('dd', {}, value));
  const patch = async (/** @type {Record<string, unknown>} */ values) => {
    await api.patch(path, values);
    changed();
  };
  const act = (/** @type {string} */ name, /** @type {() => void} */ click, kind = '') => h('button', { type: 'button', class: `button ${kind}`, data: { action: name, key: `hook-${name}` }, on: { click } }, t(`hook.${name}`));
  const ask = (/** @type {string} */ name, /** @type {() => Promise<void>} */ run, danger = false) => () => void confirmDialog({ title: t(`hook.${name}.title`), body: t(`hook.${name}.body`, { url: endpoint.url }), action: t(`hook.${name}`), danger, run });
  const test = async () => {
    try {
      await api.post(`${path}/test`);
      notice.say(t('hook.test.done'));
      // It is delivered at once, if at all.
      setTimeout(told, 1_000);
    } catch (error) {
      notice.fail(explain(error));
    }
  };
  return h(
    'section',
    { class: 'card', aria: { label: t('hook.title') } },
    h('p', { class: 'hook-url' }, code(endpoint.url), ' ', endpointBadge(endpoint)),
    endpoint.description ? h('p', {}, endpoint.description) : null,
    endpoint.off_reason ? h('p', { class: 'field-error' }, t('hook.off_reason', { reason: endpoint.off_reason })) : null,
    h(
      'dl',
      { class: 'facts' },
      fact('hooks.events', endpoint.events.map((name) => t(`event.${name}`)).join(' · ')),
      fact('hooks.since', time(endpoint.created_at, zone)),
      ...(endpoint.failing_since ? [fact('hook.failing_since', time(endpoint.failing_since, zone))] : []),
      ...(endpoint.old_secret_until ? [fact('hook.old_secret', time(endpoint.old_secret_until, zone))] : []),
    ),
    h(
      'div',
      { class: 'actions' },
      act('test', () => void test(), 'primary'),
      act('edit', () =>
        endpointDialog(endpoint, async (values) => {
          // Only what was changed is sent: an address is looked up anew.
          const changes = Object.fromEntries(Object.entries(values).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(endpoint[/** @type {keyof Endpoint} */ (name)])));
          if (Object.keys(changes).length > 0) await patch(changes);
        }),
      ),
      endpoint.active ? act('deactivate', ask('deactivate', () => patch({ active: false }))) : act('activate', ask('activate', () => patch({ active: true }))),
      act(
        'rotate',
        ask('rotate', async () => {
          const { body } = await api.post(`${path}/rotate-secret`);
          changed();
          // After the question has closed.
          setTimeout(() => showSecret(body.secret, t('hook.rotate.done')));
        }),
      ),
      act(
        'delete',
        ask(
          'delete',
          async () => {
            await api.delete(path);
            notice.say(t('hook.delete.done'));
            router.go('/console/webhooks');
          },
          true,
        ),
        'danger',
      ),
    ),
  );
}

/**
 * @param {string} path
 * @param {Page<Delivery>} page
 * @param {string} zone
 * @param {() => void} again
 */
function deliveriesPart(path, page, zone, again) {
  const retry = async (/** @type {Delivery} */ delivery) => {
    try {
      await api.post(`${path}/deliveries/${encodeURIComponent(delivery.id)}/retry`);
      notice.say(t('deliveries.retried'));
      setTimeout(again, 1_000);
    } catch (error) {
      notice.fail(explain(error));
    }
  };
  if (page.items.length === 0) return [h('p', { class: 'soft' }, t('deliveries.none'))];
  const more = h('div', { class: 'more' });
  const rows = h('div', { class: 'delivery-pages' });
  const add = (/** @type {Page<Delivery>} */ { items, next_cursor }) => {
    rows.append(
      table({
        label: t('deliveries.title'),
        columns: ['event', 'about', 'status', 'tries', 'answer', 'when', 'next', 'action'].map((name) => ({ title: t(`deliveries.${name}`), class: name === 'tries' ? 'number' : '' })),
        rows: items.map((delivery) => [
          code(delivery.type),
          code(delivery.object_id),
          badge(delivery.status, t(`delivery.${delivery.status}`)),
          String(delivery.tries),
          delivery.last_error ?? (delivery.last_status === null ? '–' : String(delivery.last_status)),
          time(delivery.delivered_at ?? delivery.last_try_at ?? delivery.created_at, zone),
          delivery.status === 'pending' ? time(delivery.next_try_at, zone) : '–',
          h('button', { type: 'button', class: 'button small', data: { key: delivery.id }, on: { click: () => void retry(delivery) } }, t('deliveries.retry')),
        ]),
      }),
    );
    replace(more, next_cursor ? h('button', { type: 'button', class: 'button', on: { click: () => void onward(next_cursor) } }, t('more')) : null);
  };
  const onward = async (/** @type {string} */ cursor) => {
    const query = new URLSearchParams(location.search);
    query.set('limit', '100');
    query.set('cursor', cursor);
    try {
      add((await api.get(`${path}/deliveries?${query}`)).body);
    } catch (error) {
      notice.fail(explain(error));
    }
  };
  add(page);
  return [rows, more];
}
