/**
 * One `fairlead.v1` connection that comes back by itself, and what has to be said over it.
 * It knows nothing of the page; docs/protocol.md says what the frames mean.
 */

const SUBPROTOCOL = "fairlead.v1";

/** Milliseconds: the first pause at most, the longest, and how long a handshake may take. */
const FIRST = 500;
const LONGEST = 15_000;
const PATIENCE = 10_000;

/** So many milliseconds up, and the next loss begins with the first pause again. */
const SETTLED = 5_000;

/** @param {number} bytes @returns {string} that many random bytes in hex */
export function randomHex(bytes) {
  const drawn = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A W3C trace context of our own: the trace then begins at the key that was pressed. */
export const newTrace = () => `00-${randomHex(16)}-${randomHex(8)}-01`;

/** Whether to come back after a close, by its code: what says "no" stays no. */
const mayReturn = (code) => code !== 1000 && code !== 1008 && !(code >= 4500 && code < 5000);

/** Full jitter: clients that were cut off together must not come back together. */
const jittered = (most) => Math.random() * most;

export class Connection {
  /** Connections that were made so far. */
  count = 0;

  #endpoint;
  #on;
  #channel = null;
  #socket = null;
  #upSince = null;
  #losses = 0;
  #within = null;
  #timer = 0;
  #ref = 0;
  #window = 1;
  #outbox = [];
  #cursors = new Map();

  /**
   * @param {(channel: string) => URL} endpoint where a channel is, over HTTP
   * @param on what the page does with: state({name, until, detail}), message(frame),
   *   welcome(frame), settled(item, frame), failed(item, problem), waiting(item), problem(problem)
   */
  constructor(endpoint, on) {
    this.#endpoint = endpoint;
    this.#on = on;
  }

  /** Leave the channel that was and be in this one. What waits for another goes on waiting. */
  join(channel) {
    this.#channel = channel;
    this.#losses = 0;
    this.#connect();
  }

  /** Do not wait for the end of the pause. */
  tryNow() {
    if (this.#channel !== null && this.#socket === null) this.#connect();
  }

  /**
   * Have something said, however many connections that takes.
   *
   * @param item {id, data, traceparent, channel}; `id` must be unique: it makes a repetition known
   *   as one. With a channel it is said there only.
   */
  send(item) {
    this.#outbox.push({ item, ref: null });
    this.#pump();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#on.state({ name: "connecting" });
    const url = this.#endpoint(this.#channel);
    const cursor = this.#cursors.get(this.#channel);
    if (cursor) url.searchParams.set("cursor", cursor);
    const asked = new URL(url);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url, SUBPROTOCOL);
    this.#socket = socket;
    // What an old socket still has to say is nobody's any more.
    const mine = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onmessage = mine((event) => this.#received(JSON.parse(event.data)));
    socket.onclose = mine((event) => this.#lost(event.code, event.reason, asked));
    this.#timer = setTimeout(() => socket.close(), PATIENCE);
  }

  /** Forget the socket; what it has not acknowledged is to be said again. */
  #drop() {
    const socket = this.#socket;
    this.#socket = this.#upSince = null;
    for (const entry of this.#outbox) entry.ref = null;
    socket?.close();
  }

  async #lost(code, reason, asked) {
    clearTimeout(this.#timer);
    const opened = this.#upSince !== null;
    if (opened && performance.now() - this.#upSince >= SETTLED) this.#losses = 0;
    this.#drop();
    if (opened && !mayReturn(code)) {
      this.#on.state({ name: "ended", detail: reason || `closed with ${code}` });
      return;
    }
    if (!opened) {
      const channel = this.#channel;
      const refusal = await whyRefused(asked);
      if (channel !== this.#channel || this.#socket !== null) return;
      if (refusal !== null) {
        this.#on.state({ name: "ended", detail: refusal });
        return;
      }
    }
    const most = this.#within ?? Math.min(LONGEST, FIRST * 2 ** this.#losses);
    this.#within = null;
    this.#losses += 1;
    const pause = jittered(most);
    this.#on.state({ name: "reconnecting", until: performance.now() + pause });
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  #received(frame) {
    switch (frame.type) {
      case "welcome":
        return this.#welcomed(frame);
      case "message":
        this.#passed(frame.id);
        return this.#on.message(frame, this.#channel);
      case "cursor":
      case "gap":
        return this.#passed(frame.cursor);
      case "ack":
        return this.#answered(frame, (item) => this.#on.settled(item, frame));
      case "error":
        if (frame.ref === undefined) return this.#on.problem(frame.error);
        return this.#answered(frame, (item) => this.#on.failed(item, frame.error));
      case "waiting":
        return this.#on.waiting(this.#outbox.find((entry) => entry.ref === frame.ref)?.item);
      case "reconnect":
        // The close that follows comes from an edge that goes: it knows best when to return.
        this.#within = frame.within;
    }
    // Whatever else a later edge says is none of an older page's business.
  }

  #welcomed(frame) {
    clearTimeout(this.#timer);
    this.#upSince = performance.now();
    this.#window = frame.window;
    this.count += 1;
    this.#passed(frame.cursor);
    this.#on.state({ name: "connected" });
    this.#on.welcome(frame, this.#channel);
    this.#pump();
  }

  /** @param {string | null} cursor where the room stands now */
  #passed(cursor) {
    if (cursor) this.#cursors.set(this.#channel, cursor);
  }

  /** `ack` and `error` are the last word on a ref. */
  #answered(frame, tell) {
    const index = this.#outbox.findIndex((entry) => entry.ref === frame.ref);
    if (index < 0) return;
    const [entry] = this.#outbox.splice(index, 1);
    tell(entry.item);
    this.#pump();
  }

  /** Send what waits, in order, as much as may be unacknowledged. */
  #pump() {
    if (this.#upSince === null) return;
    let free = this.#window - this.#outbox.filter((entry) => entry.ref !== null).length;
    for (const entry of this.#outbox) {
      if (free <= 0) return;
      const { id, data, traceparent, channel } = entry.item;
      if (entry.ref !== null || (channel && channel !== this.#channel)) continue;
      entry.ref = ++this.#ref;
      free -= 1;
      this.#socket.send(JSON.stringify({ type: "message", ref: entry.ref, id, data, traceparent }));
    }
  }
}

/**
 * Why a handshake failed, which a browser is not told: a plain GET of the same URL says it.
 *
 * @returns {Promise<string | null>} null where another try may succeed
 */
async function whyRefused(url) {
  try {
    const answer = await fetch(url, { cache: "no-store" });
    // 426: it would have been accepted. 404: no worker has told the edge of its routes yet.
    if (answer.status >= 500 || [404, 426, 429].includes(answer.status)) return null;
    return (await answer.json()).detail ?? `refused with ${answer.status}`;
  } catch {
    return null;
  }
}
