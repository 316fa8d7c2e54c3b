/** A connection that is lost, refused, drained: over a socket that the test plays. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { type ConnectOptions, connect, type Connection, type FairleadError, type StatusChange } from "../src/index.ts";

class Socket {
  static all: Socket[] = [];
  static get last(): Socket {
    return Socket.all.at(-1) as Socket;
  }
  onmessage?: (event: { data: string }) => void;
  onclose?: (event: { code: number; reason: string }) => void;
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

test("a run is cancelled by its id, another's with its key", () => {
  const [connection] = begin();
  Socket.last.welcome();
  connection.cancel("r");
  connection.cancel("q", "k");
  assert.deepEqual(Socket.last.sent, [{ type: "cancel", run: "r" }, { type: "cancel", run: "q", key: "k" }]);
});
