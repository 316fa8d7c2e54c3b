"""The newest messages of a room, kept on this edge: whoever was away for a moment is served from it.

Pure. Without it each of a room's members that comes back would cost the room's stream a read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

ROOM_LIMIT = 256 * 1024
"""Bytes that are kept of one room; its newest message is kept in any case."""

EDGE_LIMIT = 64 * 1024 * 1024
"""Bytes that are kept of all rooms of an edge; the room that grows beyond them gives its own."""

OVERHEAD = 400
"""Bytes that a message takes beside its data (CPython 3.11: the tuple, its cursor, its sender)."""


class Kept(Protocol):
    """A stored message."""

    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        ...

    @property
    def data(self) -> bytes: ...


class Budget:
    """What all rings of an edge may hold together.

    Attributes:
        used: bytes.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = EDGE_LIMIT) -> None:
        self.limit = limit
        self.used = 0


M = TypeVar("M", bound=Kept)


class Ring(Generic[M]):
    """All messages of one room after `floor`, up to the newest that this edge has.

    Attributes:
        floor: stream sequence; what came at or before it is not here.
    """

    __slots__ = ("_budget", "_bytes", "_limit", "_messages", "floor")

    def __init__(self, budget: Budget, floor: int = 0, limit: int = ROOM_LIMIT) -> None:
        self.floor = floor
        self._budget = budget
        self._limit = limit
        self._bytes = 0
        self._messages: deque[M] = deque()

    def append(self, message: M) -> None:
        """Keep a message that is newer than all others, at the cost of the oldest."""
        self._messages.append(message)
        self._count(_size(message))
        while len(self._messages) > 1 and self._over(self._bytes):
            oldest = self._messages.popleft()
            self.floor = oldest.sequence
            self._count(-_size(oldest))

    def covers(self, after: int) -> bool:
        """Whether everything after this sequence is here."""
        return after >= self.floor

    def since(self, after: int) -> list[M]:
        """What came after a sequence that it covers, in order."""
        newer = takewhile(lambda message: message.sequence > after, reversed(self._messages))
        return list(newer)[::-1]

    def backfill(self, older: Sequence[M], after: int) -> None:
        """Keep what was read from the stream, too, if there is room for all of it.

        Args:
            older: everything between `after` and `floor`; newer ones are here already.
        """
        missing = [message for message in older if message.sequence <= self.floor]
        size = sum(map(_size, missing))
        if not missing or not self._over(self._bytes + size):
            self._messages.extendleft(reversed(missing))
            self._count(size)
            self.floor = after

    def clear(self, floor: int) -> None:
        """Forget everything: what comes from now on is after `floor`."""
        self._messages.clear()
        self._count(-self._bytes)
        self.floor = floor

    def _count(self, bytes: int) -> None:
        self._bytes += bytes
        self._budget.used += bytes

    def _over(self, bytes: int) -> bool:
        return bytes > self._limit or self._budget.used - self._bytes + bytes > self._budget.limit


def _size(message: Kept) -> int:
    return len(message.data) + OVERHEAD
