/** The page: what is shown, and what the keys do. How it is carried is in the other two files. */

import { Connection, newTrace, randomHex } from "./connection.js";
import { events } from "./stream.js";

const CHAT = "/support/realtime/chat";
const ANSWERS = "/support/realtime/answers";

const $ = (id) => document.getElementById(id);
const made = (template) => $(template).content.firstElementChild.cloneNode(true);
const part = (element, name) => element.querySelector(`.${name}`);

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
  connection.join(name);
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
const myMessage = (item) => known.get(keyOf(me, item.id));

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
  const item = {
    id: randomHex(16),
    data: kind === "room" ? { text } : { text, to: name },
    traceparent: newTrace(),
    channel: kind === "room" ? name : null,
  };
  const message = add(current, me, { ...item.data, id: item.id }, item.traceparent);
  const send = () => {
    fate(message, "pending", connected ? "sending…" : "waits for the connection");
    connection.send(item);
  };
  // The same id: if the first one did arrive, the room takes no second one.
  part(message.element, "again").addEventListener("click", send);
  send();
}

// The connection

const GAP = "You were away. What was said meanwhile may be missing here.";

let connected = false;

const connection = new Connection(
  (channel) => new URL(`${CHAT}?${new URLSearchParams({ channel, user: me })}`, location.href),
  {
    state: showState,
    welcome(frame, channel) {
      const { count } = connection;
      $("connections").textContent = count === 1 ? "1 connection" : `${count} connections`;
      $("connections").dataset.count = count;
      $("connections").title = `This one is ${frame.connection}`;
      if (frame.recovered === false) note(conversation("room", channel), GAP);
    },
    message({ data, from, trace }, channel) {
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
    },
    settled(item, { trace }) {
      const message = myMessage(item);
      fate(message, "sent", "sent");
      showTrace(message.element, traceId(trace));
    },
    failed(item, problem) {
      const missing = problem.status === 404 && item.data.to;
      const why = missing ? `${item.data.to} is not here` : (problem.detail ?? problem.title);
      fate(myMessage(item), "failed", `${why} (${problem.status})`);
      showTrace(myMessage(item).element, problem.trace);
      notice(`Not sent: ${why}`);
    },
    waiting(item) {
      if (item) fate(myMessage(item), "pending", "waits for a worker");
    },
    problem: (problem) => notice(problem.detail ?? problem.title),
  },
);

let counting = 0;

function showState({ name, until, detail }) {
  connected = name === "connected";
  clearInterval(counting);
  $("status").dataset.state = name;
  $("status").ariaLive = "polite";
  $("retry").hidden = name !== "reconnecting" && name !== "ended";
  if (name !== "reconnecting") {
    const texts = { connecting: "Connecting…", connected: "Connected" };
    $("status-text").textContent = texts[name] ?? `Not connected: ${detail}`;
    return;
  }
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

$("retry").addEventListener("click", () => connection.tryNow());
addEventListener("online", () => connection.tryNow());

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
    const url = `${ANSWERS}?${new URLSearchParams({ user: me })}`;
    const response = await fetch(url, {
      method: "POST",
      body: question,
      headers: { traceparent },
      signal: aborter.signal,
    });
    if (!response.ok) throw new Error((await response.json()).detail ?? response.statusText);
    showTrace(answer, traceId(response.headers.get("fairlead-trace")));
    for await (const { event, data } of events(response)) {
      if (event === "end") return tell("sent", `complete, ${words} words`);
      if (event === "error") throw new Error(JSON.parse(data).detail ?? "the run failed");
      if (event === "restart") {
        // Another worker has taken it up, from the beginning.
        output.textContent = "";
        words = 0;
      }
      if (event !== "message") continue;
      output.append(JSON.parse(data));
      words += 1;
      tell("pending", `${words} words`);
      toEnd($("answers"));
    }
    throw new Error("the stream broke off");
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
