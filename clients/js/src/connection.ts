import { Emitter } from "./emitter.ts";
import { FairleadError, type Problem, refused } from "./errors.ts";
import { encoded, randomId, SUBPROTOCOL } from "./frames.ts";
import { Queue } from "./queue.ts";
import { Backoff, isFinal, mayReturn } from "./retry.ts";
import { type Message, Sent } from "./sent.ts";
import { Session, type SessionEvents } from "./session.ts";

/** Milliseconds for a handshake: policies and a worker are asked in it. */
const PATIENCE = 20_000;

/** So many milliseconds up, and the next loss begins with the first pause again. */
const SETTLED = 5_000;

/**
 * - connecting, reconnecting: not there yet, not there any more
 * - open: the server has said welcome
 * - waiting: open, but there is no worker for a message yet
 * - closed: for good
 */
export type Status = "connecting" | "open" | "waiting" | "reconnecting" | "closed";

export interface StatusChange {
  status: Status;
  /** Milliseconds until the next attempt, when reconnecting. */
  pause?: number;
  /** Why it is closed, unless that was asked for or the run has ended. */
  error?: FairleadError;
}

export interface ConnectionEvents extends SessionEvents {
  status: StatusChange;
}

export interface ConnectOptions {
  /** Asked before each attempt, so that it is fresh; it travels as `?access_token=`. */
  token?: () => string | Promise<string>;
  /** Begin where an earlier connection was: its `cursor`. */
  cursor?: string | null;
  /** Closes the connection. */
  signal?: AbortSignal;
  /** Messages that may be on their way at once, sent or not; 1000. Beyond that `send` fails. */
  queue?: number;
  /** Messages that may wait to be read; 1000. Beyond that the oldest are dropped, with a `gap`. */
  buffer?: number;
  /** Milliseconds of the first pause before a reconnect, at most (500), and of any (30,000). */
  retry?: { first?: number; longest?: number };
  /** For a runtime that has none of its own. */
  WebSocket?: typeof WebSocket;
  fetch?: typeof fetch;
}

export interface SendOptions {
  /** Unique among all messages, at most 128 characters; a random one by default. */
  id?: string;
  /** Of the trace that this message belongs to (W3C Trace Context). */
  traceparent?: string;
  /** Cancels the message. */
  signal?: AbortSignal;
}

/**
 * One `fairlead.v1` connection that comes back by itself.
 *
 * Iterating over it yields what the room and the connection's run say; each message is read by one
 * reader. The loop ends with the connection, and throws where that was refused.
 */
export class Connection extends Emitter<ConnectionEvents> implements AsyncIterable<Message> {
  /** Resolves when it is closed for good, with the reason if there is one. */
  readonly closed: Promise<FairleadError | undefined>;

  #url: URL;
  #options: ConnectOptions;
  #session: Session;
  #messages: Queue<Message>;
  #backoff: Backoff;
  #status: Status = "connecting";
  #socket: WebSocket | undefined;
  /** Counts attempts, so that what an older one still has to say is nobody's any more. */
  #attempt = 0;
  #upSince: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #resolveClosed!: (error: FairleadError | undefined) => void;
  #release: () => void;

  /** @internal */
  constructor(url: string | URL, options: ConnectOptions) {
    super();
    this.#url = new URL(url, globalThis.location?.href);
    this.#options = options;
    if (!(options.WebSocket ?? globalThis.WebSocket)) {
      throw new TypeError("this runtime has no WebSocket; give connect() one: { WebSocket }");
    }
    this.#backoff = new Backoff(options.retry?.first, options.retry?.longest);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#messages = new Queue(options.buffer ?? 1000, () => {
      this.emit("gap", { cursor: this.#session.cursor, reason: "unread" });
    });
    this.#session = new Session(
      {
        write: (frame) => this.#socket?.send(frame),
        deliver: (message) => this.#messages.push(message),
        discard: (run) => this.#messages.remove((message) => message.run === run),
        emit: (name, detail) => (this as Emitter<SessionEvents>).emit(name, detail),
        now: () => performance.now(),
      },
      options.cursor ?? null,
    );
    const online = (): void => this.reconnect();
    const abort = (): void => this.close();
    globalThis.addEventListener?.("online", online);
    options.signal?.addEventListener("abort", abort);
    this.#release = () => {
      globalThis.removeEventListener?.("online", online);
      options.signal?.removeEventListener("abort", abort);
    };
    if (options.signal?.aborted) this.close();
    else void this.#connect();
  }

  get status(): Status {
    return this.#status;
  }

  /** The connection's id, once the server has said welcome; another after each reconnect. */
  get id(): string | null {
    return this.#session.connection;
  }

  /** Of the newest message that came: a later `connect` can begin there. */
  get cursor(): string | null {
    return this.#session.cursor;
  }

  /**
   * Have a message executed, however many connections that takes.
   *
   * A string stays text, an ArrayBuffer or a view of one is bytes, anything else is JSON. What is
   * too large, or too much, fails without being sent.
   */
  send<T = unknown>(data: unknown, options: SendOptions = {}): Sent<T> {
    const { id = randomId(), traceparent, signal } = options;
    const limit = this.#options.queue ?? 1000;
    const trace = traceparent ? `,"traceparent":${JSON.stringify(traceparent)}` : "";
    let members = "";
    let failure: Partial<Problem> | undefined;
    try {
      members = encoded(data) + trace;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      failure = { status: 413, detail: error.message };
    }
    if (this.#status === "closed") failure = { detail: "the connection is closed" };
    else if (signal?.aborted) failure = { status: 499, detail: "cancelled" };
    else if (this.#session.pending >= limit) failure = { detail: `${limit} messages are on their way already` };
    const sent = new Sent<T>(id, members, this.#options.buffer ?? 1000, (it) => this.#session.cancel(it));
    if (failure) {
      const error = new FairleadError(failure, { id });
      sent.failed(error);
      setTimeout(() => sent.watched || this.emit("error", error));
      return sent;
    }
    this.#session.send(sent as Sent);
    if (signal) {
      const abort = (): void => sent.cancel();
      signal.addEventListener("abort", abort);
      const done = (): void => signal.removeEventListener("abort", abort);
      sent.settled.then(done, done);
    }
    return sent;
  }

  /** Stop a run that this connection may stop: its own, or with the key of another's. */
  cancel(run: string, key?: string): void {
    if (this.#session.open) this.#socket?.send(JSON.stringify({ type: "cancel", run, key }));
  }

  /** Give the server a new token before the old one expires; without one, `options.token` is asked. */
  async refresh(token?: string): Promise<void> {
    const fresh = token ?? (await this.#options.token?.());
    // While away there is nothing to do: the next attempt asks for a token of its own.
    if (this.#session.open) this.#socket?.send(JSON.stringify({ type: "refresh", token: fresh }));
  }

  /** Do not wait for the end of the pause. */
  reconnect(): void {
    if (this.#status === "reconnecting" && !this.#socket) void this.#connect();
  }

  /** Close for good. What is not acknowledged by now fails, though it may have been executed. */
  close(): void {
    this.#finish();
  }

  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    return { next: () => this.#messages.next() };
  }

  async #connect(): Promise<void> {
    clearTimeout(this.#timer);
    const attempt = ++this.#attempt;
    const current = (): boolean => attempt === this.#attempt;
    const url = new URL(this.#url);
    if (this.#session.cursor) url.searchParams.set("cursor", this.#session.cursor);
    try {
      if (this.#options.token) url.searchParams.set("access_token", await this.#options.token());
    } catch (error) {
      if (!current()) return;
      this.emit("error", new FairleadError({ detail: `no token: ${(error as Error).message}` }));
      return this.#again();
    }
    if (!current()) return;
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new (this.#options.WebSocket ?? WebSocket)(url, SUBPROTOCOL);
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (current()) this.#received(data as string);
    };
    socket.onclose = ({ code, reason }) => {
      if (current()) void this.#lost(code, reason, url);
    };
    this.#timer = setTimeout(() => {
      this.#drop();
      this.#again();
    }, PATIENCE);
  }

  #received(text: string): void {
    this.#session.received(JSON.parse(text));
    if (this.#session.open && this.#upSince === undefined) {
      clearTimeout(this.#timer);
      this.#upSince = performance.now();
    }
    if (this.#session.open) this.#become(this.#session.waiting ? "waiting" : "open");
  }

  /** Forget the socket, and whatever it may still say. */
  #drop(): void {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = undefined;
    if (this.#upSince !== undefined && performance.now() - this.#upSince >= SETTLED) this.#backoff.settled();
    this.#upSince = undefined;
    this.#session.lost();
    socket?.close();
  }

  async #lost(code: number, reason: string, url: URL): Promise<void> {
    const opened = this.#session.open;
    this.#drop();
    if (opened && code === 1000) return this.#finish();
    if (!mayReturn(code)) {
      return this.#finish(new FairleadError({ detail: reason || `closed with ${code}` }, { code }));
    }
    this.#backoff.within = this.#session.within;
    if (!opened) {
      const attempt = this.#attempt;
      const error = await whyRefused(url, this.#options.fetch ?? fetch);
      if (attempt !== this.#attempt || this.#status === "closed") return;
      if (error && isFinal(error.status)) return this.#finish(error);
      this.#backoff.after = error?.retryAfter;
    }
    this.#again(code);
  }

  #again(code?: number): void {
    const pause = this.#backoff.next(code);
    this.#become("reconnecting", { pause });
    this.#timer = setTimeout(() => void this.#connect(), pause);
  }

  #finish(error?: FairleadError): void {
    if (this.#status === "closed") return;
    this.#drop();
    this.#release();
    this.#become("closed", error && { error });
    this.#session.ended(error ?? new FairleadError({ detail: "the connection was closed before the answer came" }));
    this.#messages.end(error);
    this.#resolveClosed(error);
  }

  #become(status: Status, more: Omit<StatusChange, "status"> = {}): void {
    if (status === this.#status && !more.pause) return;
    this.#status = status;
    this.emit("status", { status, ...more });
  }
}

/**
 * Why a handshake failed, which a browser is not told: a plain GET of the same URL says it.
 *
 * @returns undefined where nothing is wrong with asking again
 */
async function whyRefused(url: URL, get: typeof fetch): Promise<FairleadError | undefined> {
  const asked = new URL(url);
  asked.protocol = url.protocol.replace("ws", "http");
  try {
    const headers = { accept: "application/problem+json" };
    const answer = await get(asked, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    // 426 says that it would be accepted now; so does a stream on the same path, which nobody reads.
    if (answer.ok || answer.status === 426) return void answer.body?.cancel();
    return await refused(answer);
  } catch {
    return undefined;
  }
}

/** Open a connection; it is there at once, and says how it is by its `status`. */
export function connect(url: string | URL, options: ConnectOptions = {}): Connection {
  return new Connection(url, options);
}
