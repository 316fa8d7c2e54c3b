/**
 * The page: what is shown, and what the keys do. How it is carried, and comes back, is in Fairlead's
 * client, the file beside it: clients/js/dist/fairlead.min.js.
 */

import { connect, run } from "./fairlead.min.js";

const CHAT = "/support/realtime/chat";
const ANSWERS = "/support/realtime/answers";

const $ = (id) => document.getElementById(id);
const made = (template) => $(template).content.firstElementChild.cloneNode(true);
const part = (element, name) => element.querySelector(`.${name}`);

/** Milliseconds of the longest pause between two attempts: somebody looks at the page. */
const LONGEST = 15_000;

/** A W3C trace context of our own: the trace then begins at the key that was pressed. */
const newTrace = () => `00-${randomHex(16)}-${randomHex(8)}-01`;

function randomHex(bytes) {
  const drawn = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** "00-TRACE-SPAN-FLAGS" → TRACE */
const traceId = (traceparent) => traceparent?.split("-")[1] ?? "";

let me = "";
let room = "";
/** The conversation on the screen. */
let current = null;

// Conversations: rooms and people look the same.

/** @type {Map<string, object>} `#room` or `@person` → conversation */
const conversations = new Map();

function conversation(kind, name) {
  const key = (kind === "room" ? "#" : "@") + name;
  if (!conversations.has(key)) {
    const place = made("place");
    const button = part(place, "place");
    part(place, "name").textContent = name;
    const mark = part(place, "mark");
    if (kind === "room") mark.textContent = "#";
    else asAvatar(mark, name);
    const found = { key, kind, name, place, button, messages: [], unread: 0 };
    button.addEventListener("click", () => show(found));
    conversations.set(key, found);
    $(kind === "room" ? "rooms" : "people").append(place);
  }
  return conversations.get(key);
}

function show(chosen) {
  current = chosen;
  if (chosen.kind === "room" && chosen.name !== room) enter(chosen.name);
  for (const each of conversations.values()) {
    each.button.ariaCurrent = each === chosen ? "true" : null;
  }
  $("title").textContent = chosen.kind === "room" ? `# ${chosen.name}` : chosen.name;
  $("about").textContent =
    chosen.kind === "room"
      ? "Everybody in this room reads along, whatever edge they are on"
      : "One to one: nobody else reads this";
  $("text-label").textContent = $("text").placeholder = `Message to ${$("title").textContent}`;
  $("log").replaceChildren(...chosen.messages.map((message) => message.element));
  read(chosen, 0);
  toEnd($("log"));
  $("text").focus();
}

function read(which, unread) {
  which.unread = unread;
  const badge = part(which.place, "badge");
  badge.hidden = unread === 0;
  badge.textContent = unread;
  which.button.setAttribute("aria-label", which.name + (unread ? `, ${unread} unread` : ""));
}

function enter(name) {
  room = name;
  remember();
  join(name);
}

/** So that a reload comes back to the same room as the same person. */
function remember() {
  const url = new URL(location.href);
  url.searchParams.set("user", me);
  url.searchParams.set("room", room);
  history.replaceState(null, "", url);
}

// Messages

/** @type {Map<string, object>} sender and id → message: what comes twice is shown once */
const known = new Map();
const keyOf = (from, id) => JSON.stringify([from, id]);

function add(where, from, data, traceparent) {
  const element = made("message");
  element.classList.toggle("mine", from === me);
  asAvatar(part(element, "avatar"), from);
  part(element, "who").textContent = from === me ? "You" : from;
  part(element, "words").textContent = data.text;
  const now = new Date();
  part(element, "meta").firstElementChild.dateTime = now.toISOString();
  part(element, "meta").firstElementChild.textContent = clock.format(now);
  const message = { id: data.id, element, where };
  if (data.id) known.set(keyOf(from, data.id), message);
  showTrace(element, traceId(traceparent));
  place(message);
  if (from !== me && (where !== current || document.hidden)) read(where, where.unread + 1);
  return message;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** At the end of its conversation: of the room’s own copy that is where all see it. */
function place(message) {
  const { where, element } = message;
  where.messages = [...where.messages.filter((other) => other !== message), message];
  if (where !== current) return;
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (log.lastElementChild !== element) log.append(element);
  if (atEnd || element.classList.contains("mine")) toEnd(log);
}

const toEnd = (log) => (log.scrollTop = log.scrollHeight);

function fate(message, name, text) {
  message.element.dataset.fate = name;
  part(message.element, "fate").textContent = text;
  part(message.element, "again").hidden = name !== "failed";
}

function note(where, text) {
  const element = document.createElement("li");
  element.className = "note";
  element.textContent = text;
  place({ where, element });
}

function say(text) {
  const { kind, name } = current;
  const data = kind === "room" ? { text } : { text, to: name };
  const traceparent = newTrace();
  // With an id of its own, the room takes it once, however often it is sent.
  const id = randomHex(16);
  const message = add(current, me, { ...data, id }, traceparent);
  const send = () => {
    fate(message, "pending", connected ? "sending…" : "waits for the connection");
    follow(connection.send(data, { id, traceparent }), message);
  };
  part(message.element, "again").addEventListener("click", send);
  send();
}

/** Show what becomes of a message. */
async function follow(sent, message) {
  const { pending } = places.get(connection);
  pending.add(sent);
  try {
    const { trace } = await sent;
    fate(message, "sent", "sent");
    showTrace(message.element, traceId(trace));
  } catch ({ status, detail, trace }) {
    const { kind, name } = message.where;
    const why = status === 404 && kind === "person" ? `${name} is not here` : detail;
    fate(message, "failed", `${why} (${status})`);
    showTrace(message.element, trace);
    notice(`Not sent: ${why}`);
  } finally {
    pending.delete(sent);
  }
}

// The connection, one for the room on the screen

const GAP = "You were away. What was said meanwhile may be missing here.";

let connection = null;
let connected = false;
let count = 0;

/** Of each connection: its channel, and what it has not yet been told of. */
const places = new WeakMap();

/** channel → where we were in it */
const cursors = new Map();

function join(channel) {
  if (connection !== null) leave(connection);
  const url = `${CHAT}?${new URLSearchParams({ channel, user: me })}`;
  const mine = connect(url, { cursor: cursors.get(channel), retry: { longest: LONGEST } });
  connection = mine;
  places.set(mine, { channel, pending: new Set() });
  let id = null;
  const whileHere = (tell) => (detail) => mine === connection && tell(detail);
  mine.on("status", whileHere((change) => {
    if (mine.id !== id) countConnection((id = mine.id));
    showState(change);
  }));
  mine.on("gap", whileHere(() => note(conversation("room", channel), GAP)));
  mine.on("error", whileHere(({ detail }) => notice(detail)));
  mine.on("waiting", (sent) => {
    const message = known.get(keyOf(me, sent.id));
    if (message) fate(message, "pending", "waits for a worker");
  });
  showState({ status: "connecting" });
  hear(mine, channel);
}

/** What was said there and is not yet sent, is sent first. */
async function leave(which) {
  const { channel, pending } = places.get(which);
  cursors.set(channel, which.cursor);
  await Promise.allSettled(pending);
  which.close();
}

async function hear(mine, channel) {
  try {
    for await (const message of mine) if (mine === connection) received(message, channel);
  } catch {
    // Why it ended for good, its status has said.
  }
}

function received({ data, from, trace }, channel) {
  const before = known.get(keyOf(from, data?.id));
  if (before !== undefined) {
    fate(before, "sent", "sent");
    showTrace(before.element, traceId(trace));
    place(before);
    return;
  }
  // What anybody else has published to the room may be a bare text, from nobody.
  const said = typeof data === "object" && data !== null ? data : { text: String(data) };
  const where = said.to ? conversation("person", from) : conversation("room", channel);
  add(where, from ?? "somebody", said, trace);
}

function countConnection(id) {
  count += 1;
  $("connections").textContent = count === 1 ? "1 connection" : `${count} connections`;
  $("connections").dataset.count = count;
  $("connections").title = `This one is ${id}`;
}

let counting = 0;

/** As the page's style has them. A worker that is not there yet is told beside the message. */
const STATES = {
  connecting: "connecting",
  open: "connected",
  waiting: "connected",
  reconnecting: "reconnecting",
  closed: "ended",
};

function showState({ status, pause, error }) {
  connected = status === "open" || status === "waiting";
  clearInterval(counting);
  $("status").dataset.state = STATES[status];
  $("status").ariaLive = "polite";
  $("retry").hidden = status !== "reconnecting" && status !== "closed";
  if (status !== "reconnecting") {
    const texts = { connecting: "Connecting…", connected: "Connected" };
    $("status-text").textContent = texts[STATES[status]] ?? `Not connected: ${error?.detail}`;
    return;
  }
  const until = performance.now() + pause;
  const count = () => {
    const seconds = Math.max(1, Math.ceil((until - performance.now()) / 1000));
    $("status-text").textContent = `Reconnecting in ${seconds} s`;
  };
  count();
  counting = setInterval(() => {
    $("status").ariaLive = "off"; // told once: a screen reader would count along
    count();
  }, 1000);
}

$("retry").addEventListener("click", () => {
  if (connection.status === "closed") join(room);
  else connection.reconnect();
});

// The token stream

let reading = null;

async function ask(question) {
  const aborter = new AbortController();
  const answer = made("answer");
  const output = part(answer, "words");
  const traceparent = newTrace();
  let words = 0;
  const tell = (name, text) => {
    answer.dataset.fate = name;
    part(answer, "fate").textContent = text;
  };
  part(answer, "question").textContent = question;
  answer.setAttribute("aria-busy", "true");
  showTrace(answer, traceId(traceparent));
  part($("answers"), "empty")?.remove();
  $("answers").append(answer);
  asking(aborter);
  tell("pending", "asking…");
  try {
    const stream = run(`${ANSWERS}?${new URLSearchParams({ user: me })}`, {
      body: question,
      headers: { traceparent },
      signal: aborter.signal,
    });
    stream.on("status", () => showTrace(answer, traceId(stream.trace)));
    stream.on("restart", () => {
      // Another worker has taken it up, from the beginning.
      output.textContent = "";
      words = 0;
    });
    for await (const { data } of stream) {
      output.append(data);
      words += 1;
      tell("pending", `${words} words`);
      toEnd($("answers"));
    }
    tell("sent", `complete, ${words} words`);
  } catch (error) {
    if (aborter.signal.aborted) tell("stopped", `stopped after ${words} words`);
    else tell("failed", error instanceof TypeError ? "the connection broke off" : error.message);
  } finally {
    answer.removeAttribute("aria-busy");
    asking(null);
    toEnd($("answers"));
  }
}

/** @param {AbortController | null} aborter of the answer that is being read */
function asking(aborter) {
  const hadFocus = [$("stop"), $("ask-button")].includes(document.activeElement);
  reading = aborter;
  $("stop").hidden = aborter === null;
  $("ask-button").hidden = aborter !== null;
  // The button that was pressed has gone; the keyboard must not fall off the page.
  if (hadFocus) (aborter === null ? $("question") : $("stop")).focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (reading !== null) return;
  ask($("question").value.trim());
  $("question").value = "";
});
$("stop").addEventListener("click", () => reading?.abort());

// Small things

function asAvatar(element, name) {
  element.textContent = [...name][0]?.toUpperCase() ?? "?";
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  element.style.setProperty("--hue", hue);
}

function showTrace(element, id) {
  if (!id) return;
  const button = part(element, "trace");
  button.hidden = false;
  button.textContent = `trace ${id.slice(0, 8)}`;
  button.title = id;
  button.setAttribute("aria-label", `Copy the trace id ${id}`);
}

document.addEventListener("click", async ({ target }) => {
  if (!target.matches(".trace")) return;
  try {
    await navigator.clipboard.writeText(target.title);
    notice("Trace id copied");
    target.classList.add("copied");
    setTimeout(() => target.classList.remove("copied"), 1200);
  } catch {
    notice(`The trace id is ${target.title}`);
  }
});

function notice(text) {
  $("notice").textContent = text;
}

// What the forms and keys do

function submitted(form, input, then) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $(input).value.trim();
    $(input).value = "";
    if (value) then(value);
  });
}

submitted("add-room", "room-name", (name) => show(conversation("room", name)));
submitted("add-person", "person-name", (name) => show(conversation("person", name)));
submitted("say", "text", (text) => {
  say(text);
  grow();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say").requestSubmit();
});

/** The field is as high as its text, up to a third of the window. */
function grow() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, innerHeight / 3)}px`;
}
$("text").addEventListener("input", grow);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && current !== null) read(current, 0);
});

// The start: `?user=` and `?room=`, else ask.

function start(name, where) {
  me = name;
  $("my-name").textContent = name;
  asAvatar($("my-avatar"), name);
  document.title = `${name} · Fairlead chat`;
  for (const each of new Set([where, "lobby", "random"])) conversation("room", each);
  show(conversation("room", where));
}

const query = new URLSearchParams(location.search);
$("join-room").value = query.get("room") ?? "lobby";
if (query.get("user")) start(query.get("user"), $("join-room").value);
else $("join").showModal();

$("join").addEventListener("cancel", (event) => event.preventDefault());
$("join").addEventListener("close", () => {
  start($("join-name").value.trim() || "somebody", $("join-room").value);
});
