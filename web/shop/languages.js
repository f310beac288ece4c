// The texts of the shop, of the language that is spoken.

import { text } from '../lib/text.js';

/** @param {import('../lib/text.js').Language} language */
export async function loadLanguage(language) {
  if (language === 'zh') text.add({ zh: (await import('./text.zh.js')).zh });
  else text.add({ en: (await import('./text.en.js')).en });
}
