// One trace as a picture: what took how long, who did it, and which part it was.

import { element, roving } from "./dom.js";
import { clock, seconds } from "./format.js";

const PARTS = {
  edge: "edge", broker: "broker", queue: "worker queue", user: "user code", slow: "slow sockets", other: "other",
};

function bar(parts, total) {
  const shown = Object.keys(PARTS).filter((name) => parts[name] > 0);
  const said = shown.map((name) => `${PARTS[name]} ${seconds(parts[name])}`).join(", ");
  const strip = element("div", { class: "parts", role: "img", "aria-label": `Where the time went: ${said}` });
  for (const name of shown) {
    const piece = element("div", { class: name, title: `${PARTS[name]}: ${seconds(parts[name])}` });
    // In percent: where all of them together are less than 1, flex leaves the rest empty.
    piece.style.flexGrow = String((100 * parts[name]) / (total || 1));
    strip.append(piece);
  }
  const legend = element("ul", { class: "legend" }, ...shown.map((name) =>
    element("li", {}, element("i", { class: name, "aria-hidden": "true" }),
      `${PARTS[name]} ${seconds(parts[name])} · ${Math.round((100 * parts[name]) / (total || 1))} %`)));
  return [strip, legend];
}

function pairs(row) {
  const told = { ...row.attributes };
  if (row.span) told["span"] = row.span;
  row.events.forEach((event) => { told[`event at ${seconds(event.time)}`] = event.name + (Object.keys(event.attributes ?? {}).length ? ` ${JSON.stringify(event.attributes)}` : ""); });
  row.links.forEach((link, number) => { told[`link ${number + 1}`] = `${link.trace} ${link.span} ${JSON.stringify(link.attributes ?? {})}`; });
  return Object.entries(told);
}

function open(line, row) {
  const shown = line.getAttribute("aria-expanded") === "true";
  line.setAttribute("aria-expanded", String(!shown));
  if (shown) line.querySelector(".more-of")?.remove();
  else {
    line.append(element("dl", { class: "more-of" }, ...pairs(row).flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, typeof value === "string" ? value : JSON.stringify(value))])));
  }
}

function line(row, total) {
  const share = (s) => `${(100 * s) / (total || 1)}%`;
  const filled = element("b", { class: row.part });
  filled.style.left = share(row.start);
  filled.style.width = share(row.duration);
  const track = element("span", { class: "track", "aria-hidden": "true" }, filled);
  for (const event of row.events) {
    const mark = element("i", { title: event.name });
    mark.style.left = share(event.time);
    track.append(mark);
  }
  const label = element("span", { class: `label${row.error ? " bad" : ""}` }, row.name, " ",
    element("span", { class: "who" }, [row.service.replace("fairlead-", ""), row.instance].filter(Boolean).join(" ")));
  label.style.paddingLeft = `${Math.min(row.depth, 8) * 12}px`;
  label.title = `${row.name} · ${row.service} ${row.instance}`;
  const made = element("li", {
    class: `row${row.span ? "" : " made"}`, tabindex: "-1", role: "button", "aria-expanded": "false",
    "aria-label": `${row.name}, ${PARTS[row.part] ?? row.part}, ${row.service} ${row.instance}, from ${seconds(row.start)}, took ${seconds(row.duration)}${row.error ? ", failed" : ""}`,
  }, label, track, element("span", { class: "took" }, seconds(row.duration)));
  made.addEventListener("click", (event) => { if (!event.target.closest(".more-of")) open(made, row); });
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(made, row); }
  });
  return made;
}

export function draw(into, picture) {
  const total = picture.duration;
  const rows = element("ol", { class: "rows", "aria-label": "Spans; arrow keys move, Enter opens" },
    ...picture.rows.map((row) => line(row, total)));
  const all = () => [...rows.querySelectorAll(".row")];
  rows.addEventListener("keydown", roving(all, (next) => { next.focus(); }));
  const first = rows.querySelector(".row");
  if (first) first.tabIndex = 0;
  rows.addEventListener("focusin", (event) => {
    const at = event.target.closest(".row");
    if (at) all().forEach((each) => { each.tabIndex = each === at ? 0 : -1; });
  });
  const axis = element("div", { class: "axis", "aria-hidden": "true" }, element("span"),
    element("span", { class: "scale" }, ...[0, 0.25, 0.5, 0.75, 1].map((part) => element("span", {}, seconds(total * part)))), element("span"));
  into.replaceChildren(
    element("h3", {}, picture.name, " ", element("span", { class: picture.error ? "bad" : "quiet" }, `${seconds(total)}${picture.error ? " · failed" : ""}`)),
    element("p", { class: "mono id" }, picture.trace, " · ", clock(picture.start / 1e9), ` · ${picture.spans} spans`),
    ...bar(picture.parts, total), axis, rows,
    picture.notes.length ? element("ul", { class: "notes" }, ...picture.notes.map((note) => element("li", {}, note))) : "",
  );
}
