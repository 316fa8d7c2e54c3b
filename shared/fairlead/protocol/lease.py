"""One runner per room: the lease that it holds, the fence on what it says, and who wants it.

Pure; every time comes in as an argument. The lease is a key that NATS forgets TTL seconds after
it was last written. Three clocks keep a runner that lost it from being heard:

- its own: it says nothing once its last renewal was sent TRUST seconds ago;
- the server's: each item names the moment until which the lease was sure to hold, and what is
  stored later is not shown. This needs no memory, so who replays a room sees what all saw;
- the order of runners: after an item of a later one, no edge shows an item of an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from fairlead.errors import Malformed

TTL = 5.0
"""Seconds after its last renewal at which NATS forgets a lease."""

RENEW = 1.5
"""Seconds between two renewals."""

TRUST = 3.0
"""Seconds after a renewal was sent in which its runner may speak."""

MARGIN = 1.0
"""Seconds before the end of a lease after which what is stored is not shown: NATS servers'
clocks may differ by so much."""

WANT_EVERY = 2.0
"""Seconds between two words of an edge to the runner of a room in which it has members."""

SEEK_EVERY = 1.0
"""Seconds between two words of an edge to all workers while no runner answers."""

LATE = 3.5
"""Seconds after a renewal at which an item that named it may have been stored too late to be
shown; up to MARGIN / 2 of what remains is the time that a look at the server's clock may take."""

SILENT_AFTER = 3.0
"""Seconds without an answer after which an edge asks other workers, too."""

EDGE_GONE_AFTER = 6.0
"""Seconds without a word after which an edge has no members any more, for its runner."""

LINGER = 0.5
"""Seconds from the last good-bye to the end of the run: those who reload come back at once."""

PAUSES = (1.0, 30.0)
"""Seconds, first and longest, until an `execute` that raised is started again; they double."""


class State(NamedTuple):
    """What is known of a room's runs while the room has members; edges carry it from runner to runner.

    Attributes:
        attempt: how often `execute` was started, by whichever worker.
        over: it returned, so nothing is started until the room was empty.
    """

    attempt: int = 0
    over: bool = False

    def merged(self, other: State) -> State:
        """What two who know something of one room know together."""
        return State(max(self.attempt, other.attempt), self.over or other.over)


# What edges and runners tell each other, as JSON


class Word(NamedTuple):
    """From an edge: it has members in the room, or has none any more, and what it knows of the room."""

    edge: str
    here: bool
    state: State = State()

    def encode(self) -> bytes:
        return orjson.dumps([self.edge, self.here, *self.state])


class Standing(NamedTuple):
    """From a runner: it has the room, or has just given it up, and how far the room is."""

    held: bool
    state: State

    def encode(self) -> bytes:
        return orjson.dumps([self.held, *self.state])


def decode_word(payload: bytes) -> Word:
    """The inverse of `Word.encode`.

    Raises:
        Malformed: it is none.
    """
    edge, here, attempt, over = _fields(payload, (str, bool, int, bool))
    return Word(edge, here, State(attempt, over))


def decode_standing(payload: bytes) -> Standing:
    """The inverse of `Standing.encode`.

    Raises:
        Malformed: it is none.
    """
    held, attempt, over = _fields(payload, (bool, int, bool))
    return Standing(held, State(attempt, over))


class Entry(NamedTuple):
    """The lease's value: who has it, "" once it was given back, and how far the room is."""

    worker: str
    state: State

    def encode(self) -> bytes:
        return orjson.dumps([self.worker, *self.state])


def decode_entry(payload: bytes) -> Entry:
    """The inverse of `Entry.encode`.

    Raises:
        Malformed: it is none.
    """
    worker, attempt, over = _fields(payload, (str, int, bool))
    return Entry(worker, State(attempt, over))


def _fields(payload: bytes, types: tuple[type, ...]) -> Any:
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from error
    if type(fields) is not list or tuple(map(type, fields)) != types:
        raise Malformed(f"expected {[kind.__name__ for kind in types]}, found {payload[:80]!r}")
    return fields


# The runner


@dataclass(slots=True)
class Lease:
    """What a runner has.

    Attributes:
        fence: larger than that of each runner of the room before it.
        revision: of its last write, which the next one must name.
        sent: loop time at which that was sent.
        ahead: ms that the server's clock is ahead of loop time, at least.
    """

    fence: int
    revision: int
    sent: float
    ahead: float

    def good(self, now: float) -> bool:
        """Whether the runner may speak."""
        return now - self.sent < TRUST

    def lost(self, now: float) -> bool:
        """Whether another may have it by now."""
        return now - self.sent >= TTL

    @property
    def until(self) -> int:
        """The server's time in ms up to which what it says is shown."""
        return int(self.sent * 1000 + self.ahead + (TTL - MARGIN) * 1000)

    def renewed(self, revision: int, sent: float) -> None:
        self.revision, self.sent = revision, sent


@dataclass(slots=True)
class Wanted:
    """Which edges have members in the room, as its runner hears.

    Attributes:
        heard: edge → loop time of its last word.
        since: loop time of the last word at all, while no edge is known.
    """

    since: float
    heard: dict[str, float] = field(default_factory=dict)

    def word(self, word: Word, now: float) -> None:
        if word.here:
            self.heard[word.edge] = now
        elif self.heard.pop(word.edge, None) is not None:
            self.since = now

    def nobody(self, now: float) -> bool:
        """Whether the room is empty, and was so for a moment."""
        for edge, at in list(self.heard.items()):
            if now - at >= EDGE_GONE_AFTER:
                del self.heard[edge]
        return not self.heard and now - self.since >= LINGER

    def unheard(self, now: float) -> None:
        """Nobody could be heard: NATS, or this worker, was away."""
        self.heard = dict.fromkeys(self.heard, now)


def pause(failures: int) -> float:
    """Seconds after so many failures in a row."""
    first, longest = PAUSES
    return min(longest, first * 2.0 ** min(failures - 1, 10))


# The fence on a room's items


def stamp(workflow: str, lease: Lease) -> str:
    """The header `Fl-Fence` of an item. Args: workflow: `<feature>.<workflow>`."""
    return f"{workflow}:{lease.fence}:{lease.until}"


_DIGITS = 19
"""Of a fence, and of a time: a number of 63 bits has no more."""


class Fences:
    """The highest fence of each workflow that was seen in a room so far, in the order of its log."""

    __slots__ = ("_highest",)

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def passes(self, stamped: str, stored: int | None) -> bool:
        """Whether an item is to be shown.

        Args:
            stamped: its header `Fl-Fence`; what is no stamp fences nothing, as publishers are free.
            stored: the server's time in ms at which it was stored; None in a room without history.
        """
        workflow, _, rest = stamped.partition(":")
        fence, _, until = rest.partition(":")
        if not (fence.isdecimal() and until.isdecimal()) or len(rest) > 2 * _DIGITS + 1:
            return True
        if stored is not None and stored > int(until):
            return False
        if int(fence) < self._highest.get(workflow, 0):
            return False
        self._highest[workflow] = int(fence)
        return True


def parameters(levels: Iterable[str], topic: str) -> dict[str, str]:
    """The values of a topic template's `{parameters}` in a topic's name."""
    pairs = zip(levels, topic.split("."), strict=True)
    return {level[1:-1]: value for level, value in pairs if level.startswith("{")}
