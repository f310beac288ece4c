/** No answer: there is no network, or it took too long. What was asked for may have happened all the same. */
export class Offline extends Error {
  /** @param {unknown} [cause] */
  constructor(cause) {
    super('no answer', { cause });
    this.name = 'Offline';
  }
}
