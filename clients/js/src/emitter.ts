type Listener = (detail: never) => void;

/** Events by name; what a listener throws is reported and harms nobody else. */
export class Emitter<Events> {
  #listeners = new Map<keyof Events, Set<Listener>>();

  /** @returns a function that ends it */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void {
    const mine = (detail: Events[Name]): void => listener(detail);
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(mine));
    return () => all.delete(mine);
  }

  /** @internal */
  emit<Name extends keyof Events>(name: Name, detail: Events[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        (listener as (detail: Events[Name]) => void)(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
