/** A connection that is lost, refused, drained: over a socket that the test plays. */
import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { type ConnectOptions, connect, type Connection, type FairleadError, type StatusChange } from "../src/index.ts";

class Socket {
  static all: Socket[] = [];
  static get last(): Socket {
    return Socket.all.at(-1) as Socket;
  }
  onmessage?: (event: { data: string }) => void;
  onclose?: (event: { code: number; reason: string }) => void;
  onerror?: () => void;
  sent: Record<string, unknown>[] = [];
  closed = false;
  url: URL;
  constructor(url: URL, protocol: string) {
    assert.equal(protocol, "fairlead.v1");
    this.url = url;
    Socket.all.push(this);
  }
  send(frame: string): void {
    this.sent.push(JSON.parse(frame));
  }
  close(): void {
    this.closed = true;
  }
  says(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  welcome(members: object = {}): void {
    this.says({ type: "welcome", connection: "c", cursor: null, recovered: null, window: 16, ...members });
  }
  closes(code: number, reason = ""): void {
    this.onclose?.({ code, reason });
  }
}

const open: Connection[] = [];
afterEach(() => {
  for (const connection of open.splice(0)) connection.close();
  Socket.all = [];
  mock.timers.reset();
});

const answering = (status: number, problem: object = {}, headers: Record<string, string> = {}): typeof fetch =>
  (async (url: URL) => {
    asked.push(url.href);
    return Response.json({ status, ...problem }, { status, headers: { "content-type": "application/problem+json", ...headers } });
  }) as typeof fetch;

let asked: string[] = [];

function begin(options: ConnectOptions = {}): [Connection, StatusChange[]] {
  asked = [];
  const retry = { first: 0 };
  const made = connect("https://host/room?channel=a", { retry, fetch: answering(426), ...options, WebSocket: Socket as never });
  open.push(made);
  const statuses: StatusChange[] = [];
  made.on("status", (change) => statuses.push(change));
  return [made, statuses];
}

async function until<T>(found: () => T | undefined | false): Promise<T> {
  for (let tries = 0; tries < 2000; tries++) {
    const value = found();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error(`never: ${found}`);
}

const attempt = (number: number): Promise<Socket> => until(() => Socket.all[number - 1]);

test("it comes back where it was, and says again what was not acknowledged", async () => {
  const [connection, statuses] = begin();
  assert.equal(Socket.last.url.href, "wss://host/room?channel=a");
  Socket.last.welcome({ cursor: "k 0" });
  const sent = connection.send("hello", { id: "mine", traceparent: "00-1" });
  const frame = { type: "message", id: "mine", data: "hello", traceparent: "00-1" };
  assert.deepEqual(Socket.last.sent, [{ ...frame, ref: 1 }]);
  Socket.last.closes(1006);
  const second = await attempt(2);
  assert.equal(second.url.href, "wss://host/room?channel=a&cursor=k+0");
  second.welcome({ cursor: "k 0", recovered: true });
  assert.deepEqual(second.sent, [{ ...frame, ref: 2 }]);
  second.says({ type: "ack", ref: 2 });
  assert.deepEqual(await sent, { id: "mine" });
  assert.deepEqual(statuses.map(({ status }) => status), ["open", "reconnecting", "open"]);
  assert.deepEqual(asked, []);
});

test("a final close code ends it, and its loop", async () => {
  for (const code of [1008, 4500, 4501]) {
    const [connection] = begin();
    Socket.last.welcome();
    const sent = connection.send("hello");
    Socket.last.closes(code, "why");
    const final = (error: FairleadError): boolean => error.code === code && error.detail === "why";
    await assert.rejects(async () => await sent, final);
    await assert.rejects(async () => {
      for await (const _ of connection);
    }, final);
    assert.ok(final((await connection.closed) as FairleadError));
    assert.equal(connection.status, "closed");
  }
});

test("the end of the run is the end of the loop", async () => {
  const [connection] = begin();
  Socket.last.welcome();
  Socket.last.says({ type: "message", id: null, data: "last", run: "r" });
  Socket.last.says({ type: "end", run: "r" });
  Socket.last.closes(1000);
  const read = [];
  for await (const { data } of connection) read.push(data);
  assert.deepEqual(read, ["last"]);
  assert.equal(await connection.closed, undefined);
});

test("a refused handshake is explained by a plain GET of the same URL", async () => {
  const [connection] = begin({ fetch: answering(403, { detail: "not you" }), token: () => "secret" });
  (await attempt(1)).closes(1006);
  const error = (await connection.closed) as FairleadError;
  assert.deepEqual([error.status, error.detail], [403, "not you"]);
  assert.deepEqual(asked, ["https://host/room?channel=a&access_token=secret"]);
});

test("a server that is busy is asked again, when it said", async () => {
  const [, statuses] = begin({ fetch: answering(503, {}, { "retry-after": "0.02" }) });
  Socket.last.closes(1006);
  await attempt(2);
  assert.deepEqual(statuses, [{ status: "reconnecting", pause: 20 }]);
});

test("each attempt has a fresh token, and one that cannot be had is asked for again", async () => {
  let asked = 0;
  const [connection] = begin({
    token: async () => {
      asked += 1;
      if (asked === 2) throw new Error("offline");
      return `t${asked}`;
    },
  });
  const failures: string[] = [];
  connection.on("error", (error) => failures.push(error.message));
  const first = await attempt(1);
  assert.equal(first.url.searchParams.get("access_token"), "t1");
  first.welcome();
  first.closes(1012);
  assert.equal((await attempt(2)).url.searchParams.get("access_token"), "t3");
  assert.deepEqual(failures, ["no token: offline"]);
  Socket.last.welcome();
  await connection.refresh();
  await connection.refresh("given");
  assert.deepEqual(Socket.last.sent, [{ type: "refresh", token: "t4" }, { type: "refresh", token: "given" }]);
});

test("a drained server says within what time to come back", async () => {
  const [, statuses] = begin({ retry: { first: 60_000 } });
  Socket.last.welcome();
  Socket.last.says({ type: "reconnect", within: 5 });
  Socket.last.closes(1012);
  await attempt(2);
  assert.ok((statuses.at(-1)?.pause ?? 99) <= 5);
});

test("nobody has to wait for the end of a pause", async () => {
  const [connection] = begin({ retry: { first: 60_000 } });
  Socket.last.welcome();
  Socket.last.closes(1006);
  await until(() => connection.status === "reconnecting");
  connection.reconnect();
  await attempt(2);
});

test("what a drained server said is of one return: those who find nobody then spread out", async () => {
  const [, statuses] = begin({ retry: { first: 60_000 } });
  Socket.last.welcome();
  Socket.last.says({ type: "reconnect", within: 5 });
  Socket.last.closes(1012);
  (await attempt(2)).closes(1006);
  await until(() => statuses.length === 3);
  assert.ok((statuses.at(-1)?.pause ?? 0) > 5);
});

/** Time for whatever would go on. */
const later = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

test("a listener may close, whatever it hears", async () => {
  const [connection, statuses] = begin();
  connection.on("status", ({ status }) => status === "reconnecting" && connection.close());
  Socket.last.welcome();
  Socket.last.closes(1006);
  await later();
  assert.deepEqual(statuses.map(({ status }) => status), ["open", "reconnecting", "closed"]);
  assert.deepEqual([connection.status, Socket.all.length], ["closed", 1]);
});

test("a listener may close when there is no token", async () => {
  const [connection] = begin({ token: () => Promise.reject(new Error("logged out")) });
  connection.on("error", () => connection.close());
  await connection.closed;
  await later();
  assert.deepEqual([connection.status, Socket.all.length], ["closed", 0]);
});

test("a listener may reconnect at once when there is no token, which is asked for once more", async () => {
  let asked = 0;
  const [connection] = begin({
    token: async () => {
      asked += 1;
      if (asked === 2) throw new Error("offline");
      return "t";
    },
  });
  connection.on("error", () => connection.reconnect());
  (await attempt(1)).welcome();
  Socket.last.closes(1006);
  (await attempt(2)).welcome();
  await later();
  assert.deepEqual([asked, Socket.all.length], [3, 2]);
});

test("a listener may close when a cancelled message is lost with its connection", async () => {
  const [connection] = begin();
  connection.on("error", () => connection.close());
  Socket.last.welcome();
  connection.send("hello").cancel();
  Socket.last.closes(1006);
  await later();
  assert.deepEqual([connection.status, Socket.all.length], ["closed", 1]);
});

test("a listener may reconnect at once, by one connection", async () => {
  const [connection] = begin();
  let once = true;
  connection.on("status", ({ status }) => {
    if (status === "reconnecting" && once) connection.reconnect();
    once &&= status !== "reconnecting";
  });
  Socket.last.welcome();
  Socket.last.closes(1006);
  await later();
  assert.equal(Socket.all.length, 2);
});

test("the error of a socket, which a close follows, has a listener: the package ws would throw it", () => {
  begin();
  Socket.last.onerror?.();
  assert.ok(Socket.last.onerror);
});

test("what can never be connected to is an error that says why", async () => {
  class Mixed {
    constructor() {
      throw new DOMException("may not be initiated from a page loaded over HTTPS", "SecurityError");
    }
  }
  const connection = connect("http://host/room", { WebSocket: Mixed as never });
  const statuses: string[] = [];
  connection.on("status", ({ status, error }) => statuses.push(`${status}: ${error?.message}`));
  const why = "no connection can be made: may not be initiated from a page loaded over HTTPS";
  await assert.rejects(async () => await connection.send("hello"), new RegExp(why));
  assert.equal((await connection.closed)?.message, why);
  assert.deepEqual(statuses, [`closed: ${why}`]);
});

/** Let so many seconds pass, each by itself. */
const pass = (seconds: number): void => {
  for (let second = 0; second < seconds; second++) mock.timers.tick(1000);
};

test("a server that says nothing is asked, and left if it does not answer", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const [, statuses] = begin();
  Socket.last.welcome();
  const asked = [{ type: "cancel", ref: 1 }, { type: "ping", ref: 1 }];
  pass(19);
  assert.deepEqual(Socket.last.sent, []);
  pass(1);
  assert.deepEqual(Socket.last.sent, asked);
  pass(9);
  assert.equal(Socket.last.closed, false);
  pass(1);
  assert.equal(Socket.all[0]?.closed, true);
  assert.equal(statuses.at(-1)?.status, "reconnecting");
  mock.timers.tick(1);
  assert.equal(Socket.all.length, 2);
});

test("a server that answers is kept, however long a message takes", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const [connection, statuses] = begin();
  Socket.last.welcome();
  connection.send("a long one").catch(() => {});
  const asked = new Set<unknown>();
  for (let second = 0; second < 600; second++) {
    pass(1);
    const { type, ref } = Socket.last.sent.at(-1) ?? {};
    if (type === "ping" && !asked.has(ref)) Socket.last.says({ type: "error", ref, error: { status: 400 } });
    asked.add(ref);
  }
  assert.equal(asked.size, 21);
  assert.deepEqual(statuses, [{ status: "open" }]);
});

test("a server that talks is not asked", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  begin();
  Socket.last.welcome();
  for (let second = 0; second < 300; second++) {
    pass(1);
    Socket.last.says({ type: "cursor", cursor: `k${second}` });
  }
  assert.deepEqual(Socket.last.sent, []);
});

test("a device that wakes up, or has another network, asks whether the server is still there", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const page = new EventTarget();
  const document = { hidden: false };
  const listening: (AbortSignal | undefined)[] = [];
  const addEventListener = (name: string, listener: () => void, options: AddEventListenerOptions): void => {
    listening.push(options.signal);
    page.addEventListener(name, listener, options);
  };
  const borrowed = { addEventListener, document };
  Object.assign(globalThis, borrowed);
  try {
    const [connection, statuses] = begin();
    const first = Socket.last;
    first.welcome();
    const heard = (name: string): number => {
      page.dispatchEvent(new Event(name));
      return first.sent.splice(0).filter(({ type }) => type === "ping").length;
    };
    assert.deepEqual(["online", "pageshow", "visibilitychange"].map(heard), [1, 1, 1]);
    document.hidden = true;
    assert.equal(heard("visibilitychange"), 0);
    assert.equal(heard("online"), 1);
    pass(9);
    assert.deepEqual(statuses.map(({ status }) => status), ["open"]);
    pass(1);
    assert.deepEqual(statuses.map(({ status }) => status), ["open", "reconnecting"]);
    page.dispatchEvent(new Event("online"));
    assert.equal(Socket.all.length, 2);
    connection.close();
    assert.deepEqual(listening.map((signal) => signal?.aborted), [true, true, true]);
  } finally {
    for (const name of Object.keys(borrowed)) delete (globalThis as Record<string, unknown>)[name];
  }
});

test("what an old socket says is nobody's any more", async () => {
  const [connection] = begin();
  const first = Socket.last;
  first.welcome();
  first.closes(1006);
  (await attempt(2)).welcome({ connection: "second" });
  first.says({ type: "message", id: null, data: "late" });
  first.closes(4500);
  assert.equal(connection.status, "open");
  assert.equal(connection.id, "second");
});

test("too much at once fails without being sent", async () => {
  const [connection] = begin({ queue: 2 });
  connection.send(1);
  connection.send(2);
  await assert.rejects(async () => await connection.send(3), /2 messages are on their way/);
  connection.close();
  await assert.rejects(async () => await connection.send(4), /closed/);
});

test("a signal closes it, and the status of a waiting message is the connection's", async () => {
  const stop = new AbortController();
  const [connection, statuses] = begin({ signal: stop.signal });
  Socket.last.welcome();
  connection.send("hello").catch(() => {});
  Socket.last.says({ type: "waiting", ref: 1 });
  Socket.last.says({ type: "ack", ref: 1 });
  stop.abort();
  assert.deepEqual(statuses.map(({ status }) => status), ["open", "waiting", "open", "closed"]);
  assert.equal(Socket.last.closed, true);
  assert.equal(await connection.closed, undefined);
});

test("messages that nobody reads are bounded, with a gap", async () => {
  const [connection] = begin({ buffer: 2 });
  const gaps: unknown[] = [];
  connection.on("gap", (gap) => gaps.push(gap));
  Socket.last.welcome();
  for (let number = 1; number <= 5; number++) Socket.last.says({ type: "message", id: `k${number}`, data: number });
  assert.deepEqual(gaps, [{ cursor: "k3", reason: "unread" }]);
  connection.close();
  const read = [];
  for await (const { data } of connection) read.push(data);
  assert.deepEqual(read, [4, 5]);
});

test("a run is cancelled by its id, another's with its key", async () => {
  const [connection] = begin();
  Socket.last.welcome();
  await connection.cancel("r");
  await connection.cancel("q", "k");
  assert.deepEqual(Socket.last.sent, [{ type: "cancel", run: "r" }, { type: "cancel", run: "q", key: "k" }]);
});

test("who cannot be asked to cancel a run is an error", async () => {
  const [connection] = begin({ retry: { first: 60_000 } });
  await assert.rejects(connection.cancel("r"), /the run may go on/);
  Socket.last.welcome();
  Socket.last.closes(1006);
  await assert.rejects(connection.cancel("r"), (error: FairleadError) => /the connection is not open/.test(error.detail));
  await connection.refresh("fresh"); // the next attempt asks for one of its own
  connection.close();
  await assert.rejects(connection.cancel("r"), /the run may go on/);
});
