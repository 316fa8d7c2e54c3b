/** The rules that need no socket: when to come back, what an event stream says, what may wait. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { FairleadError } from "../src/errors.ts";
import { encoded, fromBase64, MAX_MESSAGE, randomId } from "../src/frames.ts";
import { Queue } from "../src/queue.ts";
import { Backoff, isFinal, mayReturn } from "../src/retry.ts";
import { EventParser } from "../src/sse.ts";

test("which close codes are final", () => {
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4003, 4499]) assert.equal(mayReturn(code), true, `${code}`);
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4999]) assert.equal(mayReturn(code), false, `${code}`);
});

test("which HTTP answers are final", () => {
  for (const status of [400, 401, 403, 404, 405, 410, 413]) assert.equal(isFinal(status), true, `${status}`);
  for (const status of [408, 426, 429, 500, 502, 503, 0]) assert.equal(isFinal(status), false, `${status}`);
});

test("pauses double up to a bound, with full jitter, and begin anew once settled", () => {
  const longest = new Backoff({}, () => 1);
  assert.deepEqual(Array.from({ length: 8 }, () => longest.next()), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  longest.settled();
  assert.equal(longest.next(), 500);
  assert.equal(new Backoff({}, () => 0).next(), 0);
});

test("the server knows best when to come back, once", () => {
  const backoff = new Backoff({}, () => 0.5);
  backoff.within = 10_000;
  assert.equal(backoff.next(1012), 5000);
  backoff.after = 7000;
  assert.equal(backoff.next(), 7500);
  assert.equal(backoff.next(), 1000);
});

test("an overloaded server is given more time", () => {
  assert.equal(new Backoff({}, () => 1).next(1013), 2000);
});

test("an event stream in any pieces is the same events", () => {
  const text = ": note\r\n\r\nid: c1\r\ndata: one\r\ndata: two\r\n\r\nevent: named\ndata:{}\n\nretry: 250\n\nid: lonely\n\rdata: \u00e9\r\r";
  const expected = [
    { event: "message", data: "one\ntwo", id: "c1" },
    { event: "named", data: "{}" },
    { event: "message", data: "\u00e9" },
  ];
  for (let size = 1; size <= text.length; size++) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.feed(text.slice(at, at + size)));
    assert.deepEqual(events, expected, `in pieces of ${size}`);
    assert.equal(parser.retry, 250);
  }
});

test("what the stream's end cut off is no event", () => {
  assert.deepEqual(new EventParser().feed("data: half"), []);
});

test("data of every kind, as it stands in a frame", () => {
  assert.equal(encoded("tëxt"), '"data":"tëxt"');
  assert.equal(encoded({ a: [1, null] }), '"data":{"a":[1,null]}');
  assert.equal(encoded(new Uint8Array([0, 255])), '"data":"AP8=","encoding":"base64"');
  assert.equal(encoded(new Uint8Array([9, 0, 255]).subarray(1).buffer), '"data":"CQD/","encoding":"base64"');
  assert.equal(encoded(new Uint8Array([9, 0, 255]).subarray(1)), '"data":"AP8=","encoding":"base64"');
  assert.throws(() => encoded(undefined), TypeError);
  assert.deepEqual(fromBase64("AP8="), new Uint8Array([0, 255]));
});

test("half a surrogate pair is U+FFFD, as in every UTF-8: a strict parser would not read the frame", () => {
  const half = "👍".slice(0, 1);
  assert.equal(encoded(`up ${half}`), '"data":"up \ufffd"');
  assert.equal(encoded({ [half]: [half, "👍".slice(1)] }), '"data":{"\ufffd":["\ufffd","\ufffd"]}');
  assert.equal(encoded(`\\${half}`), '"data":"\\\\\ufffd"');
  assert.equal(encoded("👍 \\ud83d \\\\ud83d \0"), `"data":${JSON.stringify("👍 \\ud83d \\\\ud83d \0")}`);
  assert.throws(() => encoded(half.repeat(MAX_MESSAGE / 3 + 1)), RangeError);
});

test("what is nested deeper than a server can pass on is refused", () => {
  const nested = (levels: number): unknown => JSON.parse('{"a":['.repeat(levels / 2) + "1" + "]}".repeat(levels / 2));
  encoded(nested(254));
  encoded(["\n".repeat(600), { a: " ".repeat(600) }]);
  assert.throws(() => encoded(nested(256)), /TypeError: a message's data is nested deeper than 254 levels/);
  assert.throws(() => encoded([nested(254)]), TypeError);
});

test("sizes are counted in bytes of UTF-8", () => {
  encoded("x".repeat(MAX_MESSAGE));
  encoded("é".repeat(MAX_MESSAGE / 2));
  assert.throws(() => encoded("é".repeat(MAX_MESSAGE / 2) + "x"), RangeError);
  assert.throws(() => encoded(new Uint8Array(MAX_MESSAGE + 1)), RangeError);
});

test("ids are 128 random bits", () => {
  assert.match(randomId(), /^[0-9a-f]{32}$/);
  assert.notEqual(randomId(), randomId());
});

test("a queue keeps order, and ends after what waited", async () => {
  const queue = new Queue<number>(10, assert.fail);
  const early = queue.next();
  for (const number of [1, 2, 3]) queue.push(number);
  queue.end();
  assert.deepEqual(await early, { value: 1, done: false });
  assert.deepEqual(await queue.next(), { value: 2, done: false });
  assert.deepEqual(await queue.next(), { value: 3, done: false });
  assert.deepEqual(await queue.next(), { value: undefined, done: true });
});

test("a queue that is too full drops the oldest, and says so once until it was read", async () => {
  let said = 0;
  const queue = new Queue<number>(2, () => (said += 1));
  for (const number of [1, 2, 3, 4]) queue.push(number);
  assert.equal(said, 1);
  assert.equal((await queue.next()).value, 3);
  assert.equal((await queue.next()).value, 4);
  for (const number of [5, 6, 7]) queue.push(number);
  assert.equal(said, 2);
});

test("a queue fails once, for the reader that waits or the next one", async () => {
  const queue = new Queue<number>(2, assert.fail);
  const waiting = [queue.next(), queue.next()] as const;
  queue.end(new Error("lost"));
  await assert.rejects(waiting[0], /lost/);
  assert.equal((await waiting[1]).done, true);
});

test("an error is what the problem says", () => {
  const errors = [{ loc: ["name"], msg: "missing", type: "missing" }];
  const error = new FairleadError({ status: 400, title: "Bad Request", detail: "no name", errors, trace: "t" }, { ref: 3 });
  assert.equal(`${error}`, "FairleadError: no name");
  assert.deepEqual([error.status, error.errors, error.trace, error.ref], [400, errors, "t", 3]);
  assert.equal(new FairleadError({ status: 500 }).message, "failed with status 500");
});
