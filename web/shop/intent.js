// What somebody wanted to buy when a log-in came between.

/** @type {{productId: number, quantity: number} | null} */
let wanted = null;

export const intent = {
  /**
   * @param {number} productId
   * @param {number} quantity
   */
  keep(productId, quantity) {
    wanted = { productId, quantity };
  },

  /**
   * How many of that product were wanted; it is forgotten then.
   * @param {number} productId
   * @returns {number | null}
   */
  take(productId) {
    if (wanted?.productId !== productId) return null;
    const { quantity } = wanted;
    wanted = null;
    return quantity;
  },
};

/**
 * Where to log in, and to come back from.
 * @param {string} [from]
 */
export const logInAddress = (from = location.pathname) => `/shop/account?next=${encodeURIComponent(from)}`;
