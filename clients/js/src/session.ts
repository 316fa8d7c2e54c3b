/**
 * What frames mean, without a socket and without a clock: the messages that are on their way, the
 * cursor to come back with, and what the application is told.
 */
import { FairleadError } from "./errors.ts";
import type { ServerFrame } from "./frames.ts";
import { fromBase64 } from "./frames.ts";
import type { Message, Sent } from "./sent.ts";

/** Milliseconds for which a message that is sent again with its id is known as the same. */
const REMEMBERED = 115_000;

export interface SessionEvents {
  /** Messages may be missing before `cursor`: the room no longer had them, or nobody read them here. */
  gap: { cursor: string | null; reason: "reconnect" | "history" | "unread" };
  /** Discard what came from this run (in answer to the message `id`, if there is one) before. */
  restart: { run: string; attempt: number; id?: string };
  /** Who came to the room and who left it. */
  presence: { join: string[]; leave: string[] };
  /** No worker is there for this message yet; it is still tried. */
  waiting: Sent;
  /** The run of the connection has ended; a close follows. */
  end: { run: string };
  /** What failed and belongs to no message, or to one that nobody awaits or iterates over. */
  error: FairleadError;
}

/** Carries out what the session decides. */
export interface Host {
  write(frame: string): void;
  deliver(message: Message): void;
  /** Forget what nobody has read of this run. */
  discard(run: string): void;
  emit<Name extends keyof SessionEvents>(name: Name, detail: SessionEvents[Name]): void;
  /** Milliseconds, of any clock that only grows. */
  now(): number;
}

export class Session {
  /** Where to go on after a reconnect; null where the room has no history. */
  cursor: string | null;
  /** Of the connection that is, or was last. */
  connection: string | null = null;
  /** Milliseconds within which to come back, if the server said so before it closed. */
  within: number | undefined;

  #host: Host;
  #open = false;
  #before = false;
  #window = 0;
  #ref = 0;
  #outbox: Sent[] = [];
  #attempts = new Map<string, number>();

  constructor(host: Host, cursor: string | null) {
    this.#host = host;
    this.cursor = cursor;
  }

  get open(): boolean {
    return this.#open;
  }

  /** Messages that are neither acknowledged nor failed. */
  get pending(): number {
    return this.#outbox.length;
  }

  /** Whether a message waits for a worker. */
  get waiting(): boolean {
    return this.#outbox.some((sent) => sent.state === "waiting");
  }

  send(sent: Sent): void {
    this.#outbox.push(sent);
    this.#pump();
  }

  cancel(sent: Sent): void {
    if (!this.#outbox.includes(sent)) return;
    sent.cancelled = true;
    if (this.#open && sent.ref !== undefined) {
      this.#host.write(JSON.stringify({ type: "cancel", ref: sent.ref }));
    } else {
      this.#failed(sent, new FairleadError({ status: 499, detail: "cancelled" }, { id: sent.id }));
    }
  }

  /**
   * The socket is gone: what it has not acknowledged is to be said again, unless it was cancelled:
   * nobody knows whether the server has heard that.
   */
  lost(): void {
    this.#open = false;
    for (const sent of this.#outbox) {
      sent.ref = undefined;
      sent.state = "queued";
    }
    for (const sent of this.#outbox.filter(({ cancelled }) => cancelled)) sent.cancel();
  }

  /** There will be no other connection. */
  ended(error: FairleadError): void {
    this.lost();
    for (const sent of [...this.#outbox]) {
      this.#failed(sent, new FairleadError(error, { id: sent.id, ...(error.code && { code: error.code }) }));
    }
  }

  received(frame: ServerFrame): void {
    const host = this.#host;
    switch (frame.type) {
      case "welcome":
        return this.#welcomed(frame);
      case "message":
        return this.#message(frame);
      case "ack": {
        const sent = this.#answered(frame.ref);
        sent?.acknowledged(frame.trace);
        return this.#pump();
      }
      case "error": {
        const sent = this.#find(frame.ref);
        if (!sent) return host.emit("error", new FairleadError(frame.error, frame.ref ? { ref: frame.ref } : {}));
        this.#failed(sent, new FairleadError(frame.error, { ref: frame.ref as number, id: sent.id }));
        return this.#pump();
      }
      case "waiting": {
        const sent = this.#find(frame.ref);
        if (!sent) return;
        sent.state = "waiting";
        return host.emit("waiting", sent);
      }
      case "restart":
        return this.#restarted(frame);
      case "end":
        return host.emit("end", { run: frame.run });
      case "cursor":
        this.cursor = frame.cursor;
        return;
      case "gap":
        this.cursor = frame.cursor;
        return host.emit("gap", { cursor: frame.cursor, reason: "history" });
      case "presence":
        return host.emit("presence", { join: frame.join, leave: frame.leave });
      case "reconnect":
        this.within = frame.within;
    }
    // Whatever else a later server says is none of an older client's business.
  }

  #welcomed(frame: ServerFrame & { type: "welcome" }): void {
    this.#open = true;
    this.#window = frame.window;
    this.connection = frame.connection;
    this.within = undefined;
    // While what was missed is still being replayed, a loss must go on from where we were.
    if (frame.recovered !== true) this.cursor = frame.cursor;
    const missed = frame.recovered === false || (this.#before && frame.recovered === null);
    this.#before = true;
    if (missed) this.#host.emit("gap", { cursor: frame.cursor, reason: "reconnect" });
    this.#pump();
  }

  #message(frame: ServerFrame & { type: "message" }): void {
    const { id = null, data, from, run, trace, ref, encoding } = frame;
    const message: Message = {
      data: encoding === "base64" ? fromBase64(data as string) : data,
      id,
      attempt: (run !== undefined && this.#attempts.get(run)) || 1,
      ...(from !== undefined && { from }),
      ...(run !== undefined && { run }),
      ...(trace !== undefined && { trace }),
    };
    if (ref !== undefined) return this.#find(ref)?.replied(message);
    if (id) this.cursor = id;
    this.#host.deliver(message);
  }

  #restarted({ run, attempt, ref }: ServerFrame & { type: "restart" }): void {
    const sent = this.#find(ref);
    if (ref === undefined) {
      this.#attempts.clear();
      this.#attempts.set(run, attempt);
      this.#host.discard(run);
    }
    sent?.restarted();
    this.#host.emit("restart", { run, attempt, ...(sent && { id: sent.id }) });
  }

  #find(ref: number | undefined): Sent | undefined {
    return ref === undefined ? undefined : this.#outbox.find((sent) => sent.ref === ref);
  }

  /** An `ack` or `error` is the last word on a ref. */
  #answered(ref: number | undefined): Sent | undefined {
    const sent = this.#find(ref);
    if (sent) this.#outbox.splice(this.#outbox.indexOf(sent), 1);
    return sent;
  }

  #failed(sent: Sent, error: FairleadError): void {
    this.#outbox.splice(this.#outbox.indexOf(sent), 1);
    sent.failed(error);
    if (!sent.watched) this.#host.emit("error", error);
  }

  /** Send what is queued, in order, as much as may be unacknowledged. */
  #pump(): void {
    if (!this.#open) return;
    let free = this.#window - this.#outbox.filter((sent) => sent.ref !== undefined).length;
    for (const sent of [...this.#outbox]) {
      if (free <= 0) return;
      // A listener may have cancelled it meanwhile.
      if (sent.ref !== undefined || sent.state === "failed") continue;
      const now = this.#host.now();
      if (sent.since === undefined) {
        sent.since = now;
      } else if (now - sent.since < REMEMBERED) {
        sent.restarted();
      } else {
        const detail = "the connection was lost before the answer came, too long ago to ask again without a double";
        this.#failed(sent, new FairleadError({ detail }, { id: sent.id }));
        continue;
      }
      free -= 1;
      sent.ref = ++this.#ref;
      sent.state = "sent";
      this.#host.write(`{"type":"message","ref":${sent.ref},"id":${JSON.stringify(sent.id)},${sent.members}}`);
    }
  }
}
