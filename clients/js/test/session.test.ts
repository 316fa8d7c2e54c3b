/** What frames mean: frames in, frames and events out; no socket and no clock. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { FairleadError } from "../src/errors.ts";
import { encoded, type ServerFrame } from "../src/frames.ts";
import { type Message, Sent } from "../src/sent.ts";
import { Session } from "../src/session.ts";

let written: { type: string; ref?: number; id?: string; data?: unknown }[];
let delivered: Message[];
let events: [string, unknown][];
let now: number;
/** Milliseconds for which the monotonic clock stood still. */
let asleep: number;
/** What a server asked for before it goes. */
let within: number[];
let session: Session;
let heard: () => void;

function begin(cursor: string | null = null): void {
  written = [];
  delivered = [];
  events = [];
  now = asleep = 0;
  within = [];
  heard = () => {};
  session = new Session(
    {
      write: (frame) => written.push(JSON.parse(frame)),
      deliver: (message) => delivered.push(message),
      discard: (run) => (delivered = delivered.filter((message) => message.run !== run)),
      emit: (name, detail) => {
        events.push([name, detail]);
        heard();
      },
      returnWithin: (pause) => within.push(pause),
      now: () => [now, now + asleep],
    },
    cursor,
  );
}

beforeEach(() => begin());

const welcome = (members: object = {}): void =>
  session.received({ type: "welcome", connection: "c", cursor: null, recovered: null, window: 2, ...members } as ServerFrame);

function send(id: string, data: unknown = id): Sent {
  const sent = new Sent(id, encoded(data), 10, (it) => session.cancel(it));
  session.send(sent);
  return sent;
}

const said = (): (string | undefined)[] => written.map((frame) => frame.id);

async function replies(sent: Sent): Promise<unknown[]> {
  const found = [];
  for await (const reply of sent) found.push(reply.data);
  return found;
}

test("nothing is sent before the welcome, and no more than its window at a time", async () => {
  const [a, , c] = [send("a"), send("b"), send("c")];
  assert.deepEqual(written, []);
  welcome();
  assert.deepEqual(written, [
    { type: "message", ref: 1, id: "a", data: "a" },
    { type: "message", ref: 2, id: "b", data: "b" },
  ]);
  assert.deepEqual([a.state, c.state], ["sent", "queued"]);
  session.received({ type: "ack", ref: 1, trace: "t" });
  assert.deepEqual(await a, { id: "a", trace: "t" });
  assert.deepEqual(written[2], { type: "message", ref: 3, id: "c", data: "c" });
});

test("replies belong to their message, in order, and end with its ack", async () => {
  welcome();
  const sent = send("a");
  session.received({ type: "message", id: null, ref: 1, data: "one" });
  session.received({ type: "message", id: null, ref: 1, data: "AP8=", encoding: "base64" });
  session.received({ type: "message", id: "k1", data: "of the room", from: "ben" });
  session.received({ type: "ack", ref: 1 });
  assert.deepEqual(await replies(sent), ["one", new Uint8Array([0, 255])]);
  assert.deepEqual(delivered, [{ data: "of the room", id: "k1", from: "ben", attempt: 1 }]);
});

test("an error frame fails its message with the problem", async () => {
  welcome();
  const sent = send("a");
  const read = replies(sent);
  session.received({ type: "error", ref: 1, error: { status: 400, detail: "no name", errors: [] } });
  await assert.rejects(read, (error: FairleadError) => error.status === 400 && error.ref === 1 && error.id === "a");
  await assert.rejects(async () => await sent, /no name/);
  assert.deepEqual(events, []);
});

test("a failure that nobody watches is an event", () => {
  welcome();
  send("a");
  session.received({ type: "error", ref: 1, error: { status: 500 } });
  session.received({ type: "error", error: { status: 400, detail: "malformed" } });
  assert.deepEqual(events.map(([name, detail]) => [name, (detail as FairleadError).status]), [["error", 500], ["error", 400]]);
});

test("what is unacknowledged is sent again in order, with the same ids and growing refs", async () => {
  welcome();
  const [a, b] = [send("a"), send("b"), send("c")];
  session.received({ type: "ack", ref: 1 });
  session.lost();
  assert.equal(b.state, "queued");
  send("d");
  welcome();
  assert.deepEqual(said(), ["a", "b", "c", "b", "c"]);
  assert.deepEqual(written.map((frame) => frame.ref), [1, 2, 3, 4, 5]);
  session.received({ type: "ack", ref: 2 }); // of the old connection: nobody's
  assert.equal(b.state, "sent");
  session.received({ type: "ack", ref: 4 });
  await Promise.all([a, b]);
  assert.deepEqual(said().slice(5), ["d"]);
});

test("replies that were not read are forgotten when a message is sent again", async () => {
  welcome();
  const sent = send("a");
  session.received({ type: "message", id: null, ref: 1, data: "one" });
  session.lost();
  welcome();
  session.received({ type: "message", id: null, ref: 2, data: "one" });
  session.received({ type: "ack", ref: 2 });
  const found = [];
  for await (const { data, attempt } of sent) found.push([data, attempt]);
  assert.deepEqual(found, [["one", 2]]);
});

test("after two minutes nothing is repeated: the server would no longer know it", async () => {
  welcome();
  const [a, b] = [send("a"), send("b")];
  now = 60_000;
  session.lost();
  const late = send("late");
  welcome();
  assert.deepEqual(said().slice(2), ["a", "b"]);
  session.lost();
  now = 120_000;
  welcome();
  assert.deepEqual(said().slice(4), ["late"]);
  await assert.rejects(async () => await a, /too long ago/);
  await assert.rejects(async () => await b, /too long ago/);
  assert.equal(late.state, "sent");
});

test("the two minutes go by also while a laptop sleeps, and its monotonic clock stands still", async () => {
  welcome();
  const sent = send("a");
  session.lost();
  asleep = 3_600_000;
  welcome();
  assert.deepEqual(said(), ["a"]);
  await assert.rejects(async () => await sent, /too long ago/);
});

test("cancel asks the server where it has the message, and forgets it where it has not", async () => {
  welcome();
  const [a, , c] = [send("a"), send("b"), send("c")];
  c.cancel();
  await assert.rejects(async () => await c, (error: FairleadError) => error.status === 499);
  a.cancel();
  assert.deepEqual(written[2], { type: "cancel", ref: 1 });
  assert.equal(a.state, "sent");
  session.received({ type: "error", ref: 1, error: { status: 499 } });
  await assert.rejects(async () => await a, (error: FairleadError) => error.status === 499);
  a.cancel();
  assert.equal(written.length, 3);
});

test("what was cancelled is not sent again: nobody knows whether the server has heard it", async () => {
  welcome();
  const [a, b] = [send("a"), send("b")];
  a.cancel();
  session.lost();
  await assert.rejects(a.settled, (error: FairleadError) => error.status === 499);
  welcome();
  assert.deepEqual(said(), ["a", "b", undefined, "b"]);
  assert.equal(b.state, "sent");
});

test("a listener may cancel what is about to be given up", () => {
  welcome();
  const [a, b] = [send("a"), send("b")];
  a.cancel();
  b.cancel();
  heard = () => b.cancel();
  session.lost();
  assert.deepEqual([a.state, b.state, session.pending], ["failed", "failed", 0]);
});

test("a listener may cancel what is about to be sent", () => {
  welcome();
  send("given up");
  session.lost();
  now = 116_000;
  const late = send("late");
  heard = () => late.cancel();
  welcome();
  assert.deepEqual([said(), late.state], [["given up"], "failed"]);
});

test("a listener may send again what is given up, and the window holds", () => {
  welcome();
  for (const id of ["a", "b"]) send(id);
  session.lost();
  for (const id of ["c", "d", "e"]) send(id);
  now = 116_000;
  const again = ["first", "second"];
  heard = () => send(again.shift() as string);
  welcome({ recovered: true });
  assert.deepEqual(said().slice(2), ["c", "d"], "the 17th of 16 would be a final 4501");
  for (const ref of [3, 4]) session.received({ type: "ack", ref });
  assert.deepEqual(said().slice(4), ["e", "first"]);
});

test("a listener may close while what is old is given up", () => {
  welcome();
  send("old");
  session.lost();
  now = 116_000;
  send("new");
  heard = () => session.lost();
  welcome({ recovered: true });
  assert.deepEqual(said(), ["old"]);
});

test("asked whether it is there, a server says that it does not know that type: that is nobody's error", async () => {
  welcome();
  session.ask();
  session.ask();
  assert.deepEqual(written, [
    { type: "cancel", ref: 1 }, // of nothing: so that no ten in a row are malformed
    { type: "ping", ref: 1 },
    { type: "cancel", ref: 2 },
    { type: "ping", ref: 2 },
  ]);
  for (const ref of [1, 2]) session.received({ type: "error", ref, error: { status: 400, detail: "type ping is unknown" } });
  assert.deepEqual(events, []);
  const sent = send("a");
  session.received({ type: "ack", ref: 3 });
  await sent;
});

test("an id is what a server can read, too", () => {
  welcome();
  send("a\ud83d", "data");
  assert.deepEqual(said(), ["a\ufffd"]);
});

test("a loop that is left early cancels the message", async () => {
  welcome();
  const sent = send("a");
  session.received({ type: "message", id: null, ref: 1, data: "one" });
  for await (const reply of sent) if (reply.data === "one") break;
  assert.deepEqual(written[1], { type: "cancel", ref: 1 });
});

test("a message that waits for a worker says so", () => {
  welcome();
  const sent = send("a");
  session.received({ type: "waiting", ref: 1 });
  assert.equal(sent.state, "waiting");
  assert.equal(session.waiting, true);
  assert.deepEqual(events, [["waiting", sent]]);
  session.received({ type: "ack", ref: 1 });
  assert.equal(session.waiting, false);
});

test("the cursor is that of the newest message, cursor or gap", () => {
  welcome({ cursor: "k0" });
  assert.equal(session.cursor, "k0");
  session.received({ type: "message", id: "k1", data: 1 });
  assert.equal(session.cursor, "k1");
  session.received({ type: "message", id: null, data: 2 });
  assert.equal(session.cursor, "k1");
  session.received({ type: "cursor", cursor: "k2" });
  assert.equal(session.cursor, "k2");
  session.received({ type: "gap", cursor: "k3" });
  assert.equal(session.cursor, "k3");
  assert.deepEqual(events, [["gap", { cursor: "k3", reason: "history" }]]);
});

test("a recovered connection has no gap, and goes on from where it was until the replay has passed", () => {
  welcome({ cursor: "k1" });
  session.lost();
  welcome({ cursor: "k9", recovered: true });
  assert.equal(session.cursor, "k1");
  session.received({ type: "message", id: "k2", data: "missed" });
  assert.equal(session.cursor, "k2");
  assert.deepEqual(events, []);
});

test("what was not recovered is a gap, also where nothing could be asked", () => {
  welcome({ cursor: "k1" });
  session.lost();
  welcome({ cursor: "k9", recovered: false });
  assert.equal(session.cursor, "k9");
  begin();
  welcome();
  session.lost();
  welcome();
  begin("foreign");
  welcome({ recovered: false });
  assert.deepEqual(events, [["gap", { cursor: null, reason: "reconnect" }]]);
});

test("a restart discards what was not read of its run, and numbers what follows", async () => {
  welcome();
  session.received({ type: "message", id: null, run: "r", data: "old" });
  session.received({ type: "message", id: "k1", data: "of the room" });
  session.received({ type: "restart", run: "r", attempt: 2 });
  session.received({ type: "message", id: null, run: "r", data: "new" });
  assert.deepEqual(delivered.map(({ data, attempt }) => [data, attempt]), [["of the room", 1], ["new", 2]]);
  const sent = send("a");
  session.received({ type: "message", id: null, ref: 1, data: "old" });
  session.received({ type: "restart", run: "q", attempt: 2, ref: 1 });
  session.received({ type: "message", id: null, ref: 1, data: "new" });
  session.received({ type: "ack", ref: 1 });
  assert.deepEqual(await replies(sent), ["new"]);
  assert.deepEqual(events, [["restart", { run: "r", attempt: 2 }], ["restart", { run: "q", attempt: 2, id: "a" }]]);
});

test("presence, the end of a run and an unknown frame", () => {
  welcome();
  session.received({ type: "presence", join: ["ann"], leave: [] });
  session.received({ type: "end", run: "r" });
  session.received({ type: "of a later version" } as unknown as ServerFrame);
  assert.deepEqual(events, [["presence", { join: ["ann"], leave: [] }], ["end", { run: "r" }]]);
});

test("a server that is drained says when to come back", () => {
  welcome();
  session.received({ type: "reconnect", within: 1500 });
  assert.deepEqual(within, [1500]);
});

test("what is on its way when the connection ends for good has failed", async () => {
  welcome();
  const sent = send("a");
  session.ended(new FairleadError({ detail: "expired" }, { code: 4500 }));
  await assert.rejects(async () => await sent, (error: FairleadError) => error.code === 4500 && error.id === "a");
});

test("replies that nobody reads are bounded, and a late reader is told", async () => {
  welcome();
  const sent = send("a");
  for (let number = 0; number < 12; number++) session.received({ type: "message", id: null, ref: 1, data: number });
  session.received({ type: "ack", ref: 1 });
  await assert.rejects(replies(sent), /more than 10 replies/);
  assert.deepEqual(await sent, { id: "a" });
  assert.equal(written.length, 1);
});

test("a loop that was too slow cancels the message", async () => {
  welcome();
  const sent = send("a");
  for (let number = 0; number < 12; number++) session.received({ type: "message", id: null, ref: 1, data: number });
  await assert.rejects(replies(sent), /more than 10 replies/);
  assert.deepEqual(written.slice(1), [{ type: "cancel", ref: 1 }]);
});
