"""Cursors: a place in a room's log or a run's, or the end of a run. Opaque to clients.

A cursor holds all that a resume needs on any edge and grants nothing. As bytes,
before base64url::

    version 1 | kind 1 | check 4 | …                                 network byte order
    kind "p", position:  created 8 | sequence 8 | time 8             nanoseconds, count, ms
    kind "s", several:   created 8 | time 8 | sequence 8 | …         one for each room, by name
    kind "r", run:       created 8 | sequence 8 | number 4 | index 4 | proof 8 | the run's id
    kind "e", end:       the run's id

`check` is a digest of what the cursor belongs to (the room, or the endpoint of the
run), so that a cursor taken from elsewhere is foreign and never a wrong position.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache

from fairlead.errors import Malformed

_HEAD = struct.Struct("!Bc4s")
_POSITION = struct.Struct("!QQQ")
_PLACE = struct.Struct("!QQII8s")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Position:
    """All of a room's log up to `sequence` was seen, and that was current at `time`.

    Attributes:
        created: when the stream was created, in ns since the epoch; another value is another log.
        sequence: the stream's sequence, counted over all of its rooms.
        time: the server's time, in ms since the epoch.
    """

    created: int
    sequence: int
    time: int


@dataclass(frozen=True, slots=True)
class Several:
    """Positions in several rooms of one topic, and so of one stream.

    Attributes:
        created: when the stream was created, in ns since the epoch.
        time: the oldest of their times, in ms since the epoch.
        sequences: of each room, in the order of their channels' names.
    """

    created: int
    time: int
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Everything that a run said up to an item was seen.

    Attributes:
        created: when the runs' stream was created, in ns since the epoch.
        sequence: the stream's sequence of the entry that has the last item.
        number: of the entry that comes next, counted in the run, or that is seen in part.
        index: how many of its answers were seen.
        proof: a digest of the run's key.
    """

    run: str
    created: int
    sequence: int
    number: int
    index: int
    proof: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The output of a run ended here: nothing follows, and nothing is to be run again."""

    run: str


@lru_cache(maxsize=4096)
def _check(owner: str) -> bytes:
    return hashlib.sha256(owner.encode()).digest()[:4]


Cursor = Position | Several | RunPlace | End


def encode(cursor: Cursor, owner: str) -> str:
    """Make the text that clients see.

    Args:
        owner: what the cursor belongs to: the room's NATS subject (of several, all of them), or
            the run's endpoint.
    """
    if isinstance(cursor, Position):
        body = _POSITION.pack(cursor.created, cursor.sequence, cursor.time)
        kind = b"p"
    elif isinstance(cursor, Several):
        numbers = cursor.created, cursor.time, *cursor.sequences
        body = struct.pack(f"!{len(numbers)}Q", *numbers)
        kind = b"s"
    elif isinstance(cursor, RunPlace):
        place = cursor.created, cursor.sequence, cursor.number, cursor.index, cursor.proof
        body = _PLACE.pack(*place) + cursor.run.encode()
        kind = b"r"
    else:
        body = cursor.run.encode()
        kind = b"e"
    raw = _HEAD.pack(_VERSION, kind, _check(owner)) + body
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str, owner: str) -> Cursor:
    """The inverse of `encode`.

    Raises:
        Malformed: not a cursor of ours, of another version, or of another owner.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, kind, check = _HEAD.unpack_from(raw)
        body = raw[_HEAD.size :]
        if version != _VERSION or check != _check(owner):
            raise Malformed("a cursor from elsewhere")
        if kind == b"e":
            return End(body.decode())
        if kind == b"p" and len(body) == _POSITION.size:
            return Position(*_POSITION.unpack(body))
        if kind == b"r":
            return RunPlace(body[_PLACE.size :].decode(), *_PLACE.unpack_from(body))
        if kind == b"s":
            created, time, *sequences = struct.unpack(f"!{len(body) // 8}Q", body)
            return Several(created, time, tuple(sequences))
    except (binascii.Error, struct.error, UnicodeError, ValueError) as error:
        raise Malformed(f"not a cursor: {error}") from error
    raise Malformed("not a cursor")
