// A little help with elements, and tables that change in place, so that whoever has the focus keeps it.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const $ = (id) => document.getElementById(id);

/** columns: [{title, text(row), class?(row), cell?(row): Node made once per key}] */
export function table(into, columns, rows, key, { empty, inAll = rows.length } = {}) {
  let state = into.state;
  if (!state) {
    const body = element("tbody");
    const head = element("tr", {}, ...columns.map((c) => element("th", { class: c.n ? "n" : "", scope: "col" }, c.title)));
    state = into.state = {
      body, byKey: new Map(), table: element("table", {}, element("thead", {}, head), body),
      empty: element("p", { class: "empty" }), more: element("p", { class: "more" }),
    };
    into.append(state.table, state.empty, state.more);
  }
  state.table.hidden = rows.length === 0;
  state.empty.hidden = rows.length !== 0;
  if (rows.length === 0 && state.empty.textContent !== empty) state.empty.textContent = empty ?? "";
  state.more.hidden = inAll <= rows.length;
  state.more.textContent = `and ${inAll - rows.length} more`;
  const seen = new Set();
  rows.forEach((row, place) => {
    const name = key(row);
    seen.add(name);
    let line = state.byKey.get(name);
    if (!line) {
      line = element("tr", {}, ...columns.map((c) => element("td", { class: c.n ? "n" : "" }, c.cell ? c.cell(row) : "")));
      state.byKey.set(name, line);
    }
    columns.forEach((column, index) => {
      const cell = line.cells[index];
      if (column.text) {
        const text = column.text(row);
        if (cell.textContent !== text) cell.textContent = text;
      }
      const kind = `${column.n ? "n " : ""}${column.class ? column.class(row) : ""}`.trim();
      if (cell.className !== kind) cell.className = kind;
    });
    if (state.body.rows[place] !== line) state.body.insertBefore(line, state.body.rows[place] ?? null);
  });
  for (const [name, line] of state.byKey) {
    if (!seen.has(name)) {
      line.remove();
      state.byKey.delete(name);
    }
  }
}

/** Arrow keys, Home and End move among items; returns the handler. */
export function roving(items, go) {
  return (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement.closest?.("[role=tab],[role=option],.row") ?? document.activeElement);
    const next = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (next === undefined || !all.length) return;
    event.preventDefault();
    go(all[(next + all.length) % all.length]);
  };
}
