import { Emitter } from "./emitter.ts";
import { FairleadError, type Problem, refused, unreached } from "./errors.ts";
import { encoded, randomId, SUBPROTOCOL, toJson } from "./frames.ts";
import { Queue } from "./queue.ts";
import { Backoff, isFinal, mayReturn, type Retry } from "./retry.ts";
import { type Message, Sent } from "./sent.ts";
import { Session, type SessionEvents } from "./session.ts";

/** Milliseconds for a handshake: policies and a worker are asked in it. */
const PATIENCE = 20_000;

/** So many milliseconds up, and the next loss begins with the first pause again. */
const SETTLED = 5_000;

/** After so many milliseconds without a frame, or twice as many, the server is asked for one: a browser shows no pings. */
const QUIET = 20_000;

/** … and so many for its answer. */
const ANSWER = 10_000;

/** When a device has slept, or has another network, a connection may be gone without a word. */
const AWAKE = ["online", "pageshow", "visibilitychange"];

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
  retry?: Retry;
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
  /** Of what is waited for: a handshake, a frame, or the end of a pause. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether a frame came since that was set. */
  #heard = false;
  #resolveClosed!: (error: FairleadError | undefined) => void;
  #listening = new AbortController();

  /** @internal */
  constructor(url: string | URL, options: ConnectOptions) {
    super();
    this.#url = new URL(url, globalThis.location?.href);
    this.#options = options;
    this.#backoff = new Backoff(options.retry);
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
        returnWithin: (pause) => void (this.#backoff.within = pause),
        now: () => [performance.now(), Date.now()],
      },
      options.cursor ?? null,
    );
    const { signal } = this.#listening;
    for (const name of AWAKE) globalThis.addEventListener?.(name, () => this.#awake(name), { signal });
    options.signal?.addEventListener("abort", () => this.close(), { signal });
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

  /**
   * Of the newest message that came, read or not: a later `connect` can begin there.
   *
   * A program that is to go on where it was, after its own end, stores the `id` of the last message
   * that it has handled instead: what waits to be read is lost with it.
   */
  get cursor(): string | null {
    return this.#session.cursor;
  }

  /**
   * Have a message executed, however many connections that takes.
   *
   * A string stays text, an ArrayBuffer or a view of one is bytes, anything else is JSON. What is
   * too large, or too much, fails without being sent. Half a surrogate pair is sent as U+FFFD.
   *
   * @throws TypeError for what JSON has no word for, or is nested deeper than 254 levels
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

  /**
   * Stop a run that this connection may stop: its own, or with the key of another's. Where the
   * server refuses it, an `error` event says so.
   *
   * @throws FairleadError where the connection is not open, so that the server was not told
   */
  async cancel(run: string, key?: string): Promise<void> {
    if (!this.#say({ type: "cancel", run, key })) throw unreached({ message: "the connection is not open" });
  }

  /** Give the server a new token before the old one expires; without one, `options.token` is asked. */
  async refresh(token?: string): Promise<void> {
    const fresh = token ?? (await this.#options.token?.());
    // While away there is nothing to do: the next attempt asks for a token of its own.
    this.#say({ type: "refresh", token: fresh });
  }

  /** Do not wait for the end of the pause; where it is open, see whether the server is still there. */
  reconnect(): void {
    if (this.#session.open) this.#watch(true);
    else if (this.#status === "reconnecting" && !this.#socket) void this.#connect();
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
      if (current()) this.#again();
      return;
    }
    if (!current()) return;
    url.protocol = url.protocol.replace("http", "ws");
    let socket: WebSocket;
    try {
      socket = new (this.#options.WebSocket ?? WebSocket)(url, SUBPROTOCOL);
    } catch (error) {
      // No URL of a WebSocket, none that this page may open, or a runtime that has none: for ever.
      await undefined; // whoever has just called connect() is to hear of it, too
      if (current()) this.#finish(new FairleadError({ detail: `no connection can be made: ${(error as Error).message}` }));
      return;
    }
    this.#socket = socket;
    socket.onerror = () => {}; // a close follows; but in Node, `ws` throws what nobody listens to
    socket.onmessage = ({ data }) => {
      if (current()) this.#received(data as string);
    };
    socket.onclose = ({ code, reason }) => {
      if (current()) void this.#lost(code, reason, url);
    };
    this.#timer = setTimeout(() => this.#giveUp(), PATIENCE);
  }

  #received(text: string): void {
    this.#heard = true;
    this.#session.received(JSON.parse(text));
    if (this.#session.open && this.#upSince === undefined) {
      this.#upSince = performance.now();
      this.#watch(false);
    }
    if (this.#session.open) this.#become(this.#session.waiting ? "waiting" : "open");
  }

  /** Wait for a frame, which is asked for if none comes by itself. */
  #watch(asking: boolean): void {
    clearTimeout(this.#timer);
    this.#heard = false;
    if (asking) this.#session.ask();
    this.#timer = setTimeout(
      () => {
        if (asking && !this.#heard) this.#giveUp();
        else this.#watch(!this.#heard);
      },
      asking ? ANSWER : QUIET,
    );
  }

  #awake(event: string): void {
    if (event !== "visibilitychange" || !document.hidden) this.reconnect();
  }

  /** @returns whether there was anybody to say it to */
  #say(frame: object): boolean {
    if (this.#session.open) this.#socket?.send(toJson(frame) as string);
    return this.#session.open;
  }

  #giveUp(): void {
    this.#drop();
    this.#again();
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
    if (!opened) {
      const attempt = this.#attempt;
      const error = await whyRefused(url, this.#options.fetch ?? fetch);
      if (attempt !== this.#attempt) return;
      if (error && isFinal(error.status)) return this.#finish(error);
      this.#backoff.after = error?.retryAfter;
    }
    this.#again(code);
  }

  #again(code?: number): void {
    if (this.#status === "closed") return; // a listener did so
    const pause = this.#backoff.next(code);
    // Before that is told: whoever hears it may close, or connect at once.
    this.#timer = setTimeout(() => void this.#connect(), pause);
    this.#become("reconnecting", { pause });
  }

  #finish(error?: FairleadError): void {
    if (this.#status === "closed") return;
    this.#drop();
    this.#listening.abort();
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
    const answer = await get(asked, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
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
