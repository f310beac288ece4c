// A product's picture; without one, its first letter.

import { h } from '../lib/dom.js';

/**
 * @param {import('./product.js').Product} product
 * @param {'eager' | 'lazy'} loading
 */
export function picture(product, loading) {
  const box = h('div', { class: 'picture', data: { tint: product.id % 4 } });
  const letter = () => h('span', { class: 'picture-letter', translate: 'no', aria: { hidden: 'true' } }, [...product.name.trim()][0] ?? '');
  if (!product.image_url) {
    box.append(letter());
    return box;
  }
  // The name stands beside it, so there is nothing more to say.
  const image = h('img', { src: product.image_url, alt: '', loading, decoding: 'async', referrerpolicy: 'no-referrer' });
  image.addEventListener('error', () => image.replaceWith(letter()));
  box.append(image);
  return box;
}
