/** A strip of columns, one a second, the newest at the right: drawn by hand, for it is all that is needed. */

import { svg } from '../lib/dom.js';
import { KEPT, scaleFor } from './rates.js';

const WIDTH = KEPT * 5;
const HEIGHT = 90;

/** @param {number} y */
const line = (y) => svg('line', { x1: 0, x2: WIDTH, y1: y, y2: y, class: 'chart-line' });

/**
 * @param {number} series how many are stacked in a column, the first one at the bottom
 */
export function strip(series) {
  const node = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'chart' });
  const paths = Array.from({ length: series }, (_, index) => svg('path', { class: `chart-${index + 1}` }));
  node.append(line(0.5), line(HEIGHT / 2), line(HEIGHT - 0.5), ...paths);

  return {
    node,
    /**
     * @param {(number[] | null)[]} seconds the parts of each column; null: unknown, and nothing is drawn
     * @param {string} label what it shows, in words
     * @returns {number} where the scale ends
     */
    update(seconds, label) {
      const sum = (/** @type {number[] | null} */ parts) => (parts ?? []).reduce((total, part) => total + part, 0);
      const scale = scaleFor(Math.max(0, ...seconds.map(sum)));
      const outlines = paths.map(() => '');
      seconds.forEach((parts, index) => {
        const x = WIDTH - (seconds.length - index) * 5;
        let top = HEIGHT;
        parts?.forEach((part, which) => {
          if (which >= series || part <= 0) return;
          // Something is seen of everything that is not zero.
          const height = Math.min(top, Math.max(1.5, (part / scale) * HEIGHT));
          top -= height;
          outlines[which] += `M${x + 0.5} ${top.toFixed(1)}h4v${height.toFixed(1)}h-4z`;
        });
      });
      paths.forEach((path, index) => path.setAttribute('d', outlines[index] ?? ''));
      node.setAttribute('aria-label', label);
      return scale;
    },
  };
}
