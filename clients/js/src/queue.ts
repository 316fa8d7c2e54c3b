/** What came and was not yet read: an async iterator with a bound. */
export class Queue<T> implements AsyncIterator<T, undefined> {
  #items: T[] = [];
  #readers: { resolve(result: IteratorResult<T, undefined> | Promise<IteratorResult<T, undefined>>): void }[] = [];
  #end: { error?: unknown } | undefined;
  #limit: number;
  #overflowed: () => void;
  #over = false;

  /**
   * @param limit so many wait for a reader; then the oldest is dropped
   * @param overflowed is called when the first is dropped, and again only after the reader has caught up
   */
  constructor(limit: number, overflowed: () => void) {
    this.#limit = limit;
    this.#overflowed = overflowed;
  }

  push(item: T): void {
    if (this.#end) return;
    const reader = this.#readers.shift();
    if (reader) return reader.resolve({ value: item, done: false });
    this.#items.push(item);
    if (this.#items.length <= this.#limit) return;
    this.#items.shift();
    if (this.#over) return;
    this.#over = true;
    this.#overflowed();
  }

  /** Drop what nobody has read. */
  remove(unwanted: (item: T) => boolean): void {
    this.#items = this.#items.filter((item) => !unwanted(item));
  }

  /** What waits can still be read; then it is over, or fails once. */
  end(error?: unknown): void {
    if (this.#end) return;
    this.#end = error === undefined ? {} : { error };
    for (const reader of this.#readers.splice(0)) reader.resolve(this.next());
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    if (this.#items.length > 0) {
      const value = this.#items.shift() as T;
      if (this.#items.length === 0) this.#over = false;
      return { value, done: false };
    }
    if (!this.#end) return new Promise((resolve) => this.#readers.push({ resolve }));
    const { error } = this.#end;
    this.#end = {};
    if (error !== undefined) throw error;
    return { value: undefined, done: true };
  }
}
