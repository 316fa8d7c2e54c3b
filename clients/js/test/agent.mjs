/**
 * Does with the client what a scenario of tests/clients says, and says what comes of it: in node one
 * JSON line for each, in a page by a function. tests/support/agents.py has its twin in Python.
 */

/** As JSON shows it: bytes are told from lists. */
const shown = (data) => (data instanceof Uint8Array ? { bytes: [...data] } : data);
const meant = (data) => (data?.bytes ? new Uint8Array(data.bytes) : data);

/** @param say is called with what came of it; `of` names whom it is about */
export function agent({ connect, FairleadError, run, subscribe }, say) {
  const known = {};

  const failure = (error) => {
    if (!(error instanceof FairleadError)) return { uncaught: `${error.stack}` };
    const { status, detail, code = null } = error;
    return { failed: { status, detail, code } };
  };

  /** Reads to the end, or leaves after so many; `until` says what the end was. */
  async function read(items, of, { leave, word, until = () => ({ ended: true }) }) {
    let count = 0;
    try {
      for await (const { data, id, attempt, event } of items) {
        say({ of, [word]: shown(data), attempt, cursor: (id ?? null) !== null, ...(event && { event }) });
        if (++count === leave) break;
      }
      say({ of, ...until() });
    } catch (error) {
      say({ of, ...failure(error) });
    }
  }

  const options = (as, { token, retry = 0.1, ...others }) => {
    let asked = 0;
    const hook = () => {
      asked += 1;
      say({ of: as, token: asked });
      return `token-${asked}`;
    };
    return { retry: { first: retry * 1000 }, ...(token && { token: hook }), ...others };
  };

  const watch = (as, it, names) => {
    known[as] = it;
    it.on("status", ({ status }) => say({ of: as, status }));
    it.on("gap", ({ reason }) => say({ of: as, gap: reason }));
    it.on("restart", ({ attempt }) => say({ of: as, restart: attempt }));
  };

  return {
    open({ as, url, ...others }) {
      const connection = connect(url, options(as, others));
      watch(as, connection);
      void read(connection, as, { word: "read" });
    },

    async send({ on, as, data, id, iterate, leave }) {
      const sent = known[on].send(meant(data), { id });
      known[as] = sent;
      if (iterate) await read(sent, as, { word: "reply", leave, until: () => ({}) });
      await sent.then(
        ({ id: acknowledged }) => say({ of: as, acknowledged }),
        (error) => say({ of: as, ...failure(error) }),
      );
    },

    stream({ as, url, room, leave, ...others }) {
      const stream = (room ? subscribe : run)(url, options(as, others));
      watch(as, stream);
      const until = () => ({ ended: true, run: stream.id !== null, trace: stream.trace !== null });
      void read(stream, as, { word: "read", leave, until });
    },

    cancel: async ({ of }) => known[of].cancel(),

    close: ({ of }) => known[of].close(),
  };
}

if (globalThis.process) {
  const { createInterface } = await import("node:readline");
  const does = agent(await import("../dist/index.js"), (outcome) => console.log(JSON.stringify(outcome)));
  for await (const line of createInterface({ input: process.stdin })) {
    const { does: name, ...given } = JSON.parse(line);
    void does[name](given);
  }
  process.exit();
}
