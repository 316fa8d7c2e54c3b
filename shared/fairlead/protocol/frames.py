"""The subprotocol `fairlead.v1`: JSON text frames, both ways.

Built by hand around the user's bytes where these are JSON already, so that a room's
message is parsed once per edge and never once per member.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead.errors import BadFrame
from fairlead.protocol.envelope import DataType

SUBPROTOCOL = "fairlead.v1"

WINDOW = 16
"""Messages of one client that may be unacknowledged; more closes with 4501."""

MALFORMED_LIMIT = 10
"""So many malformed frames in a row close with 1008."""

MAX_FRAME = 6 * 1024 * 1024 + 64 * 1024
"""Bytes of one frame: JSON may write each byte of user data as six (`\\u0000`)."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """`{"type":"message"}` of a client; `type` and `data` are decoded from it."""

    ref: int
    type: DataType
    data: bytes
    id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """`{"type":"cancel"}`: one of `ref` and `run` is set; `key` is the run's token, or ""."""

    ref: int | None
    run: str | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Refresh:
    """`{"type":"refresh"}`."""

    token: str


def parse(text: str | bytes) -> ClientMessage | Cancel | Refresh:
    """Read a client's frame.

    Raises:
        BadFrame: not JSON, not an object, of an unknown type, or a member is missing or
            of the wrong kind; with the frame's `ref` where that could be read.
    """
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"not JSON: {error}") from None
    if not isinstance(frame, dict):
        raise BadFrame("not a JSON object")
    ref = frame.get("ref")
    if type(ref) is not int or ref < 1:
        ref = None
    match frame.get("type"):
        case "message":
            return _message(frame, ref)
        case "cancel":
            run = frame.get("run")
            if ref is None and not isinstance(run, str):
                raise BadFrame("cancel needs a ref (a positive integer) or a run (a string)")
            key = frame.get("key", "")
            if not isinstance(key, str):
                raise BadFrame("key must be a string", ref)
            return Cancel(ref, run if ref is None else None, key)
        case "refresh":
            if not isinstance(frame.get("token"), str):
                raise BadFrame("refresh needs a token (a string)", ref)
            return Refresh(frame["token"])
        case other:
            raise BadFrame(
                f"type {_shown(other)} is unknown; expected message, cancel or refresh", ref
            )


def _message(frame: dict[str, Any], ref: int | None) -> ClientMessage:
    if ref is None:
        raise BadFrame("message needs a ref: a positive integer, growing")
    if "data" not in frame:
        raise BadFrame("message needs data", ref)
    unique, trace = frame.get("id", ""), frame.get("traceparent", "")
    if not isinstance(unique, str) or len(unique) > 128:
        raise BadFrame("id must be a string of at most 128 characters", ref)
    if not isinstance(trace, str):
        raise BadFrame("traceparent must be a string", ref)
    data_type, data = _data(frame["data"], frame.get("encoding"), ref)
    return ClientMessage(ref, data_type, data, unique, trace)


def _data(value: Any, encoding: Any, ref: int) -> tuple[DataType, bytes]:
    if encoding is not None and encoding != "base64":
        raise BadFrame(f"encoding {_shown(encoding)} is unknown; expected base64", ref)
    if encoding == "base64":
        if not isinstance(value, str):
            raise BadFrame("data in base64 must be a string", ref)
        try:
            return DataType.BINARY, base64.b64decode(value, validate=True)
        except ValueError as error:  # also for a letter beyond ASCII, which is no binascii.Error
            raise BadFrame(f"data is not base64: {error}", ref) from None
    if isinstance(value, str):
        return DataType.TEXT, value.encode()
    try:
        return DataType.JSON, orjson.dumps(value)
    except orjson.JSONEncodeError as error:  # it reads 1024 levels and writes 254
        raise BadFrame(f"data cannot be passed on: {error}", ref) from None


def _shown(value: Any) -> str:
    """For an error's text; a nested value only by its kind: its repr may be too deep for Python."""
    return repr((type(value).__name__ if isinstance(value, dict | list) else str(value))[:40])


def json_value(data_type: DataType, data: bytes) -> tuple[bytes, bool]:
    """User data as JSON text, and whether that is base64 in a string.

    `data` of type JSON is taken as it is: whoever lets it in has parsed it.
    """
    if data_type is DataType.JSON:
        return data, False
    if data_type is DataType.TEXT:
        return orjson.dumps(data.decode()), False
    return b'"%b"' % base64.b64encode(data), True


def welcome(connection: str, cursor: str | None, recovered: bool | None, window: int) -> bytes:
    return orjson.dumps(
        {
            "type": "welcome",
            "connection": connection,
            "cursor": cursor,
            "recovered": recovered,
            "window": window,
        }
    )


def message(
    data_type: DataType,
    data: bytes,
    *,
    id: str | None = None,
    sender: str = "",
    run: str = "",
    ref: int | None = None,
    trace: str = "",
) -> bytes:
    """A message to a client; members that are empty are left out, `id` is always there.

    Args:
        sender, run, trace: of characters that JSON needs not escape (ids of ours).
    """
    value, is_base64 = json_value(data_type, data)
    parts = [b'{"type":"message","id":', b"null" if id is None else b'"%b"' % id.encode()]
    parts += (b',"data":', value)
    if sender:
        parts.append(b',"from":%b' % orjson.dumps(sender))
    if run:
        parts.append(b',"run":"%b"' % run.encode())
    if ref is not None:
        parts.append(b',"ref":%d' % ref)
    if is_base64:
        parts.append(b',"encoding":"base64"')
    if trace:
        parts.append(b',"trace":"%b"' % trace.encode())
    parts.append(b"}")
    return b"".join(parts)


def ack(ref: int, trace: str = "") -> bytes:
    if trace:
        return b'{"type":"ack","ref":%d,"trace":"%b"}' % (ref, trace.encode())
    return b'{"type":"ack","ref":%d}' % ref


def error(problem: dict[str, Any], ref: int | None = None) -> bytes:
    frame: dict[str, Any] = {"type": "error"}
    if ref is not None:
        frame["ref"] = ref
    frame["error"] = problem
    return orjson.dumps(frame)


def waiting(ref: int) -> bytes:
    return b'{"type":"waiting","ref":%d}' % ref


def restart(run: str, attempt: int, ref: int | None) -> bytes:
    """Args: ref: of the message that runs; None for the run of a connection."""
    frame = {"type": "restart", "run": run, "attempt": attempt}
    return orjson.dumps(frame if ref is None else {**frame, "ref": ref})


def end(run: str) -> bytes:
    return orjson.dumps({"type": "end", "run": run})


def cursor(at: str) -> bytes:
    return orjson.dumps({"type": "cursor", "cursor": at})


def gap(at: str | None) -> bytes:
    """Args: at: cursor of the last message that is lost; None in a room without history."""
    return orjson.dumps({"type": "gap", "cursor": at})


def reconnect(within: int) -> bytes:
    """Args: within: milliseconds."""
    return orjson.dumps({"type": "reconnect", "within": within})
