// Both languages say everything.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import test from 'node:test';

import { en } from '../../web/console/text.en.js';
import { zh } from '../../web/console/text.zh.js';

const FOLDER = resolve(import.meta.dirname, '../../web/console');

/** What is filled into a phrase. */
const blanks = (phrase) => [...new Set([...JSON.stringify(phrase).matchAll(/\{(\w+)\}/g)].map(([, name]) => name))].sort();

test('English and Chinese have the same phrases, with the same blanks', () => {
  assert.deepEqual(Object.keys(zh).sort(), Object.keys(en).sort());
  for (const key of Object.keys(en)) assert.deepEqual(blanks(zh[key]), blanks(en[key]), key);
});

test('every phrase that a page asks for by its name is there', async () => {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.js') && !name.startsWith('text.'));
  for (const file of files) {
    const source = await readFile(join(FOLDER, file), 'utf8');
    for (const [, key] of source.matchAll(/\bt\('([\w.]+)'/g)) assert.ok(key in en, `${file}: ${key}`);
    // Those whose end is known only later have some such phrase at least.
    for (const [, start] of source.matchAll(/\bt\(`([\w.]+)\$\{/g)) assert.ok(Object.keys(en).some((key) => key.startsWith(start)), `${file}: ${start}…`);
  }
});

test('no phrase is left over that nobody says', async () => {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.js') && !name.startsWith('text.'));
  const sources = (await Promise.all(files.map((file) => readFile(join(FOLDER, file), 'utf8')))).join('\n');
  const starts = [...sources.matchAll(/\bt\(`([\w.]+)\$\{/g)].map(([, start]) => start);
  const unsaid = Object.keys(en).filter((key) => !sources.includes(`'${key}'`) && !starts.some((start) => key.startsWith(start)));
  assert.deepEqual(unsaid, []);
});
