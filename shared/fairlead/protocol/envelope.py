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
from collections.abc import Iterable
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

    MESSAGE = ord("m")  # one message of a client
    OPEN = ord("o")  # the run of a connection or a stream: check it, then run
    REOPEN = ord("r")  # the same once it was accepted, on another worker: run
    CHECK = ord("c")  # policies and inputs only
    ADMIT = ord("p")  # policies only: who asks for a run that is there


class Answer(enum.IntEnum):
    """First byte of what a worker says to an edge."""

    TAKEN = ord("T")  # worker id: it is in my hands, my beats will list it
    BUSY = ord("B")  # not now
    ACCEPTED = ord("A")  # an open or a check has passed: JSON [subject's id, subject]
    ITEM = ord("I")  # type 1 | data: to this client
    EVENT = ord("V")  # len(meta) 2 | meta as JSON | type 1 | data: an item with SSE fields
    RESULT = ord("R")  # type 1 | data: the only item, and the end
    READ = ord("N")  # number 4: the run has done with the client's messages up to this one
    DROPPED = ord("X")  # number 4: this message of the client was cancelled before it was read
    DONE = ord("D")  # the end: executed, and all it published is stored
    ERROR = ord("E")  # a problem as JSON: the end
    LEFT = ord("L")  # this worker stops: open the run on another
    START = ord("S")  # a run's attempt begins; only in logs of runs: see runlog.Start
    ASK = ord("Q")  # is this attempt still wanted? The edge replies b"1" or b"0"
    CENSUS = ord("C")  # keys as a JSON list: the edge replies with those that are not wanted
    RUN = ord("U")  # from another edge, JSON of a `Wanted`: something is wanted of a run of yours
    DIRECT = ord("P")  # len(topic) 2 | len(from) 2 | topic from | type 1 | data: from a peer


class Wish(enum.StrEnum):
    """What a client of another edge wants of a run."""

    CANCEL = "cancel"
    COPY = "copy"  # pass on what it says, for the next two beats
    PLACE = "place"  # whose policies are to be asked: the edge replies with a `place`


class Control(enum.IntEnum):
    """First byte of what an edge sends to one worker: kind 1 | number 4 | len(key) 2 | key | data."""

    CANCEL = ord("C")
    CREDIT = ord("G")  # number: so many bytes were written to the client
    INPUT = ord("I")  # number: of the client's message in the connection; data: it, as work
    DROP = ord("X")  # number: of a message that the client does not want read any more


_WORK = struct.Struct("!BcdHHI")
_LENGTHS = struct.Struct("!HH")
_LENGTH = struct.Struct("!H")
_CONTROL = struct.Struct("!BIH")
_NUMBER = struct.Struct("!I")
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
    """What `execute` may know of the connection or request, besides the message.

    Attributes:
        query: a name that stands twice has the list of its values.
        subject: who the client is, as the policies found (JSON); None without one.
    """

    query: dict[str, str | list[str]]
    headers: dict[str, str]
    path: dict[str, str]
    subject: Any = None


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """A query's pairs by name."""
    query: dict[str, str | list[str]] = {}
    for name, value in pairs:
        before = query.get(name)
        if before is None:
            query[name] = value
        else:
            query[name] = [*(before if isinstance(before, list) else [before]), value]
    return query


def encode_context(context: Context) -> bytes:
    """Encoded once per connection, sent with each of its messages, decoded when asked for."""
    parts = [context.query, context.headers, context.path]
    if context.subject is not None:
        parts.append(context.subject)
    elif not any(parts):
        return b""
    # A copy: what orjson returns keeps a buffer of 4 KB alive, and this lives with its connection.
    return bytes(memoryview(orjson.dumps(parts)))


def decode_context(payload: bytes) -> Context:
    if not payload:
        return Context({}, {}, {})
    try:
        query, headers, path, *subject = orjson.loads(payload)
        if not all(isinstance(part, dict) for part in (query, headers, path)):
            raise TypeError("expected three objects")
        return Context(query, headers, path, *subject)
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


def accepted(who: str, subject: Any) -> bytes:
    """Args: who: the subject's id, or ""; subject: a JSON value, None without one."""
    return b"A" + orjson.dumps([who, subject])


def decode_accepted(payload: bytes) -> tuple[str, Any]:
    """The inverse of `accepted`.

    Raises:
        Malformed: it is none.
    """
    try:
        who, subject = orjson.loads(payload[1:])
        return str(who), subject
    except (ValueError, TypeError) as error:
        raise Malformed(f"not an acceptance: {error}") from error


def counted(kind: Answer, number: int) -> bytes:
    """A READ or a DROPPED."""
    return b"%c%b" % (kind, _NUMBER.pack(number))


def decode_counted(payload: bytes) -> int:
    """The number of a READ or a DROPPED.

    Raises:
        Malformed: cut short.
    """
    try:
        (number,) = _NUMBER.unpack_from(payload, 1)
        return int(number)
    except struct.error as error:
        raise Malformed(f"not a number: {error}") from error


def census(keys: list[str]) -> bytes:
    return b"C" + orjson.dumps(keys)


def decode_census(payload: bytes) -> list[str]:
    """The keys of a CENSUS.

    Raises:
        Malformed: it is no list of strings.
    """
    try:
        keys = orjson.loads(payload[1:])
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not a census: {error}") from error
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Malformed("a census is not a list of keys")
    return keys


def error(problem: dict[str, Any]) -> bytes:
    return b"E" + orjson.dumps(problem)


def direct(topic: str, sender: str, data_type: DataType, data: bytes) -> bytes:
    """A DIRECT: delivered only if the peer's connection is of this topic."""
    a, b = topic.encode(), sender.encode()
    return b"P%b%b%b%b%b" % (_LENGTHS.pack(len(a), len(b)), a, b, _BYTES[data_type], data)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wish of a client elsewhere.

    Attributes:
        number: of the run in its connection; key: its token, or "".
        of: (feature, workflow) whose policies were asked; who: the subject that they found, or "".
    """

    number: int
    wish: Wish
    of: tuple[str, str] = ("", "")
    key: str = ""
    who: str = ""


def run(wanted: Wanted) -> bytes:
    return b"U" + orjson.dumps([wanted.number, wanted.wish, *wanted.of, wanted.key, wanted.who])


def decode_run(payload: bytes) -> Wanted:
    """The inverse of `run`.

    Raises:
        Malformed: it is none.
    """
    try:
        number, wish, feature, workflow, key, who = orjson.loads(payload[1:])
        return Wanted(int(number), Wish(wish), (feature, workflow), str(key), str(who))
    except (ValueError, TypeError) as error:
        raise Malformed(f"not a wish for a run: {error}") from error


def place(inbound: str, path: dict[str, str]) -> bytes:
    """Where a run was begun: NATS subject of its work, parameters of its endpoint's path."""
    return orjson.dumps([inbound, path])


def decode_place(payload: bytes) -> tuple[str, dict[str, str]]:
    """The inverse of `place`.

    Raises:
        Malformed: it is none.
    """
    try:
        inbound, path = orjson.loads(payload)
        return str(inbound), dict(path)
    except (ValueError, TypeError) as error:
        raise Malformed(f"not the place of a run: {error}") from error


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


def control(what: Control, key: str, number: int = 0, data: bytes = b"") -> bytes:
    """Args: number, data: as `Control` says for each kind."""
    encoded = key.encode()
    return _CONTROL.pack(what, number, len(encoded)) + encoded + data


def decode_control(payload: bytes) -> tuple[Control, str, int, bytes]:
    """(what, the attempt's key, number, data).

    Raises:
        Malformed: unknown or cut short.
    """
    try:
        what, number, size = _CONTROL.unpack_from(payload)
        end = _CONTROL.size + size
        if end > len(payload):
            raise Malformed(f"a control message of {len(payload)} bytes announces {end}")
        return Control(what), payload[_CONTROL.size : end].decode(), number, payload[end:]
    except (UnicodeDecodeError, ValueError, struct.error) as error:
        raise Malformed(f"not a control message: {error}") from error


def key(connection: str, message: int, attempt: int) -> str:
    """The name of one attempt at one message, as beats and control messages use it."""
    return f"{connection}.{message}.{attempt}"
