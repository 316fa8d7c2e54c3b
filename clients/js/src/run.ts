import { Emitter } from "./emitter.ts";
import { FairleadError, refused, unreached } from "./errors.ts";
import { fromBase64 } from "./frames.ts";
import { Backoff, isFinal, type Retry } from "./retry.ts";
import { EventParser, type ServerEvent } from "./sse.ts";

/** Milliseconds for the head of an answer that is waited for just to learn which run it began. */
const PATIENCE = 20_000;

/** So many milliseconds without a byte, and a stream is taken for cut: a server says something each 15 s. */
const SILENCE = 45_000;

export interface RunOptions {
  /** GET, or POST where there is a body. */
  method?: string;
  /** Plain objects and arrays are sent as JSON, anything else as fetch does. */
  body?: unknown;
  headers?: HeadersInit;
  /** Goes away from the stream; what becomes of the run is the workflow's `on_disconnect`. */
  signal?: AbortSignal;
  /** Begin after this one: the `id` of an earlier event. */
  cursor?: string | null;
  /** As the trigger says it; "text" leaves the data as it is. */
  format?: "json" | "text";
  /** Asked before each request; it travels as `Authorization: Bearer`. */
  token?: () => string | Promise<string>;
  retry?: Retry;
  fetch?: typeof fetch;
}

/** One item of a stream. */
export interface Item<T = unknown> {
  data: T;
  /** "message", or the name that the workflow gave it. */
  event: string;
  /** Its cursor, where the stream can be resumed. */
  id: string | null;
  /** 1; more after a restart, when what the earlier attempts said is to be discarded. */
  attempt: number;
}

export interface RunEvents {
  status: { status: "open" | "reconnecting" | "closed"; pause?: number };
  /** Items may be missing before `cursor`. */
  gap: { cursor: string | null; reason: "reconnect" | "history" };
  /** Discard what came before. */
  restart: { run: string; attempt: number };
}

/**
 * A stream of server-sent events: read it with `for await`, once.
 *
 * It is asked for at once and read as fast as the loop goes, so that a slow reader slows the workflow
 * down. It ends with the run, throws a FairleadError where that failed, and goes on by itself after a
 * cut where the server keeps its output.
 */
export class Run<T = unknown> extends Emitter<RunEvents> implements AsyncIterable<Item<T>> {
  /** The run's id and the key that lets others attach to it and cancel it, as soon as they are known. */
  id: string | null = null;
  key: string | null = null;
  /** A whole traceparent. */
  trace: string | null = null;
  cursor: string | null;
  attempt = 1;

  #url: URL;
  #options: RunOptions;
  #persistent: boolean;
  /** The newest request for the stream. */
  #asked: Promise<Response>;
  #stop = new AbortController();
  /** Of the newest request alone. */
  #cut = new AbortController();
  #cancelled = false;
  /** Whether the server said that this run's output is kept, or gave some of it back. */
  #kept = false;
  #backoff: Backoff;
  #parser = new EventParser();
  #items: AsyncGenerator<Item<T>, undefined> | undefined;

  /** @internal */
  constructor(url: string | URL, options: RunOptions, persistent: boolean) {
    super();
    this.#url = new URL(url, globalThis.location?.href);
    this.#options = options;
    this.#persistent = persistent;
    this.cursor = options.cursor ?? null;
    this.#backoff = new Backoff(options.retry);
    this.#stop.signal.addEventListener("abort", () => this.#cut.abort(this.#stop.signal.reason));
    const { signal } = options;
    const abort = (): void => this.#stop.abort(signal?.reason);
    signal?.addEventListener("abort", abort, { signal: this.#stop.signal });
    if (signal?.aborted) abort();
    this.#asked = this.#ask();
    this.#asked.catch(() => {}); // the loop throws it
  }

  /**
   * Stop the run on the server, wherever it is; the loop then ends, and yields nothing more.
   *
   * Which run it is, the head of the answer says: until that has come, it is waited for.
   *
   * @throws FairleadError where the server refuses, or was not reached: the run may go on
   */
  async cancel(): Promise<void> {
    this.#cancelled = true;
    if (!this.id) {
      const timer = setTimeout(() => this.#stop.abort(), PATIENCE);
      const outcome: Response | Partial<FairleadError> = await this.#asked.catch((error) => error);
      clearTimeout(timer);
      // A room has no run, and what was refused has begun none.
      if (!outcome.status && !this.#persistent) throw unreached(outcome as Error);
    }
    this.#stop.abort();
    if (!this.id) return;
    const answer = await this.#fetch("DELETE", this.#attached()).catch((error: Error) => {
      throw unreached(error);
    });
    // 404, 410: it is gone. 405: it lives no longer than its stream.
    if (!answer.ok && ![404, 405, 410].includes(answer.status)) throw await refused(answer);
    await answer.body?.cancel();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Item<T>, undefined> {
    this.#items ??= this.#read();
    return this.#items;
  }

  async *#read(): AsyncGenerator<Item<T>, undefined> {
    try {
      let answer = await this.#answer(true);
      while (answer.status !== 204 && !this.#cancelled) {
        this.emit("status", { status: "open" });
        if (yield* this.#body(answer)) return;
        answer = await this.#answer();
        // Without a cursor nobody is asked whether anything was missed.
        if (!this.#kept && this.cursor === null) this.#missed("reconnect");
      }
    } catch (error) {
      if (!this.#cancelled) throw error;
    } finally {
      this.#stop.abort();
      this.emit("status", { status: "closed" });
    }
  }

  /** @returns whether this was the end; else the stream broke */
  async *#body(answer: Response): AsyncGenerator<Item<T>, boolean> {
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    const decoder = new TextDecoder();
    this.#parser = new EventParser();
    for (;;) {
      const piece = await this.#patiently(reader.read()).catch(() => ({ done: true, value: undefined }));
      this.#stop.signal.throwIfAborted();
      if (piece.done) break;
      for (const event of this.#parser.feed(decoder.decode(piece.value, { stream: true }))) {
        if (event.id !== undefined) this.cursor = event.id;
        this.#backoff.settled();
        if (event.event === "end") return true;
        const item = this.#received(event);
        if (item) yield item;
      }
    }
    // A cursor may be that of a room beside the run: with it another run would begin.
    if (!this.#kept && !this.#persistent && !this.#url.searchParams.has("run")) {
      throw new FairleadError({ detail: "the stream broke before its end, and the server does not keep it" });
    }
    this.#backoff.within = this.#parser.retry;
    return false;
  }

  #received({ event, data, id }: ServerEvent): Item<T> | undefined {
    const said = (): never => JSON.parse(data) as never;
    switch (event) {
      case "error":
        throw new FairleadError(said());
      case "run": {
        const { run, key }: { run: string; key: string } = said();
        this.id = run;
        this.key = key;
        this.#kept = true;
        return;
      }
      case "restart": {
        const { run, attempt }: { run: string; attempt: number } = said();
        this.attempt = attempt;
        this.emit("restart", { run, attempt });
        return;
      }
      case "resumed":
        if ((said() as { recovered: boolean }).recovered) this.#kept = true;
        else this.#missed("reconnect");
        return;
      case "cursor":
      case "gap":
        this.cursor = (said() as { cursor: string }).cursor;
        if (event === "cursor") return;
        this.#kept = true;
        this.#missed("history");
        return;
    }
    const bytes = event === "base64";
    const value = bytes ? fromBase64(data) : this.#options.format === "text" ? data : said();
    return { data: value as T, event: bytes ? "message" : event, id: id ?? null, attempt: this.attempt };
  }

  #missed(reason: RunEvents["gap"]["reason"]): void {
    this.emit("gap", { cursor: this.cursor, reason });
  }

  /** The next answer that can be read, however many requests that takes. */
  async #answer(first = false): Promise<Response> {
    for (let asked = first; ; asked = false) {
      if (!asked) {
        await this.#pause();
        this.#asked = this.#ask();
      }
      try {
        // What is asked for once has no limit: its body may take long to get there.
        return await (asked && !this.#persistent ? this.#asked : this.#patiently(this.#asked));
      } catch (error) {
        this.#stop.signal.throwIfAborted();
        // What was never begun is begun again for a room only: a run might then be there twice.
        if (this.#cancelled || (asked && !this.#persistent)) throw error;
        if (error instanceof FairleadError) {
          if (isFinal(error.status)) throw error;
          this.#backoff.after = error.retryAfter;
        }
      }
    }
  }

  async #pause(): Promise<void> {
    const pause = this.#backoff.next();
    this.emit("status", { status: "reconnecting", pause });
    const { signal } = this.#stop;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, pause);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    signal.throwIfAborted();
  }

  /** What comes of the newest request, which is cut where nothing does. */
  async #patiently<A>(coming: Promise<A>): Promise<A> {
    const cut = (): void => this.#cut.abort(new FairleadError({ detail: `nothing came for ${SILENCE / 1000} s` }));
    const timer = setTimeout(cut, SILENCE);
    return coming.finally(() => clearTimeout(timer));
  }

  async #ask(): Promise<Response> {
    this.#stop.signal.throwIfAborted();
    const { signal } = (this.#cut = new AbortController());
    const attached = this.#kept && this.id !== null;
    const again = attached ? this.#attached() : new URL(this.#url);
    if (this.cursor) again.searchParams.set("cursor", this.cursor);
    const { body, method = body === undefined ? "GET" : "POST" } = this.#options;
    const answer = await this.#fetch(attached ? "GET" : method, again, { signal, ...(!attached && json(body)) });
    this.id ??= answer.headers.get("fairlead-run");
    this.key ??= answer.headers.get("fairlead-run-token");
    this.trace ??= answer.headers.get("fairlead-trace");
    const stream = answer.headers.get("content-type")?.startsWith("text/event-stream");
    if (answer.headers.get("fairlead-run-over") === "forgotten") {
      const detail = `the run is no longer kept; what it said after ${this.cursor} is lost`;
      throw new FairleadError({ status: 410, detail });
    }
    if (answer.status === 204 || (answer.ok && stream)) return answer;
    throw answer.ok ? new FairleadError({ detail: "the answer is no event stream" }) : await refused(answer);
  }

  /** Where this run is, once it has begun. */
  #attached(): URL {
    const url = new URL(this.#url);
    url.searchParams.set("run", this.id as string);
    if (this.key) url.searchParams.set("key", this.key);
    return url;
  }

  async #fetch(method: string, url: URL, more: RequestInit & { type?: string } = {}): Promise<Response> {
    const { type, ...init } = more;
    const headers = new Headers(this.#options.headers);
    if (type && !headers.has("content-type")) headers.set("content-type", type);
    if (method !== "DELETE") headers.set("accept", "text/event-stream");
    if (this.#options.token) headers.set("authorization", `Bearer ${await this.#options.token()}`);
    return (this.#options.fetch ?? fetch)(url, { method, headers, cache: "no-store", ...init });
  }
}

/** A body as fetch takes it. */
function json(body: unknown): { body?: BodyInit; type?: string } {
  if (body === undefined) return {};
  const plain = Array.isArray(body) || (typeof body === "object" && Object.getPrototypeOf(body) === Object.prototype);
  return plain ? { body: JSON.stringify(body), type: "application/json" } : { body: body as BodyInit };
}

/** Start a run, or attach to one with `?run=` in the URL, and read what it yields. */
export function run<T = unknown>(url: string | URL, options: RunOptions = {}): Run<T> {
  return new Run<T>(url, options, false);
}

/** Read a room over server-sent events: as `run`, but it is asked again until it is there, and after each cut. */
export function subscribe<T = unknown>(url: string | URL, options: RunOptions = {}): Run<T> {
  return new Run<T>(url, options, true);
}
