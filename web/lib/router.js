// Addresses and pages, without a reload between them.

/**
 * @typedef {Record<string, string>} PathParams
 * @typedef {(root: HTMLElement, params: PathParams) => (() => void) | void | Promise<(() => void) | void>} Page
 *   Draws into `root` and answers how to stop what it has begun.
 * @typedef {{path: string, page: Page}} Route  such as `/shop/sales/:id`; `*` takes everything
 */

/** @type {Route[]} */
let routes = [];
/** @type {HTMLElement | null} */
let root = null;
/** @type {(() => void) | null} */
let stop = null;
/** Grows with each page, so that one that is still being loaded knows that it was left. */
let turn = 0;
/** @type {((path: string) => void) | null} */
let onLeft = null;

/**
 * @param {string} pattern
 * @param {string} path
 * @returns {PathParams | null}
 */
function match(pattern, path) {
  if (pattern === '*') return {};
  const wanted = pattern.split('/');
  const given = path.replace(/(.)\/+$/, '$1').split('/');
  if (wanted.length !== given.length) return null;
  /** @type {PathParams} */
  const params = {};
  for (const [i, part] of wanted.entries()) {
    const value = given[i] ?? '';
    if (part.startsWith(':')) {
      try {
        params[part.slice(1)] = decodeURIComponent(value);
      } catch {
        return null;
      }
    } else if (part !== value) {
      return null;
    }
  }
  return params;
}

/** @param {string} path */
function find(path) {
  for (const { path: pattern, page } of routes) {
    const params = match(pattern, path);
    if (params) return { page, params };
  }
  return null;
}

/** @param {{isFirst?: boolean, keepFocus?: boolean}} [how] */
async function show({ isFirst = false, keepFocus = false } = {}) {
  if (!root) return;
  turn += 1;
  const mine = turn;
  stop?.();
  stop = null;
  const found = find(location.pathname);
  if (!found) return;
  onLeft?.(location.pathname);
  root.replaceChildren();
  let ended;
  try {
    ended = await found.page(root, found.params);
  } catch (error) {
    // What fails on a page that was left is nobody's business.
    if (mine === turn) throw error;
    return;
  }
  if (mine !== turn) {
    // Somebody has gone on before the page was there.
    ended?.();
    return;
  }
  stop = ended ?? null;
  if (!isFirst && !keepFocus) focusHeading();
}

/** Says where one is, to those who do not see it. */
function focusHeading() {
  const heading = root?.querySelector('h1');
  if (!(heading instanceof HTMLElement)) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** @param {MouseEvent} event */
function onClick(event) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target instanceof Element ? event.target.closest('a') : null;
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  if (!isOwn(link.pathname)) return;
  if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
  event.preventDefault();
  router.go(link.pathname + link.search + link.hash);
}

/** @param {string} path whether it is one of these pages, and not only "not found" */
const isOwn = (path) => routes.some((route) => route.path !== '*' && match(route.path, path));

export const router = {
  /**
   * @param {Route[]} all the first that fits is taken
   * @param {HTMLElement} into
   * @param {{onPage?: (path: string) => void}} [options]
   */
  start(all, into, { onPage } = {}) {
    routes = all;
    root = into;
    onLeft = onPage ?? null;
    document.addEventListener('click', onClick);
    window.addEventListener('popstate', () => void show());
    // Kept by the browser for "back": what it shows is old.
    window.addEventListener('pageshow', (event) => event.persisted && void show({ keepFocus: true }));
    void show({ isFirst: true });
  },

  /**
   * @param {string} path
   * @param {{isReplacement?: boolean}} [how]
   */
  go(path, { isReplacement = false } = {}) {
    if (isReplacement) history.replaceState(null, '', path);
    else history.pushState(null, '', path);
    window.scrollTo(0, 0);
    void show();
  },

  /** Draws the page again, in another language for example. */
  again: () => show({ keepFocus: true }),
};
