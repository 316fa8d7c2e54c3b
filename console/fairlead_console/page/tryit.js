// A WebSocket or an event stream to any route, through the console.

import { $, element } from "./dom.js";

const MOST = 500;

export function tryIt({ token, showTrace }) {
  let socket = null;
  let ref = 0;

  function state(text, bad = false) {
    $("try-state").textContent = text;
    $("try-state").className = bad ? "bad" : "";
  }

  function frame(direction, text, kind = "") {
    const trace = /"trace":"00-([0-9a-f]{32})-/.exec(text)?.[1];
    const line = element("li", { class: direction },
      element("span", { class: "dir", "aria-hidden": "true" }, { in: "←", out: "→" }[direction] ?? "·"),
      element("span", { class: "quiet" }, kind || new Date().toLocaleTimeString([], { hour12: false })),
      element("span", { class: "what" }, text),
      trace ? element("button", { type: "button", onclick: () => showTrace(trace), "aria-label": `Trace ${trace}` }, "trace") : element("span"));
    const list = $("frames");
    const atTheEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(line);
    while (list.children.length > MOST) list.firstChild.remove();
    if (atTheEnd) list.scrollTop = list.scrollHeight;
  }

  function close() {
    socket?.close();
    socket = null;
    $("say-form").hidden = true;
    $("try-open").textContent = "Open";
  }

  function open() {
    const [transport, method = "GET"] = $("try-as").value.split("-");
    const wish = { token: token(), edge: $("try-edge").value, path: $("try-path").value, transport, method, body: $("try-body").value };
    $("frames").replaceChildren();
    state("opening…");
    const mine = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/try`);
    socket = mine;
    $("try-open").textContent = "Close";
    mine.addEventListener("open", () => mine.send(JSON.stringify(wish)));
    mine.addEventListener("message", ({ data }) => {
      const told = JSON.parse(data);
      if (told.open) {
        state(`open: ${told.open.protocol}${told.open.run ? `, run ${told.open.run}` : ""}`);
        if (told.open.trace) frame("note", `"trace":"${told.open.trace}"`, "head");
        $("say-form").hidden = transport === "sse";
        if (transport !== "sse") $("say").focus();
      } else if (told.closed) {
        state(`closed${told.closed.code ? ` with ${told.closed.code}` : ""}${told.closed.reason ? `: ${told.closed.reason}` : ""}`, !told.closed.code || told.closed.code !== 1000);
      } else frame("in", told.in, told.event);
    });
    mine.addEventListener("close", () => {
      if (socket !== mine) return;
      if ($("try-state").textContent === "opening…") state("the console does not answer", true);
      close();
    });
  }

  $("try-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (socket) { close(); state("closed"); } else open();
  });
  $("say-form").addEventListener("submit", (event) => {
    event.preventDefault();
    let text = $("say").value;
    if ($("try-as").value === "v1") {
      let data = text;
      try { data = JSON.parse(text); } catch { /* it is text then */ }
      ref += 1;
      text = JSON.stringify({ type: "message", ref, data, id: crypto.randomUUID?.() ?? `${Date.now()}-${ref}`, traceparent: parent() });
    }
    socket?.send(JSON.stringify({ send: text }));
    frame("out", text);
    $("say").value = "";
  });
  $("try-as").addEventListener("change", () => { $("try-body-part").hidden = $("try-as").value !== "sse-POST"; });

  function choose(route) {
    $("try-path").value = route.endpoint;
    $("try-as").value = route.transport === "websocket" ? "v1" : `sse-${route.methods.includes("GET") ? "GET" : "POST"}`;
    $("try-as").dispatchEvent(new Event("change"));
  }

  $("try-route").addEventListener("change", (event) => {
    const chosen = event.target.selectedOptions[0]?.route;
    if (chosen) choose(chosen);
  });

  return {
    choose,
    offer(edges, routes) {
      options($("try-edge"), edges.filter((edge) => edge.address).map((edge) => [edge.id, `${edge.id} · ${edge.address}`, null]));
      options($("try-route"), [["", "choose…", null], ...routes.map((route) => [`${route.transport} ${route.endpoint}`, `${route.endpoint} (${route.transport === "sse" ? "stream" : "socket"})`, route])]);
    },
  };
}

function options(select, wanted) {
  const now = JSON.stringify(wanted.map(([value, text]) => [value, text]));
  if (select.dataset.now === now) return;
  const chosen = select.value;
  select.dataset.now = now;
  select.replaceChildren(...wanted.map(([value, text, route]) => {
    const option = element("option", { value }, text);
    option.route = route;
    return option;
  }));
  if (wanted.some(([value]) => value === chosen)) select.value = chosen;
}

/** A traceparent of the page's own, sampled, so that the message can be followed (W3C Trace Context). */
function parent() {
  const hex = (n) => [...crypto.getRandomValues(new Uint8Array(n))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `00-${hex(16)}-${hex(8)}-01`;
}
