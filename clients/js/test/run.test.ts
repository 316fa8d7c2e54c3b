/** Streams that are kept by a server: cut, resumed, cancelled. The server is node's own, its answers are the test's. */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, afterEach, before, beforeEach, mock, test } from "node:test";

import { FairleadError, run, type RunOptions, subscribe } from "../src/index.ts";

type Answer = (response: ServerResponse) => void;

let server: Server;
let url: string;
let answers: Answer[];
let asked: { method: string; url: string; body: string; headers: IncomingMessage["headers"] }[];

before(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    asked.push({ method: request.method as string, url: request.url as string, body, headers: request.headers });
    const answer = answers.shift();
    if (answer) answer(response);
    else response.writeHead(500).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/ask`;
});
after(() => server.close());
beforeEach(() => {
  answers = [];
  asked = [];
});
afterEach(() => mock.timers.reset());

const stream =
  (text: string, cut = false, headers = {}): Answer =>
  (response) => {
    response.writeHead(200, { "content-type": "text/event-stream", ...headers });
    response.write(text, () => (cut ? response.destroy() : response.end()));
  };

const status =
  (code: number, problem?: object, headers = {}): Answer =>
  (response) => {
    response.writeHead(code, { ...(problem && { "content-type": "application/problem+json" }), ...headers });
    response.end(problem && JSON.stringify(problem));
  };

const BEGIN = 'event: run\ndata: {"run":"r1","key":"k1"}\n\n';
const END = "id: e\nevent: end\ndata: {}\n\n";
const retry = { first: 0 };

async function read(options: RunOptions = {}, start: typeof run = run): Promise<unknown[]> {
  const found: unknown[] = [];
  const running = start(url, { retry, ...options });
  running.on("gap", ({ reason }) => found.push({ gap: reason }));
  running.on("restart", ({ attempt }) => found.push({ restart: attempt }));
  for await (const { data } of running) found.push(data);
  return found;
}

const paths = (): string[] => asked.map(({ method, url }) => `${method} ${url}`);

test("a run that is kept is attached to again after a cut, behind what was read", async () => {
  answers = [
    stream(`${BEGIN}id: c1\ndata: "one"\n\nid: c2\ndata: "tw`, true),
    status(503, { status: 503 }, { "retry-after": "0" }),
    stream(`event: resumed\ndata: {"recovered":true}\n\n${BEGIN}id: c2\ndata: "two"\n\n`),
    stream(`event: resumed\ndata: {"recovered":true}\n\n${END}`),
  ];
  assert.deepEqual(await read({ body: { q: 1 } }), ["one", "two"]);
  assert.deepEqual(paths(), [
    "POST /ask",
    "GET /ask?run=r1&key=k1&cursor=c1",
    "GET /ask?run=r1&key=k1&cursor=c1",
    "GET /ask?run=r1&key=k1&cursor=c2",
  ]);
  assert.deepEqual([asked[0]?.body, asked[0]?.headers["content-type"]], ['{"q":1}', "application/json"]);
  assert.equal(asked[1]?.body, "");
});

test("204: it has ended, and all of it was read", async () => {
  for (const headers of [{}, { "fairlead-run-over": "seen" }]) {
    answers = [stream(`${BEGIN}id: c1\ndata: 1\n\n`), status(204, undefined, headers)];
    assert.deepEqual(await read(), [1]);
  }
});

test("204: the server keeps it no longer, so that it was not read to its end", async () => {
  const forgotten = status(204, undefined, { "fairlead-run-over": "forgotten" });
  const lost = (error: FairleadError): boolean =>
    error.status === 410 && error.detail === "the run is no longer kept; what it said after c1 is lost";
  answers = [stream(`${BEGIN}id: c1\ndata: 1\n\n`), forgotten];
  const found: unknown[] = [];
  const running = run(url, { retry });
  running.on("status", ({ status }) => found.push(status));
  await assert.rejects(async () => {
    for await (const { data } of running) found.push(data);
  }, lost);
  assert.deepEqual(found, ["open", 1, "reconnecting", "closed"]);
  answers = [forgotten];
  await assert.rejects(read({ cursor: "c1" }), lost);
});

test("what a resume could not give back is a gap, and so is what the server says of one", async () => {
  answers = [
    stream(`${BEGIN}id: c1\ndata: 1\n\n`),
    stream(`event: resumed\ndata: {"recovered":false}\n\nevent: gap\ndata: {"cursor":"c5"}\n\nid: c6\ndata: 6\n\n`),
    stream(END),
  ];
  assert.deepEqual(await read(), [1, { gap: "reconnect" }, { gap: "history" }, 6]);
  assert.equal(asked[2]?.url, "/ask?run=r1&key=k1&cursor=c6");
});

test("a restart numbers what follows", async () => {
  answers = [stream(`data: 1\n\nevent: restart\ndata: {"run":"r1","attempt":2}\n\ndata: 1\n\n${END}`)];
  const attempts = [];
  for await (const { data, attempt } of run(url)) attempts.push([data, attempt]);
  assert.deepEqual(attempts, [[1, 1], [1, 2]]);
});

test("a stream that is not kept fails when it is cut: it would not be the same one", async () => {
  answers = [stream("data: 1\n\n", true, { "fairlead-run": "r1" })];
  await assert.rejects(read(), /broke before its end/);
  assert.equal(asked.length, 1);
});

const NAMED = { "fairlead-run": "r1", "fairlead-run-token": "k1" };

test("a run beside a room with history is not begun again: the cursors are the room's", async () => {
  answers = [stream("id: room1\ndata: 1\n\n", true, NAMED), stream(END)];
  await assert.rejects(read(), /broke before its end/);
  assert.deepEqual(paths(), ["GET /ask"]);
});

test("a run that was found by a cursor is attached to again, where some of it was given back", async () => {
  const late = 'event: resumed\ndata: {"recovered":false}\n\nevent: gap\ndata: {"cursor":"c5"}\n\n';
  for (const begin of ['event: resumed\ndata: {"recovered":true}\n\n', late]) {
    asked = [];
    answers = [stream(`${begin}id: c6\ndata: 6\n\n`, true, NAMED), stream(END)];
    assert.equal((await read({ cursor: "c3" })).at(-1), 6);
    assert.deepEqual(paths(), ["GET /ask?cursor=c3", "GET /ask?run=r1&key=k1&cursor=c6"]);
  }
});

test("where a page may not read who it is, it is asked for by its cursor", async () => {
  answers = [stream('event: resumed\ndata: {"recovered":true}\n\nid: c6\ndata: 6\n\n', true), stream(END)];
  assert.deepEqual(await read({ cursor: "c3" }), [6]);
  assert.deepEqual(paths(), ["GET /ask?cursor=c3", "GET /ask?cursor=c6"]);
});

test("who attached by an id attaches again: nothing can begin there", async () => {
  answers = [stream(": nothing yet\n\n", true, NAMED), stream(`id: c4\ndata: 4\n\n${END}`)];
  const found = [];
  for await (const { data } of run(`${url}?run=r1&key=k1`, { retry, cursor: "c3" })) found.push(data);
  assert.deepEqual(found, [4]);
  assert.deepEqual(paths(), ["GET /ask?run=r1&key=k1&cursor=c3", "GET /ask?run=r1&key=k1&cursor=c3"]);
});

test("a stream without a byte for 45 s is taken for cut, and so is a request for the rest of it", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const pass = async (seconds: number): Promise<void> => {
    await new Promise(setImmediate);
    mock.timers.tick(seconds * 1000);
    await new Promise(setImmediate);
  };
  let requests = 0;
  let says!: (text: string) => void;
  const fetch = async (_: unknown, { signal }: RequestInit): Promise<Response> => {
    const aborted = new Promise<never>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    if (++requests === 2) return aborted;
    const body = new ReadableStream<string>({
      start(controller) {
        says = (text) => controller.enqueue(text);
        aborted.catch((reason) => controller.error(reason));
      },
    });
    return new Response(body.pipeThrough(new TextEncoderStream()), { headers: { "content-type": "text/event-stream" } });
  };
  const running = run(url, { retry, fetch: fetch as never });
  const told: string[] = [];
  running.on("status", ({ status }) => told.push(status));
  const items = running[Symbol.asyncIterator]();
  const first = items.next();
  says(`${BEGIN}id: c1\ndata: 1\n\n`);
  assert.equal((await first).value?.data, 1);
  await pass(100); // while nobody reads
  const rest = items.next();
  await pass(44);
  says(": still here\n\n");
  await pass(44);
  assert.deepEqual(told, ["open"]);
  await pass(1);
  assert.deepEqual(told, ["open", "reconnecting"]);
  await pass(1);
  assert.equal(requests, 2);
  await pass(44);
  assert.equal(told.length, 2);
  await pass(1);
  assert.deepEqual(told, ["open", "reconnecting", "reconnecting"]);
  await pass(1);
  says(END);
  assert.equal((await rest).done, true);
  assert.deepEqual(told.slice(3), ["open", "closed"]);
});

test("what was refused is a problem, and a run is asked for once only", async () => {
  answers = [status(503, { status: 503, detail: "no worker" })];
  await assert.rejects(read(), (error: FairleadError) => error.status === 503 && error.detail === "no worker");
  answers = [stream(`${BEGIN}id: c1\ndata: 1\n\n`), status(410, { status: 410 })];
  await assert.rejects(read(), (error: FairleadError) => error.status === 410);
  answers = [stream(`data: 1\n\nevent: error\ndata: {"status":500,"trace":"t"}\n\n${END}`)];
  await assert.rejects(read(), (error: FairleadError) => error.trace === "t");
  answers = [(response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>a proxy")];
  await assert.rejects(read(), /no event stream/);
});

test("a room is asked for until it is there, and again from where it was", async () => {
  answers = [
    status(503),
    stream("id: c1\ndata: 1\n\nevent: cursor\ndata: {\"cursor\":\"c4\"}\n\nretry: 1\n\n"),
    stream(END),
  ];
  assert.deepEqual(await read({}, subscribe), [1]);
  assert.deepEqual(paths(), ["GET /ask", "GET /ask", "GET /ask?cursor=c4"]);
});

test("a room without history has a gap after each cut", async () => {
  answers = [stream("data: 1\n\n"), stream(`data: 2\n\n${END}`)];
  assert.deepEqual(await read({}, subscribe), [1, { gap: "reconnect" }, 2]);
});

test("cancel stops the run on the server, by its key, and ends the loop", async () => {
  answers = [(response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "fairlead-run": "r1", "fairlead-run-token": "k1", "fairlead-trace": "t" });
    response.write("data: 1\n\n");
  }, status(204)];
  const running = run(`${url}?a=b`, { headers: { "X-Mine": "x" }, token: () => "secret" });
  for await (const _ of running) await running.cancel();
  assert.deepEqual([running.id, running.key, running.trace], ["r1", "k1", "t"]);
  assert.deepEqual(paths(), ["GET /ask?a=b", "DELETE /ask?a=b&run=r1&key=k1"]);
  assert.deepEqual([asked[1]?.headers["x-mine"], asked[1]?.headers["authorization"]], ["x", "Bearer secret"]);
});

test("a cancel that the server refuses throws", async () => {
  answers = [(response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(BEGIN + "data: 1\n\n");
  }, status(403, { status: 403, detail: "not yours" })];
  const running = run(url);
  for await (const _ of running) await assert.rejects(running.cancel(), /not yours/);
});

/** A stream whose request is out and unanswered, its loop, and a cancel that waits for it. */
async function begun(start: typeof run = run) {
  let running!: ReturnType<typeof run>;
  let reading!: Promise<unknown[]>;
  const response = await new Promise<ServerResponse>((heard) => {
    answers.unshift(heard);
    running = start(url, { retry });
    reading = all(running);
  });
  return { running, reading, cancelling: running.cancel(), answer: (answer: Answer) => answer(response) };
}

async function all(running: AsyncIterable<{ data: unknown }>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const { data } of running) found.push(data);
  return found;
}

test("a cancel before the head waits for it, and stops the run", async () => {
  answers = [status(204)];
  const { reading, cancelling, answer } = await begun();
  answer((response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "fairlead-run": "r1", "fairlead-run-token": "k1" });
    response.write(`${BEGIN}data: 1\n\n`);
  });
  await cancelling;
  assert.deepEqual(await reading, []);
  assert.deepEqual(paths(), ["GET /ask", "DELETE /ask?run=r1&key=k1"]);
});

test("a cancel before the head of what was refused, is over, or is no run: there is nothing to stop", async () => {
  for (const nothing of [status(503, { status: 503 }), status(204), stream("data: 1\n\n")]) {
    const { reading, cancelling, answer } = await begun();
    answer(nothing);
    await cancelling;
    assert.deepEqual(await reading, []);
  }
  assert.deepEqual(paths(), ["GET /ask", "GET /ask", "GET /ask"]);
});

test("a cancel before a head that never comes throws: nobody says which run it is", async () => {
  const { reading, cancelling, answer } = await begun();
  answer((response) => response.destroy());
  await assert.rejects(cancelling, (error) => error instanceof FairleadError && /the run may go on/.test(error.detail));
  assert.deepEqual(await reading, []);
});

test("a cancel of which the server does not hear throws", async () => {
  answers = [stream(`${BEGIN}data: 1\n\n`), (response) => response.destroy()];
  const running = run(url);
  for await (const _ of running) await assert.rejects(running.cancel(), /the run may go on, as no answer came/);
});

test("a room has no run that could go on, and is not asked for again", async () => {
  const { running, reading, cancelling, answer } = await begun(subscribe);
  const told: string[] = [];
  running.on("status", ({ status }) => told.push(status));
  answer((response) => response.destroy());
  await cancelling;
  assert.deepEqual(await reading, []);
  assert.deepEqual(told, ["closed"]);
});

test("begin where an earlier reader was", async () => {
  answers = [stream(END)];
  await read({ cursor: "c3" });
  assert.deepEqual(paths(), ["GET /ask?cursor=c3"]);
});
