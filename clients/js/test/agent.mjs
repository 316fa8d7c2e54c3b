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

  /** Says each, and leaves after so many. */
  async function each(items, of, word, leave) {
    let count = 0;
    for await (const { data, id, attempt, event } of items) {
      say({ of, [word]: shown(data), attempt, cursor: (id ?? null) !== null, ...(event && { event }) });
      if (++count === leave) break;
    }
  }

  async function read(items, of, leave, about = () => ({})) {
    try {
      await each(items, of, "read", leave);
      say({ of, ended: true, ...about() });
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
    it.on("error", ({ status, detail }) => say({ of: as, error: { status, detail } }));
  };

  return {
    open({ as, url, ...others }) {
      const connection = connect(url, options(as, others));
      watch(as, connection);
      void read(connection, as);
    },

    async send({ on, as, data, id, iterate, leave }) {
      const sent = known[on].send(meant(data), { id });
      known[as] = sent;
      try {
        if (iterate) await each(sent, as, "reply", leave);
        say({ of: as, acknowledged: (await sent).id });
      } catch (error) {
        say({ of: as, ...failure(error) });
      }
    },

    stream({ as, url, room, leave, ...others }) {
      const stream = (room ? subscribe : run)(url, options(as, others));
      watch(as, stream);
      void read(stream, as, leave, () => ({ id: stream.id, trace: stream.trace }));
    },

    /** Where others find it. */
    tell({ of }) {
      const { id, key, cursor } = known[of];
      say({ of, told: { id, key, cursor } });
    },

    async cancel({ of }) {
      const cancelling = known[of].cancel();
      say({ of, cancelling: true });
      try {
        await cancelling;
        say({ of, cancelled: true });
      } catch (error) {
        say({ of, ...failure(error) });
      }
    },

    /** A run of whatever endpoint, over a connection. */
    end: ({ of, run, key }) => known[of].cancel(run, key),

    async refresh({ of, token }) {
      await known[of].refresh(token);
      say({ of, refreshed: true });
    },

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
