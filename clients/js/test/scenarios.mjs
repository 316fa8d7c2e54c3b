/**
 * What an application does with the client, one scenario a run: `node scenarios.mjs NAME ARGUMENT…`.
 * It prints one JSON line per outcome; tests/clients/test_js.py starts the servers and judges.
 */
import { existsSync } from "node:fs";

import { connect, FairleadError, run, subscribe } from "../dist/index.js";

const say = (outcome) => console.log(JSON.stringify(outcome));

/** As JSON shows it: bytes are told from lists. */
const shown = (data) => (data instanceof Uint8Array ? { bytes: [...data] } : data);

const retry = { first: 100 };

/** What a message or a stream said, and the status of its failure. */
async function outcome(items) {
  const found = [];
  try {
    for await (const { data } of items) found.push(shown(data));
  } catch (error) {
    if (!(error instanceof FairleadError)) throw error;
    return [found, error];
  }
  return [found, null];
}

const scenarios = {
  async echo(url) {
    const connection = connect(url);
    for (const data of ["text", { a: [1, null] }, new Uint8Array([0, 255])]) {
      for await (const reply of connection.send(data)) say({ reply: shown(reply.data) });
    }
    const { id } = await connection.send("last", { id: "of-my-own" });
    say({ acknowledged: id });
    connection.close();
  },

  async room(url, count) {
    const connection = connect(url);
    const sent = Array.from({ length: Number(count) }, (_, number) => connection.send(number));
    say({ acknowledged: (await Promise.all(sent)).length });
    const read = [];
    for await (const { data } of connection) if (read.push(data) === sent.length) break;
    say({ read });
    connection.close();
  },

  async errors(url) {
    const connection = connect(url);
    for (const data of ["before", "while", "reject", "x".repeat(2 ** 20 + 1)]) {
      const [replies, { status, detail }] = await outcome(connection.send(data));
      say({ replies, status, detail });
    }
    connection.close();
  },

  async cancel(url, ...notes) {
    const connection = connect(url);
    const stop = new AbortController();
    const stops = [(sent) => sent.cancel(), () => {}, () => stop.abort()];
    for (const [index, note] of notes.entries()) {
      const sent = connection.send(note, { signal: stop.signal });
      for await (const _ of sent) {
        stops[index](sent);
        if (index === 1) break;
        await sent.catch(() => {});
        break;
      }
      say({ status: await sent.catch((error) => error.status) });
    }
    connection.close();
  },

  async waiting(url) {
    const connection = connect(url);
    connection.on("status", ({ status }) => say({ status }));
    await connection.send("hello");
    say({ acknowledged: true });
    connection.close();
  },

  async returns(url) {
    const connection = connect(url, { retry });
    connection.on("gap", ({ reason }) => say({ gap: reason }));
    await connection.send("before");
    say({ acknowledged: "before" });
    connection.on("status", async ({ status }) => {
      say({ status });
      if (status !== "reconnecting" || sent) return;
      sent = connection.send("while away");
      await sent;
      say({ acknowledged: "while away" });
    });
    let sent;
    for await (const { data } of connection) say({ read: data });
  },

  async unacknowledged(url, go) {
    const connection = connect(url, { retry });
    let connections = 0;
    const opened = new Promise((resolve) => {
      connection.on("status", ({ status }) => {
        say({ status });
        if (status === "open") resolve((connections += 1));
      });
    });
    await opened;
    // Until the line is deaf.
    while (!existsSync(go)) await new Promise((resolve) => setTimeout(resolve, 10));
    const sent = [0, 1, 2, 3, 4].map((data) => connection.send(data));
    await Promise.all(sent);
    await connection.send(5);
    say({ acknowledged: sent.length + 1, connections });
    connection.close();
  },

  async refused(...urls) {
    for (const url of urls) {
      const [, error] = await outcome(connect(url));
      say({ status: error.status, detail: error.detail });
    }
  },

  async "connection-run"(url) {
    const connection = connect(url);
    for (const data of ["one", "two", "end"]) connection.send(data);
    const [items] = await outcome(connection);
    say({ items });
    say({ closed: (await connection.closed) ?? null });
  },

  async streams(base) {
    const posted = run(`${base}/post`, { body: { a: 1 }, headers: { "X-Test": "x" } });
    const [data] = await outcome(posted);
    say({ data, id: posted.id, trace: posted.trace });
    const [text] = await outcome(run(`${base}/text`, { format: "text" }));
    say({ text });
    const kinds = [];
    for await (const { event, data } of run(`${base}/kinds`)) kinds.push([event, shown(data)]);
    say({ kinds });
    for (const path of ["raises?when=while", "nowhere"]) {
      const [items, { status }] = await outcome(run(`${base}/${path}`));
      say({ items, status });
    }
  },

  async leave(url, ...notes) {
    const asked = (index, options) => run(`${url}?note=${encodeURIComponent(notes[index])}`, options);
    const left = [];
    for await (const { data } of asked(0)) if (left.push(data) === 3) break;
    say({ left });
    const stop = new AbortController();
    try {
      for await (const _ of asked(1, { signal: stop.signal })) stop.abort();
    } catch (error) {
      say({ aborted: error.name });
    }
    const running = asked(2);
    for await (const _ of running) await running.cancel();
    say({ cancelled: true });
  },

  async subscribe(url) {
    const room = subscribe(url, { retry });
    room.on("status", ({ status }) => say({ status }));
    room.on("gap", ({ reason }) => say({ gap: reason }));
    for await (const { data, id } of room) say({ read: data, cursor: id !== null });
  },
};

const [name, ...given] = process.argv.slice(2);
scenarios[name](...given).catch((error) => {
  say({ uncaught: error.stack });
  process.exitCode = 1;
});
