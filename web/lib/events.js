// The smallest of all event emitters.

/** @template {unknown[]} A */
export class Listeners {
  /** @type {Set<(...args: A) => void>} */
  #all = new Set();

  /**
   * @param {(...args: A) => void} listener
   * @returns {() => void} takes it away again
   */
  add(listener) {
    this.#all.add(listener);
    return () => {
      this.#all.delete(listener);
    };
  }

  /** @param {A} args */
  tell(...args) {
    for (const listener of [...this.#all]) listener(...args);
  }
}
