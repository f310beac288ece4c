// What is kept in the browser. Where storage is blocked, everything lasts as long as the tab.

/** @type {Map<string, string>} */
const memory = new Map();

/** @returns {Storage | null} */
function storage() {
  try {
    const found = window.localStorage;
    const probe = 'seckill.probe';
    found.setItem(probe, '1');
    found.removeItem(probe);
    return found;
  } catch {
    return null;
  }
}

const kept = storage();

export const store = {
  /** Whether it outlasts this tab. */
  isKept: () => kept !== null,

  /**
   * @param {string} key
   * @returns {any} what was put there, or null
   */
  get(key) {
    try {
      const json = (kept ? kept.getItem(key) : memory.get(key)) ?? null;
      return json === null ? null : JSON.parse(json);
    } catch {
      return null;
    }
  },

  /**
   * @param {string} key
   * @param {unknown} value
   */
  set(key, value) {
    const json = JSON.stringify(value);
    try {
      if (kept) kept.setItem(key, json);
      else memory.set(key, json);
    } catch {
      memory.set(key, json);
    }
  },

  /** @param {string} key */
  remove(key) {
    memory.delete(key);
    try {
      kept?.removeItem(key);
    } catch {
      // Then it was not kept either.
    }
  },
};
