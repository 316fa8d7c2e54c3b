/** Server-sent events over any fetch: EventSource can send no body and no headers. */

/**
 * The events of an answer, as they come.
 *
 * @param {Response} response
 * @yields {{event: string, data: string, id: string}}
 */
export async function* events(response) {
  let event = { event: "message", data: [], id: "" };
  for await (const line of lines(response.body)) {
    if (line === "") {
      if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
      event = { event: "message", data: [], id: event.id };
      continue;
    }
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line);
    if (name === "data") event.data.push(value);
    else if (name === "event" || name === "id") event[name] = value;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const found = (rest + value).split("\n");
    rest = found.pop();
    for (const line of found) yield line.replace(/\r$/, "");
  }
}
