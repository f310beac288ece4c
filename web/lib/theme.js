// Light or dark: as the device says, unless somebody has chosen.

import { store } from './store.js';

/** @typedef {'auto' | 'light' | 'dark'} Theme */

// first.js reads the same key before the first paint.
const KEY = 'seckill.theme';

export const theme = {
  /** @returns {Theme} */
  chosen() {
    const kept = store.get(KEY);
    return kept === 'light' || kept === 'dark' ? kept : 'auto';
  },

  /** @param {Theme} next */
  choose(next) {
    if (next === 'auto') {
      store.remove(KEY);
      delete document.documentElement.dataset.theme;
    } else {
      store.set(KEY, next);
      document.documentElement.dataset.theme = next;
    }
  },
};
