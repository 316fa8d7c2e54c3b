/**
 * What frames mean, without a socket and without a clock: the messages that are on their way, the
 * cursor to come back with, and what the application is told.
 */
import { FairleadError } from "./errors.ts";
import type { ServerFrame } from "./frames.ts";
import { fromBase64, toJson } from "./frames.ts";
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

/**
 * Milliseconds of two clocks. Neither is enough: a monotonic one may stand still while a laptop
 * sleeps, and the time of day may be set back.
 */
export type Moment = readonly [monotonic: number, timeOfDay: number];

/** @returns milliseconds, rather too many than too few */
const between = (earlier: Moment, later: Moment): number => Math.max(later[0] - earlier[0], later[1] - earlier[1]);

/** Carries out what the session decides. */
export interface Host {
  write(frame: string): void;
  deliver(message: Message): void;
  /** Forget what nobody has read of this run. */
  discard(run: string): void;
  emit<Name extends keyof SessionEvents>(name: Name, detail: SessionEvents[Name]): void;
  /** The server will be gone: come back at some time within so many milliseconds. */
  returnWithin(pause: number): void;
  now(): Moment;
}

export class Session {
  /** Where to go on after a reconnect; null where the room has no history. */
  cursor: string | null;
  /** Of the connection that is, or was last. */
  connection: string | null = null;

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

  /**
   * Have the server say something: to a frame of a type that it does not know it answers at once,
   * with an error. Ten of these in a row would be too many; a cancel of nothing, which is ignored,
   * ends the row.
   */
  ask(): void {
    const ref = ++this.#ref;
    for (const type of ["cancel", "ping"]) this.#host.write(JSON.stringify({ type, ref }));
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
      this.#failed(sent, new FairleadError(error, { id: sent.id, code: error.code }));
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
        const sent = this.#find(frame.ref);
        if (sent) this.#forget(sent);
        sent?.acknowledged(frame.trace);
        return this.#pump();
      }
      case "error": {
        const sent = this.#find(frame.ref);
        // With the ref of no message it is what we asked for.
        if (!sent) return frame.ref ? undefined : host.emit("error", new FairleadError(frame.error));
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
        return host.returnWithin(frame.within);
    }
    // Whatever else a later server says is none of an older client's business.
  }

  #welcomed(frame: ServerFrame & { type: "welcome" }): void {
    this.#open = true;
    this.#window = frame.window;
    this.connection = frame.connection;
    // While what was missed is still being replayed, a loss must go on from where we were.
    if (frame.recovered !== true) this.cursor = frame.cursor;
    // null: it had no cursor to ask with
    const missed = this.#before ? !frame.recovered : frame.recovered === false;
    this.#before = true;
    if (missed) this.#host.emit("gap", { cursor: frame.cursor, reason: "reconnect" });
    this.#pump();
  }

  #message(frame: ServerFrame & { type: "message" }): void {
    const { type: _, ref, encoding, ...said } = frame;
    const message: Message = {
      ...said,
      ...(encoding === "base64" && { data: fromBase64(said.data as string) }),
      attempt: this.#attempts.get(said.run as string) ?? 1,
    };
    if (ref !== undefined) return this.#find(ref)?.replied(message);
    if (said.id) this.cursor = said.id;
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

  #forget(sent: Sent): void {
    this.#outbox.splice(this.#outbox.indexOf(sent), 1);
  }

  #failed(sent: Sent, error: FairleadError): void {
    this.#forget(sent);
    sent.failed(error);
    if (!sent.watched) this.#host.emit("error", error);
  }

  /** How many more messages may be unacknowledged. */
  get #free(): number {
    return this.#window - this.#outbox.filter((sent) => sent.ref !== undefined).length;
  }

  /** Send what is queued, in order, as much as may be unacknowledged. */
  #pump(): void {
    for (const sent of [...this.#outbox]) {
      // A listener may have sent, cancelled or closed meanwhile: so all is looked at in each turn.
      if (sent.ref !== undefined || sent.state === "failed") continue;
      if (!this.#open || this.#free <= 0) return;
      const now = this.#host.now();
      if (sent.since === undefined) {
        sent.since = now;
      } else if (between(sent.since, now) < REMEMBERED) {
        sent.restarted();
      } else {
        const detail = "the connection was lost before the answer came, too long ago to ask again without a double";
        this.#failed(sent, new FairleadError({ detail }, { id: sent.id }));
        continue;
      }
      sent.ref = ++this.#ref;
      sent.state = "sent";
      this.#host.write(`{"type":"message","ref":${sent.ref},"id":${toJson(sent.id)},${sent.members}}`);
    }
  }
}
