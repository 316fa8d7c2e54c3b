/** The frames of `fairlead.v1`, as docs/protocol.md says them. */
import type { Problem } from "./errors.ts";

export const SUBPROTOCOL = "fairlead.v1";

/** Bytes of user data in one message. */
export const MAX_MESSAGE: number = 1024 * 1024;

export type ServerFrame =
  | { type: "welcome"; connection: string; cursor: string | null; recovered: boolean | null; window: number }
  | {
      type: "message";
      id: string | null;
      data: unknown;
      from?: string;
      run?: string;
      ref?: number;
      encoding?: "base64";
      trace?: string;
    }
  | { type: "ack"; ref: number; trace?: string }
  | { type: "error"; ref?: number; error: Problem }
  | { type: "waiting"; ref: number }
  | { type: "restart"; run: string; attempt: number; ref?: number }
  | { type: "end"; run: string }
  | { type: "cursor"; cursor: string }
  | { type: "gap"; cursor: string }
  | { type: "presence"; join: string[]; leave: string[] }
  | { type: "reconnect"; within: number };

/** @returns 128 random bits as hex, which is what makes a message's repetition known as one */
export function randomId(): string {
  const drawn = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns bytes of base64 */
export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function toBase64(bytes: Uint8Array): string {
  let letters = "";
  for (const byte of bytes) letters += String.fromCharCode(byte);
  return btoa(letters);
}

/**
 * JSON that a server can read: half a surrogate pair, as of an emoji that was cut in two, becomes
 * U+FFFD, as wherever a string becomes UTF-8. JSON.stringify writes it as an escape (and no whole
 * pair as two), which would make the frame no JSON to a strict parser.
 *
 * @returns undefined for what JSON has no word for
 */
export function toJson(value: unknown): string | undefined {
  const text = JSON.stringify(value) as string | undefined;
  return text?.replace(/\\(\\|ud[89a-f]..)/g, (found, what) => (what === "\\" ? found : "\ufffd"));
}

/**
 * The members of a message frame that hold its data, as they stand in the frame: so it is encoded
 * once, and a later change of the value changes nothing that was said.
 *
 * @throws TypeError for what JSON has no word for or is nested deeper than 254 levels, RangeError
 *   for what is too large
 */
export function encoded(data: unknown): string {
  let size: number;
  let members: string;
  if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    size = bytes.length;
    members = size > MAX_MESSAGE ? "" : `"data":"${toBase64(bytes)}","encoding":"base64"`;
  } else {
    const text = toJson(data);
    if (text === undefined) throw new TypeError(`a message's data is no ${typeof data}`);
    // A server can pass on no more. Written with indents, each line says how deep it is.
    if (text.length > 508 && /\n {255}/.test(JSON.stringify(data, null, 1))) {
      throw new TypeError("a message's data is nested deeper than 254 levels");
    }
    const said = typeof data === "string" ? data : text;
    // A letter has at most 3 bytes of UTF-8, so that few are ever counted.
    size = said.length * 3 > MAX_MESSAGE ? new TextEncoder().encode(said).length : 0;
    members = `"data":${text}`;
  }
  if (size > MAX_MESSAGE) throw new RangeError(`a message of ${size} bytes; at most ${MAX_MESSAGE} may be sent`);
  return members;
}
