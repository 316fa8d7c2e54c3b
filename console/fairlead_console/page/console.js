// The console's page: what the app's processes tell, each second; traces; the end of a run; a try.

import { $, element, roving, table } from "./dom.js";
import { bytes, clock, count, rate, seconds } from "./format.js";
import { tryIt } from "./tryit.js";
import { draw } from "./waterfall.js";

// The token comes in the fragment, which no server sees, and stays with this tab.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("fairlead-token", given);
  history.replaceState(null, "", location.pathname);
}
$("token").value = sessionStorage.getItem("fairlead-token") ?? "";
let mayChange = false;
const token = () => $("token").value;
const authorization = () => (token() ? { authorization: `Bearer ${token()}` } : {});

async function ask() {
  const answer = await fetch("api/console", { headers: authorization() }).catch(() => null);
  const told = answer?.ok ? await answer.json() : { may_change: false, read_only: true };
  mayChange = told.may_change;
  $("token").placeholder = told.read_only ? "read-only" : "token";
  $("token").disabled = told.read_only;
  $("token").classList.toggle("bad", Boolean(token()) && !mayChange && !told.read_only);
  for (const button of document.querySelectorAll("[data-changes]")) button.disabled = !mayChange;
  $("try-open").disabled = !mayChange;
  if (!mayChange) $("try-state").textContent = told.read_only ? "This console is read-only: start it with --token." : "To try something, give the console's token at the top.";
}
$("token").addEventListener("input", () => { sessionStorage.setItem("fairlead-token", token()); ask(); });

// Colours

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").setAttribute("aria-label", `Colours: ${name === "system" ? "as the system has them" : name}`);
  $("theme").textContent = { system: "◐", light: "☀", dark: "☾" }[name];
  localStorage.setItem("fairlead-theme", name);
}
theme(localStorage.getItem("fairlead-theme") ?? "system");
$("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("fairlead-theme")) + 1) % 3]));

// Tabs

const tabs = [...document.querySelectorAll("[role=tab]")];
function show(tab, focus = true) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", String(chosen));
    each.tabIndex = chosen ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  if (tab.id === "tab-traces") list();
}
for (const tab of tabs) tab.addEventListener("click", () => show(tab));
$("tabs").addEventListener("keydown", roving(() => tabs, show));

// The fleet

const since = (at) => seconds(Date.now() / 1000 - at);
const health = (process) => (process.draining ? "draining" : process.ready ? "ready" : process.reasons[0] ?? "not ready");
const healthy = (process) => (process.draining ? "warn" : process.ready ? "good" : "bad");
const ids = (title, of) => ({ title, text: of, class: () => "mono" });
const vitals = [
  { title: "state", text: health, class: healthy },
  { title: "up", n: true, text: (p) => since(p.started) },
  { title: "loop lag", n: true, text: (p) => seconds(p.lag), class: (p) => (p.lag > 0.2 ? "bad" : p.lag > 0.05 ? "warn" : "") },
  { title: "NATS", n: true, text: (p) => seconds(p.rtt) },
  { title: "memory", n: true, text: (p) => bytes(p.memory) },
  { title: "version", text: (p) => p.version },
];

function figures(all) {
  const sum = (list, of) => list.reduce((total, each) => total + of(each), 0);
  const shown = [
    ["connections", count(sum(all.edges, (e) => e.websockets + e.streams)), `${count(sum(all.edges, (e) => e.streams))} streams`],
    ["messages in", rate(sum(all.edges, (e) => e.rates.received ?? 0)), "a second"],
    ["deliveries", rate(sum(all.edges, (e) => e.rates.deliveries ?? 0)), "a second"],
    ["executed", rate(sum(all.workers, (w) => w.rates.done ?? 0)), "a second"],
    ["failed", rate(sum(all.workers, (w) => w.rates.failed ?? 0)), "a second"],
    ["in hand", count(sum(all.workers, (w) => w.in_hand[0] + w.in_hand[1])), "runs"],
    ["rooms", count(all.rooms_in_all), ""],
    ["waits for slow clients", bytes(sum(all.edges, (e) => e.buffered)), `${all.slow_in_all} clients`],
  ];
  $("figures").replaceChildren(...shown.map(([name, value, unit]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value, " ", element("small", {}, unit)))));
}

const edgeColumns = [
  ids("edge", (e) => e.id), { title: "address", text: (e) => e.address || `in ${e.host}` }, ...vitals.slice(0, 1),
  { title: "sockets", n: true, text: (e) => count(e.websockets) }, { title: "streams", n: true, text: (e) => count(e.streams) },
  { title: "rooms", n: true, text: (e) => count(e.rooms_in_all) },
  { title: "in/s", n: true, text: (e) => rate(e.rates.received ?? 0) }, { title: "out/s", n: true, text: (e) => rate((e.rates.deliveries ?? 0) + (e.rates.sent ?? 0)) },
  { title: "waiting", n: true, text: (e) => bytes(e.buffered) }, ...vitals.slice(1),
];
const workerColumns = [
  ids("worker", (w) => w.id), { title: "host", text: (w) => w.host }, ids("build", (w) => w.build.slice(0, 8)), ...vitals.slice(0, 1),
  { title: "messages in hand", n: true, text: (w) => `${count(w.in_hand[0])} / ${count(w.limits[0])}` },
  { title: "streams in hand", n: true, text: (w) => `${count(w.in_hand[1])} / ${count(w.limits[1])}` },
  { title: "done/s", n: true, text: (w) => rate(w.rates.done ?? 0) },
  { title: "failed/s", n: true, text: (w) => rate(w.rates.failed ?? 0), class: (w) => (w.rates.failed ? "bad" : "") }, ...vitals.slice(1),
];
const goneColumns = [
  { title: "what", text: (g) => g.role }, ids("id", (g) => g.id), { title: "host", text: (g) => g.host },
  { title: "how", text: (g) => (g.drained ? "stopped in order" : "without a farewell"), class: (g) => (g.drained ? "" : "bad") },
  { title: "at", text: (g) => clock(g.at) },
];
const slowColumns = [
  ids("connection", (s) => s.connection), { title: "workflow", text: (s) => s.workflow }, ids("edge", (s) => s.edge),
  { title: "waits", n: true, text: (s) => bytes(s.bytes), class: () => "warn" },
];
const roomColumns = [
  { title: "topic", text: (r) => r.topic }, { title: "channel", text: (r) => r.channel },
  { title: "members", n: true, text: (r) => count(r.members) }, { title: "edges", n: true, text: (r) => count(r.edges) },
  { title: "messages/s", n: true, text: (r) => rate(r.rate) },
];
const runColumns = [
  { title: "workflow", text: (r) => r.workflow }, { title: "kind", text: (r) => r.kind }, ids("run", (r) => r.run),
  ids("worker", (r) => r.worker), { title: "attempt", n: true, text: (r) => String(r.attempt), class: (r) => (r.attempt > 1 ? "warn" : "") },
  { title: "age", n: true, text: (r) => seconds(r.age) }, { title: "readers", n: true, text: (r) => (r.viewers === null ? "–" : String(r.viewers)) },
  { title: "", cell: (r) => element("button", { type: "button", "data-changes": true, disabled: !mayChange, onclick: () => cancel(r), "aria-label": `Cancel run ${r.run}` }, "Cancel") },
];
const routeColumns = [
  { title: "workflow", text: (r) => r.workflow }, ids("endpoint", (r) => r.endpoint),
  { title: "by", text: (r) => (r.transport === "websocket" ? "WebSocket" : r.methods.join(" ") || "GET POST") },
  { title: "one run per", text: (r) => ({ topic: "room" })[r.run] ?? r.run }, { title: "topic", text: (r) => r.topic || "–" },
  { title: "deliver", text: (r) => r.deliver || "–" }, { title: "checks", text: (r) => (r.checks ? "policies, inputs" : "–") },
  { title: "resume", text: (r) => (r.resume ? seconds(r.resume) : "–") },
  { title: "", cell: (r) => element("button", { type: "button", onclick: () => { trying.choose(r); show($("tab-try")); } , "aria-label": `Try ${r.endpoint}` }, "Try") },
];

async function cancel(run) {
  const said = $("runs-said");
  said.textContent = `cancelling ${run.run}…`;
  const answer = await fetch("api/cancel", {
    method: "POST", headers: { ...authorization(), "content-type": "application/json" }, body: JSON.stringify({ worker: run.worker, run: run.run }),
  }).catch(() => null);
  const told = answer && !answer.ok ? (await answer.json()).detail : null;
  said.textContent = answer?.ok ? `${run.run}: its worker has been told` : `${run.run}: ${told ?? "the console does not answer"}`;
}

function render(all) {
  $("app").textContent = all.app;
  figures(all);
  table($("t-edges"), edgeColumns, all.edges, (e) => e.id, { empty: "No edge answers. Start one: fairlead edge --nats URL" });
  table($("t-workers"), workerColumns, all.workers, (w) => w.id, { empty: "No worker answers. Start one: fairlead worker app.py --nats URL" });
  table($("t-slow"), slowColumns, all.slow, (s) => s.connection, { inAll: all.slow_in_all });
  table($("t-gone"), goneColumns, all.gone, (g) => `${g.role} ${g.id}`);
  $("slow-part").hidden = !all.slow.length;
  $("gone-part").hidden = !all.gone.length;
  table($("t-rooms"), roomColumns, all.rooms, (r) => `${r.topic} ${r.channel}`, { empty: "Nobody is in any room.", inAll: all.rooms_in_all });
  table($("t-runs"), runColumns, all.runs, (r) => `${r.worker} ${r.run} ${r.attempt}`, { empty: "Nothing is being executed. Runs of connections, streams and rooms stay here while they last.", inAll: all.runs_in_all });
  table($("t-routes"), routeColumns, all.routes, (r) => `${r.transport} ${r.endpoint}`, { empty: "No routes are known. The first worker brings them." });
  $("n-rooms").textContent = all.rooms_in_all || "";
  $("n-runs").textContent = all.runs_in_all || "";
  $("n-routes").textContent = all.routes.length || "";
  trying.offer(all.edges, all.routes);
}

function state(is, text) {
  $("state").dataset.is = is;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function follow() {
  const source = new EventSource("api/live");
  source.addEventListener("message", ({ data }) => {
    const all = JSON.parse(data);
    if (all.nats.connected) state("live", "live");
    else state("away", `the console has lost NATS at ${all.nats.server}`);
    render(all);
  });
  source.addEventListener("error", () => {
    state("away", "the console does not answer; trying on");
    // A refusal (NATS was not reached yet) ends an EventSource for good.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 1000);
  });
}

// Traces

let listed = [];
let at = -1;
let chosen = null;
const order = () => document.querySelector("input[name=order]:checked").value;

async function list() {
  const wanted = order();
  const answer = await fetch(`api/traces?order=${wanted === "slow" ? "slow" : "last"}&limit=${wanted === "errors" ? 100 : 40}`).catch(() => null);
  if (!answer?.ok || wanted !== order()) return;
  const { traces } = await answer.json();
  listed = wanted === "errors" ? traces.filter((trace) => trace.error) : traces;
  const current = at >= 0 ? $("trace-list").children[at]?.dataset.trace : null;
  $("trace-list").replaceChildren(...listed.map((trace) => element("li", {
    role: "option", id: `trace-${trace.trace}`, "data-trace": trace.trace, "aria-selected": String(trace.trace === chosen), onclick: () => showTrace(trace.trace),
  },
    element("div", { class: "top" }, element("span", { class: `name${trace.error ? " bad" : ""}` }, trace.name), element("span", {}, seconds(trace.duration))),
    element("div", { class: "top mono" }, element("span", {}, trace.trace.slice(0, 16)), element("span", {}, clock(trace.start / 1e9))))));
  at = current ? listed.findIndex((trace) => trace.trace === current) : -1;
  mark();
  $("no-traces").hidden = listed.length > 0;
  $("no-traces").textContent = wanted === "errors" ? "None of the last 100 traces failed." : "No traces are here. Edges and workers send them when OTEL_EXPORTER_OTLP_ENDPOINT names this console.";
}

function mark() {
  [...$("trace-list").children].forEach((line, place) => { line.classList.toggle("at", place === at); });
  const line = $("trace-list").children[at];
  if (line) {
    $("trace-list").setAttribute("aria-activedescendant", line.id);
    line.scrollIntoView({ block: "nearest" });
  }
}

async function showTrace(id) {
  if ($("traces").hidden) show($("tab-traces"), false);
  chosen = id;
  for (const line of $("trace-list").children) line.setAttribute("aria-selected", String(line.dataset.trace === id));
  // The last spans of a message that was said just now are exported within a second.
  for (let tries = 0; tries < 8 && chosen === id; tries += 1) {
    const answer = await fetch(`api/traces/${id}`).catch(() => null);
    if (answer?.ok) {
      const picture = await answer.json();
      if (chosen === id && picture.spans !== $("waterfall").drawn?.[id]) {
        draw($("waterfall"), picture);
        $("waterfall").drawn = { [id]: picture.spans };
      }
      if (Date.now() - picture.start / 1e6 > 4000) return;
    } else if (tries === 7) {
      const told = answer ? (await answer.json()).detail : "the console does not answer";
      $("waterfall").replaceChildren(element("p", { class: "empty" }, told));
    } else if (tries === 0) $("waterfall").replaceChildren(element("p", { class: "empty" }, `waiting for the spans of ${id.slice(0, 16)}…`));
    await new Promise((done) => setTimeout(done, 600));
  }
}

$("order").addEventListener("change", list);
$("trace-list").addEventListener("keydown", (event) => {
  const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: listed.length - 1 };
  if (event.key in moves && listed.length) {
    event.preventDefault();
    at = Math.min(Math.max(moves[event.key], 0), listed.length - 1);
    mark();
  } else if (event.key === "Enter" && at >= 0) showTrace(listed[at].trace);
});
setInterval(() => { if (!$("traces").hidden && document.visibilityState === "visible") list(); }, 2000);

const trying = tryIt({ token, showTrace });
ask();
follow();
