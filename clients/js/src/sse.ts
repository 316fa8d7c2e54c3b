/** Server-sent events, from text in whatever pieces it comes. */

export interface ServerEvent {
  event: string;
  data: string;
  /** Only where this event has one of its own. */
  id?: string;
}

export class EventParser {
  /** Milliseconds, of the last `retry:`. */
  retry: number | undefined;

  #rest = "";
  #afterReturn = false;
  #event = "";
  #data: string[] = [];
  #id: string | undefined;

  feed(text: string): ServerEvent[] {
    if (!text) return [];
    const more = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    this.#afterReturn = text.endsWith("\r");
    const lines = (this.#rest + more).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() as string;
    const events: ServerEvent[] = [];
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#end(events);
    }
    return events;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  #end(events: ServerEvent[]): void {
    if (this.#data.length > 0) {
      const data = this.#data.join("\n");
      events.push({ event: this.#event || "message", data, ...(this.#id !== undefined && { id: this.#id }) });
    }
    this.#event = "";
    this.#data = [];
    this.#id = undefined;
  }
}
