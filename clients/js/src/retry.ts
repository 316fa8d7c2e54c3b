/** When to come back, and when not to. */

/** RFC 6455: our frame was wrong, and it would be wrong again. */
const OUR_FAULT = [1002, 1003, 1007, 1009, 1010];

/** @returns whether to connect again after a close with this code */
export const mayReturn = (code: number): boolean =>
  !(code === 1000 || code === 1008 || OUR_FAULT.includes(code) || (code >= 4500 && code < 5000));

/** @returns whether an HTTP status will be the same next time */
export const isFinal = (status: number): boolean =>
  status >= 400 && status < 500 && status !== 408 && status !== 426 && status !== 429;

/** "Overloaded, reconnect later" counts as this many losses more. */
const OVERLOADED = 2;

/** Milliseconds of the first pause before a reconnect, at most (500), and of any (30,000). */
export interface Retry {
  first?: number;
  longest?: number;
}

/**
 * Pauses in milliseconds, with full jitter: clients that were cut off together must not come back
 * together.
 */
export class Backoff {
  /** What the server asked for, once: come back at some time within this many milliseconds. */
  within: number | undefined;
  /** … or not before so many have passed. */
  after: number | undefined;

  #losses = 0;
  #first: number;
  #longest: number;
  #random: () => number;

  constructor({ first = 500, longest = 30_000 }: Retry = {}, random: () => number = Math.random) {
    this.#first = first;
    this.#longest = longest;
    this.#random = random;
  }

  /** All went well for a while: the next loss is a first one. */
  settled(): void {
    this.#losses = 0;
  }

  /** @param code of the close that this pause follows */
  next(code?: number): number {
    if (code === 1013) this.#losses += OVERLOADED;
    const most = this.within ?? Math.min(this.#longest, this.#first * 2 ** this.#losses);
    const pause = (this.after ?? 0) + this.#random() * most;
    this.within = this.after = undefined;
    this.#losses += 1;
    return pause;
  }
}
