import { FairleadError } from "./errors.ts";
import { Queue } from "./queue.ts";
import type { Moment } from "./session.ts";

/** What came from the room, from the connection's run, or as a reply to one message. */
export interface Message<T = unknown> {
  /** A string, bytes (Uint8Array), or what JSON said. */
  data: T;
  /** Its cursor, on messages of a room with history. */
  id: string | null;
  /** 1; more after a restart, when what the earlier attempts said is to be discarded. */
  attempt: number;
  /** The sender: a subject's id, else a connection's. */
  from?: string;
  run?: string;
  /** A whole traceparent, where the message is traced. */
  trace?: string;
}

/** What an acknowledged message was: executed, after all its replies. */
export interface Ack {
  id: string;
  trace?: string;
}

export type SentState = "queued" | "sent" | "waiting" | "acknowledged" | "failed";

/**
 * A message on its way: a promise of its acknowledgement, and an async iterable of its replies.
 *
 * Awaiting it, or iterating over it, throws a FairleadError where the server answers with one. A
 * loop that is left early cancels the message, and so does one that throws since it read too slowly.
 */
export class Sent<T = unknown> implements PromiseLike<Ack>, AsyncIterable<Message<T>> {
  /** Unique by being random; a repetition with the same one is known as such. */
  readonly id: string;
  /** "queued" until it is on the wire, and again while the connection is away; "waiting" for a worker. */
  state: SentState = "queued";

  /** @internal as it stands in its frame */
  readonly members: string;
  /** @internal on the connection that is */
  ref: number | undefined;
  /** @internal when it was first sent */
  since: Moment | undefined;
  /** @internal whether anybody would see it fail */
  watched = false;
  /** @internal whether it is not to be sent again */
  cancelled = false;

  /** @internal the same as `then`, without being watched */
  readonly settled: Promise<Ack>;

  #attempt = 1;
  #replies: Queue<Message<T>>;
  #resolve!: (ack: Ack) => void;
  #reject!: (error: FairleadError) => void;
  #cancel: (sent: Sent) => void;

  /** @internal */
  constructor(id: string, members: string, buffer: number, cancel: (sent: Sent) => void) {
    this.id = id;
    this.members = members;
    this.#cancel = cancel;
    this.#replies = new Queue(buffer, () => {
      this.#replies.end(new FairleadError({ detail: `more than ${buffer} replies were not read` }, { id }));
    });
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.settled.catch(() => {}); // whoever wants to know has `then`
  }

  /** Have it stopped, wherever it is; it then ends with an error of status 499. */
  cancel(): void {
    if (this.state !== "acknowledged" && this.state !== "failed") this.#cancel(this);
  }

  then<A = Ack, B = never>(
    done?: ((ack: Ack) => A | PromiseLike<A>) | null,
    failed?: ((error: FairleadError) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.watched = true;
    return this.settled.then(done, failed);
  }

  catch<B>(failed: (error: FairleadError) => B | PromiseLike<B>): Promise<Ack | B> {
    return this.then(null, failed);
  }

  [Symbol.asyncIterator](): AsyncIterator<Message<T>, undefined> {
    this.watched = true;
    return {
      next: () =>
        this.#replies.next().catch((error) => {
          this.cancel(); // it may not have failed on the server; and `return` is not called now
          throw error;
        }),
      return: async () => {
        this.cancel();
        return { value: undefined, done: true };
      },
    };
  }

  /** @internal */
  replied(message: Message<T>): void {
    this.#replies.push({ ...message, attempt: this.#attempt });
  }

  /** @internal It is executed again: what nobody has read yet is not to be read. */
  restarted(): void {
    this.#attempt += 1;
    this.#replies.remove(() => true);
  }

  /** @internal */
  acknowledged(trace: string | undefined): void {
    this.state = "acknowledged";
    this.#replies.end();
    this.#resolve(trace === undefined ? { id: this.id } : { id: this.id, trace });
  }

  /** @internal */
  failed(error: FairleadError): void {
    this.state = "failed";
    this.#replies.end(error);
    this.#reject(error);
  }
}
