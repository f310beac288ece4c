// What the pages say, in the language of the browser or the one that was chosen.

import { Listeners } from './events.js';
import { store } from './store.js';

/**
 * @typedef {'en' | 'zh'} Language
 * @typedef {string | {one: string, other: string}} Phrase  two forms: by the number `n`
 * @typedef {Record<string, Phrase>} Phrases
 * @typedef {Record<string, string | number>} Params
 */

const KEY = 'seckill.language';
/** @type {Record<Language, string>} */
const TAGS = { en: 'en', zh: 'zh-CN' };

/** @type {Record<Language, Phrases>} */
const phrases = { en: {}, zh: {} };
/** @type {Listeners<[Language]>} */
const listeners = new Listeners();

/** @returns {Language} */
function first() {
  const chosen = store.get(KEY);
  if (chosen === 'en' || chosen === 'zh') return chosen;
  for (const tag of navigator.languages ?? [navigator.language]) {
    if (/^zh\b/i.test(tag)) return 'zh';
    if (/^en\b/i.test(tag)) return 'en';
  }
  return 'en';
}

/** @type {Language} */
let language = first();
document.documentElement.lang = TAGS[language];

export const text = {
  /** @param {{en?: Phrases, zh?: Phrases}} more */
  add({ en, zh }) {
    Object.assign(phrases.en, en);
    Object.assign(phrases.zh, zh);
  },

  language: () => language,

  /** For `Intl`: the browser's own kind of the language, such as en-GB, else the language. */
  locale() {
    const own = (navigator.languages ?? []).find((tag) => tag.toLowerCase().startsWith(language));
    return own ?? TAGS[language];
  },

  /** For `lang` of an element. */
  tag: () => TAGS[language],

  /** @param {Language} next */
  choose(next) {
    store.set(KEY, next);
    if (next === language) return;
    language = next;
    document.documentElement.lang = TAGS[next];
    listeners.tell(next);
  },

  /**
   * @param {'change'} _event
   * @param {(language: Language) => void} listener
   */
  on: (_event, listener) => listeners.add(listener),

  /** All keys of a language, for tests. @param {Language} of */
  keys: (of) => Object.keys(phrases[of]),
};

/**
 * @param {string} key
 * @param {Record<string, unknown>} params
 * @returns {string}
 */
function phrase(key, params) {
  const found = phrases[language][key];
  if (found === undefined) {
    // No test lets an error in the console pass.
    console.error(`no text "${key}" in "${language}"`);
    return key;
  }
  if (typeof found === 'string') return found;
  const count = Number(params.count ?? params.n);
  return new Intl.PluralRules(TAGS[language]).select(count) === 'one' ? found.one : found.other;
}

/**
 * The sentence of that key. `{name}` in it is replaced. Of two forms the number `count` decides, or else `n`.
 * @param {string} key
 * @param {Params} [params]
 * @returns {string}
 */
export function t(key, params = {}) {
  return phrase(key, params).replace(/\{(\w+)\}/g, (_, name) => String(params[name] ?? `{${name}}`));
}

/**
 * The same with elements in it.
 * @param {string} key
 * @param {Record<string, Node | string | number>} params
 * @returns {(Node | string)[]}
 */
export function rich(key, params) {
  return phrase(key, params)
    .split(/(\{\w+\})/)
    .filter((part) => part !== '')
    .map((part) => {
      const name = /^\{(\w+)\}$/.exec(part)?.[1];
      const value = name === undefined ? part : (params[name] ?? part);
      return value instanceof Node ? value : String(value);
    });
}
