"""The output of a run with `resume` as a log: what its worker stores, and its viewers' edges read.

A run has three NATS subjects in one stream. `open` has an `Opening`: all that is needed to begin
it again. `log` has an `Entry` for all that was said within some milliseconds. `end` says that it
is over, and when what it said may be forgotten.

Whoever has the run writes each entry on the condition that the one before is the last one of the
log. So a worker that was taken for dead, and speaks again, is refused by the stream: what one
attempt said is never mixed with what another one says.

An entry, network byte order::

    number 4 | attempt 4 | (size 4 | answer) …      answers as in `envelope`: I, V, R, D, E, S, L
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from fairlead.errors import Malformed
from fairlead.protocol.delivery import INNOCENT_AFTER, MAX_LOST
from fairlead.protocol.envelope import Answer

_ENTRY = struct.Struct("!II")
_SIZE = struct.Struct("!I")

LAST = frozenset({Answer.RESULT, Answer.DONE, Answer.ERROR})
"""Nothing follows these."""


class Opening(NamedTuple):
    """What a run began with, as it is kept for those who take it up.

    Attributes:
        inbound: NATS subject of the workflow's work, with topic and channel.
        key: the run's token; whoever has it may read and cancel.
        who: id of the subject that began it, or "".
        resume: seconds.
        work: as `envelope.encode_work` made it; its context has no credentials.
    """

    inbound: str
    key: str
    who: str
    resume: float
    work: bytes


class Start(NamedTuple):
    """An attempt begins.

    Attributes:
        worker: who has it.
        losses: workers that were lost with the run in hand before, one soon after the other.
        at: seconds since the epoch.
        trace: traceparent of its execution, or "" where that is not sampled.
    """

    worker: str
    losses: int
    at: float
    trace: str = ""

    def encode(self) -> bytes:
        return b"S" + orjson.dumps(tuple(self) if self.trace else self[:-1])

    @property
    def deadly(self) -> bool:
        """Whether so many workers died of the run that it is not to be given to another."""
        return self.losses >= MAX_LOST

    def next(self, worker: str, left: bool, at: float) -> Start:
        """The attempt after this one; it has this one's trace until it has one of its own.

        Args:
            left: this one's worker was told to stop, and handed the run over.
        """
        if left:
            return Start(worker, self.losses, at, self.trace)
        losses = self.losses + 1 if at - self.at < INNOCENT_AFTER else 1
        return Start(worker, losses, at, self.trace)


def decode_start(answer: bytes) -> Start:
    """The inverse of `Start.encode`.

    Raises:
        Malformed: it is none.
    """
    try:
        worker, losses, at, *trace = orjson.loads(answer[1:] if answer[:1] == b"S" else b"")
        return Start(str(worker), int(losses), float(at), *map(str, trace[:1]))
    except (ValueError, TypeError) as error:
        raise Malformed(f"not the start of an attempt: {error}") from error


class Entry(NamedTuple):
    """What a run said within some milliseconds.

    Attributes:
        number: 1, 2, …; over all attempts, without a hole.
        attempt: who said it. The first entry of each begins with START.
        said: answers of `envelope`.
    """

    number: int
    attempt: int
    said: Sequence[bytes]

    @property
    def begins(self) -> bool:
        """Whether it is the first one of an attempt: what came before does not count any more."""
        return self.said[0][0] == Answer.START

    @property
    def left(self) -> bool:
        """Whether its worker handed the run over with it."""
        return self.said[-1][0] == Answer.LEFT

    @property
    def ends(self) -> bool:
        """Whether the run is over with it."""
        return self.said[-1][0] in LAST


def encode_opening(opening: Opening) -> bytes:
    head = orjson.dumps(opening[:-1])
    return _SIZE.pack(len(head)) + head + opening.work


def decode_opening(payload: bytes) -> Opening:
    """The inverse of `encode_opening`.

    Raises:
        Malformed: it is none.
    """
    try:
        (size,) = _SIZE.unpack_from(payload)
        start = _SIZE.size + size
        inbound, key, who, resume = orjson.loads(payload[_SIZE.size : start])
        return Opening(str(inbound), str(key), str(who), float(resume), payload[start:])
    except (struct.error, ValueError, TypeError) as error:
        raise Malformed(f"not the opening of a run: {error}") from error


def encode_entry(entry: Entry) -> bytes:
    parts = [_ENTRY.pack(entry.number, entry.attempt)]
    for answer in entry.said:
        parts += (_SIZE.pack(len(answer)), answer)
    return b"".join(parts)


def decode_entry(payload: bytes) -> Entry:
    """The inverse of `encode_entry`.

    Raises:
        Malformed: cut short, or empty.
    """
    try:
        number, attempt = _ENTRY.unpack_from(payload)
        said: list[bytes] = []
        at = _ENTRY.size
        while at < len(payload):
            (size,) = _SIZE.unpack_from(payload, at)
            at += _SIZE.size
            said.append(payload[at : at + size])
            at += size
            if not size or at > len(payload):
                raise Malformed(f"an entry of {len(payload)} bytes announces {at}")
    except struct.error as error:
        raise Malformed(f"not an entry of a run's log: {error}") from error
    if not said:
        raise Malformed("an entry of a run's log says nothing")
    return Entry(number, attempt, said)


def proof(key: str) -> bytes:
    """What a cursor has of a run's key: who has it was a viewer, and cannot cancel by it."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8]


# What an edge tells whoever has the run; the reply is b"1".


class Viewing(NamedTuple):
    """Who reads on an edge.

    Attributes:
        viewers: how many; 0 when the last one has left.
        read: stream sequence of the newest entry that the quickest of them has been sent.
    """

    edge: str
    viewers: int
    read: int


CANCEL = b"C"
"""End it."""


def encode_viewing(viewing: Viewing) -> bytes:
    return b"V" + orjson.dumps(tuple(viewing))


def decode_control(payload: bytes) -> Viewing | None:
    """What an edge says; None is CANCEL.

    Raises:
        Malformed: neither.
    """
    if payload == CANCEL:
        return None
    try:
        edge, viewers, read = orjson.loads(payload[1:] if payload[:1] == b"V" else b"")
        return Viewing(str(edge), int(viewers), int(read))
    except (ValueError, TypeError) as error:
        raise Malformed(f"not a word to a run: {error}") from error


def encode_end(ended: float, resume: float) -> bytes:
    """Args: ended: seconds since the epoch; resume: seconds for which its output is kept."""
    return orjson.dumps([ended, resume])


def decode_end(payload: bytes) -> float:
    """Seconds since the epoch after which a run may be forgotten.

    Raises:
        Malformed: it is no end.
    """
    try:
        ended, resume = orjson.loads(payload)
        return float(ended) + float(resume)
    except (ValueError, TypeError) as error:
        raise Malformed(f"not the end of a run: {error}") from error
