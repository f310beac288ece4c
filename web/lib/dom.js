// Elements without a framework. Text is only ever put in as text.

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {{
 *   on?: Record<string, (event: any) => void>,
 *   aria?: Record<string, string | number | boolean | null | undefined>,
 *   data?: Record<string, string | number | null | undefined>,
 *   [attribute: string]: any,
 * }} Props
 */

/** What is a property of the element and not an attribute. */
const PROPERTIES = new Set(['value', 'checked', 'disabled', 'hidden', 'selected', 'indeterminate', 'noValidate', 'open']);

/**
 * An element: `h('a', {href: '/shop', class: 'link'}, 'Shop')`. `null`, `undefined` and `false` are left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) set(element, name, value);
  element.append(...nodes(children));
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {any} value
 */
function set(element, name, value) {
  if (value === null || value === undefined) return;
  if (name === 'on') {
    for (const [event, listener] of Object.entries(value)) element.addEventListener(event, /** @type {EventListener} */ (listener));
  } else if (name === 'aria') {
    for (const [key, state] of Object.entries(value)) {
      if (state !== null && state !== undefined) element.setAttribute(`aria-${key}`, String(state));
    }
  } else if (name === 'data') {
    for (const [key, datum] of Object.entries(value)) {
      if (datum !== null && datum !== undefined) element.dataset[key] = String(datum);
    }
  } else if (PROPERTIES.has(name)) {
    /** @type {any} */ (element)[name] = value;
  } else if (value === true) {
    element.setAttribute(name, '');
  } else if (value !== false) {
    element.setAttribute(name, String(value));
  }
}

/**
 * @param {(Child | Child[])[]} children
 * @returns {(Node | string)[]}
 */
function nodes(children) {
  return children.flat().flatMap((child) => {
    if (child === null || child === undefined || child === false) return [];
    return [child instanceof Node ? child : String(child)];
  });
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element of a drawing.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | null | undefined>} [attributes]
 * @param {...Node} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/**
 * Puts other children in. What had the focus has it again if an element with the same id (or `data-key`) is there.
 * @param {Element} parent
 * @param {...(Child | Child[])} children
 */
export function replace(parent, ...children) {
  const focused = document.activeElement;
  const within = focused instanceof HTMLElement && focused !== parent && parent.contains(focused) ? focused : null;
  parent.replaceChildren(...nodes(children));
  if (!within || within.isConnected) {
    if (within && document.activeElement !== within) within.focus({ preventScroll: true });
    return;
  }
  const again = within.id
    ? document.getElementById(within.id)
    : within.dataset.key && parent.querySelector(`[data-key="${CSS.escape(within.dataset.key)}"]`);
  if (again instanceof HTMLElement) again.focus({ preventScroll: true });
}

/**
 * Changes a text only if it is another one: what does not change is not painted, and not read out.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A code, an id, a number that runs: nothing that a translator of the browser may touch.
 * @param {string} text
 * @param {string} [className]
 */
export function verbatim(text, className) {
  return h('span', { translate: 'no', class: className }, text);
}
