/** Who did what, of all administrators. */

import { h, replace } from '../lib/dom.js';
import { explain } from '../lib/errors.js';
import { notice } from '../lib/notice.js';
import { t } from '../lib/text.js';
import { activityTable, readLog } from './activity.js';
import { empty, fill, heading } from './parts.js';
import { settings } from './settings.js';

/** @import { AdminAction } from './types.js' */

/** @param {HTMLElement} root */
export function logPage(root) {
  const aborter = new AbortController();
  const place = h('div', {});
  const more = h('div', { class: 'more' });
  replace(root, heading(t('log.title')), h('p', { class: 'soft lead' }, t('log.lead')), place, more);
  /** @type {AdminAction[]} */
  const read = [];
  const filled = fill(
    place,
    async (signal) => {
      const [{ time_zone }, page] = await Promise.all([settings(), readLog(null, signal)]);
      return { zone: time_zone, page };
    },
    ({ zone, page }) => {
      if (page.items.length === 0) return [empty(t('log.empty'), t('log.empty.body'))];
      read.push(...page.items);
      const offerMore = (/** @type {string | null} */ cursor) =>
        replace(more, cursor ? h('button', { type: 'button', class: 'button', id: 'more-log', on: { click: () => void onward(cursor).catch((error) => aborter.signal.aborted || notice.fail(explain(error))) } }, t('more')) : null);
      const onward = async (/** @type {string} */ cursor) => {
        const next = await readLog(cursor, aborter.signal);
        read.push(...next.items);
        replace(place, activityTable(read, zone, { withObject: true }));
        offerMore(next.next_cursor);
      };
      offerMore(page.next_cursor);
      return [activityTable(read, zone, { withObject: true })];
    },
  );
  return () => {
    aborter.abort();
    filled.stop();
  };
}
