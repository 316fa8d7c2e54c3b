"""What edge and worker send each other: a compact prefix, then the user's bytes untouched.

Headers would be easier to read and cost nats-py 6 µs a message (measured), so the
directed hops carry a prefix; who and which attempt stand in the NATS subject.

Work, edge → worker, network byte order::

    kind 1 | type 1 | sent 8 | len(trace) 2 | len(id) 2 | len(context) 4 | trace id context data

Answers, worker → edge: one byte of `Answer`, then what that kind says below.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead.errors import Malformed


class DataType(enum.StrEnum):
    """How the user's bytes are to be read; the letters are those of the header `Fl-Type`."""

    TEXT = "t"
    BINARY = "b"
    JSON = "j"


class Kind(enum.IntEnum):
    """What a worker is asked to run."""

    MESSAGE = ord("m")
    OPEN = ord("o")


class Answer(enum.IntEnum):
    """First byte of what a worker sends to an edge."""

    TAKEN = ord("T")  # the worker's id follows
    BUSY = ord("B")  # not taken: try another
    ITEM = ord("I")  # type 1 | data: one thing that execute returned or yielded
    EVENT = ord("V")  # len(meta) 2 | meta as JSON | type 1 | data: an item with SSE fields
    RESULT = ord("R")  # type 1 | data: the only item, and the end
    DONE = ord("D")  # the end: executed, and all it published is stored
    ERROR = ord("E")  # a problem as JSON: the end
    ASK = ord("Q")  # is this attempt still wanted? The edge replies b"1" or b"0"
    DIRECT = ord(
        "P"
    )  # len(topic) 2 | len(from) 2 | topic from | type 1 | data: from another client


class Control(enum.IntEnum):
    """First byte of what an edge sends to one worker; an attempt's key follows."""

    CANCEL = ord("C")
    CREDIT = ord("G")  # bytes 4 | key: so much was written to the client


_WORK = struct.Struct("!BcdHHI")
_LENGTHS = struct.Struct("!HH")
_LENGTH = struct.Struct("!H")
_CREDIT = struct.Struct("!BI")
_TYPES = {b"t": DataType.TEXT, b"b": DataType.BINARY, b"j": DataType.JSON}
_BYTES = {kind: letter for letter, kind in _TYPES.items()}


@dataclass(slots=True)  # not frozen: that makes it three times as dear, on each message
class Work:
    """One message or open, on its way to a worker.

    Attributes:
        sent: when the edge got it, in seconds since the epoch.
        trace: a traceparent (W3C), or "" where the message is not sampled.
        id: the client's own unique id of the message, or "".
        context: what `encode_context` made when the connection opened.
        data: the user's bytes.
    """

    kind: Kind
    type: DataType
    data: bytes
    sent: float = 0.0
    trace: str = ""
    id: str = ""
    context: bytes = b""


def encode_work(work: Work) -> bytes:
    trace, unique = work.trace.encode(), work.id.encode()
    head = _WORK.pack(
        work.kind, _BYTES[work.type], work.sent, len(trace), len(unique), len(work.context)
    )
    return b"".join((head, trace, unique, work.context, work.data))


def decode_work(payload: bytes) -> Work:
    """The inverse of `encode_work`.

    Raises:
        Malformed: the bytes are cut short or hold an unknown kind or type.
    """
    try:
        kind, letter, sent, trace_size, id_size, context_size = _WORK.unpack_from(payload)
        trace_at = _WORK.size
        id_at = trace_at + trace_size
        context_at = id_at + id_size
        data_at = context_at + context_size
        if data_at > len(payload):
            raise Malformed(f"work of {len(payload)} bytes announces {data_at}")
        return Work(
            kind=Kind(kind),
            type=_TYPES[letter],
            data=payload[data_at:],
            sent=sent,
            trace=payload[trace_at:id_at].decode(),
            id=payload[id_at:context_at].decode(),
            context=payload[context_at:data_at],
        )
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise Malformed(f"not a piece of work: {error}") from error
    except ValueError as error:
        raise Malformed(str(error)) from error


@dataclass(frozen=True, slots=True)
class Context:
    """What `execute` may know of the connection or request, besides the message."""

    query: dict[str, str]
    headers: dict[str, str]
    path: dict[str, str]


def encode_context(context: Context) -> bytes:
    """Encoded once per connection, sent with each of its messages, decoded when asked for."""
    if not (context.query or context.headers or context.path):
        return b""
    # A copy: what orjson returns keeps a buffer of 4 KB alive, and this lives with its connection.
    return bytes(memoryview(orjson.dumps([context.query, context.headers, context.path])))


def decode_context(payload: bytes) -> Context:
    if not payload:
        return Context({}, {}, {})
    try:
        query, headers, path = orjson.loads(payload)
        if not all(isinstance(part, dict) for part in (query, headers, path)):
            raise TypeError("expected three objects")
        return Context(query, headers, path)
    except (orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise Malformed(f"not a context: {error}") from error


# Answers. The functions are named for what they say; `Answer` lists the bytes.


def taken(worker: str) -> bytes:
    return b"T" + worker.encode()


def item(kind: Answer, data_type: DataType, data: bytes) -> bytes:
    """An ITEM or a RESULT."""
    return b"%c%b%b" % (kind, _BYTES[data_type], data)


def event(meta: dict[str, Any], data_type: DataType, data: bytes) -> bytes:
    """An EVENT; `meta` has the SSE fields `event`, `retry` (ms) and `comment` that were set."""
    fields = orjson.dumps(meta)
    return b"V%b%b%b%b" % (_LENGTH.pack(len(fields)), fields, _BYTES[data_type], data)


def error(problem: dict[str, Any]) -> bytes:
    return b"E" + orjson.dumps(problem)


def direct(topic: str, sender: str, data_type: DataType, data: bytes) -> bytes:
    """A DIRECT: delivered only if the peer's connection is of this topic."""
    a, b = topic.encode(), sender.encode()
    return b"P%b%b%b%b%b" % (_LENGTHS.pack(len(a), len(b)), a, b, _BYTES[data_type], data)


def decode_item(payload: bytes) -> tuple[DataType, bytes]:
    """Of an ITEM or a RESULT.

    Raises:
        Malformed: the type is unknown.
    """
    try:
        return _TYPES[payload[1:2]], payload[2:]
    except KeyError:
        raise Malformed(f"an item of unknown type {payload[1:2]!r}") from None


def decode_event(payload: bytes) -> tuple[dict[str, Any], DataType, bytes]:
    """Of an EVENT.

    Raises:
        Malformed: cut short, or the fields are not JSON.
    """
    try:
        (size,) = _LENGTH.unpack_from(payload, 1)
        meta = orjson.loads(payload[3 : 3 + size])
        if not isinstance(meta, dict):
            raise Malformed("the fields of an event are not an object")
        return meta, *decode_item(payload[2 + size :])
    except (struct.error, orjson.JSONDecodeError) as error:
        raise Malformed(f"not an event: {error}") from error


def decode_direct(payload: bytes) -> tuple[str, str, DataType, bytes]:
    """(topic, sender, type, data) of a DIRECT.

    Raises:
        Malformed: cut short.
    """
    try:
        topic_size, sender_size = _LENGTHS.unpack_from(payload, 1)
        start = 1 + _LENGTHS.size
        middle, end = start + topic_size, start + topic_size + sender_size
        topic, sender = payload[start:middle].decode(), payload[middle:end].decode()
        return topic, sender, *decode_item(payload[end - 1 :])
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"not a direct message: {error}") from error


def decode_error(payload: bytes) -> dict[str, Any]:
    """The problem of an ERROR.

    Raises:
        Malformed: it is not a JSON object.
    """
    try:
        problem = orjson.loads(payload[1:])
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not a problem: {error}") from error
    if not isinstance(problem, dict):
        raise Malformed("a problem is not an object")
    return problem


# Control, edge → worker


def cancel(key: str) -> bytes:
    return b"C" + key.encode()


def credit(key: str, size: int) -> bytes:
    return _CREDIT.pack(Control.CREDIT, size) + key.encode()


def decode_control(payload: bytes) -> tuple[Control, str, int]:
    """(what, the attempt's key, bytes of credit).

    Raises:
        Malformed: unknown or cut short.
    """
    try:
        what = Control(payload[0])
        if what is Control.CANCEL:
            return what, payload[1:].decode(), 0
        _, size = _CREDIT.unpack_from(payload)
        return what, payload[_CREDIT.size :].decode(), size
    except (IndexError, ValueError, struct.error) as error:
        raise Malformed(f"not a control message: {error}") from error


def key(connection: str, message: int, attempt: int) -> str:
    """The name of one attempt at one message, as beats and control messages use it."""
    return f"{connection}.{message}.{attempt}"
