"""What waits for one client that reads slowly, and what of it may be dropped.

Pure. What a room says may be, where the trigger's `overflow` allows it: those who come later have
it from the room, and who is told of a gap can ask for it. What a run says, acks and errors are
kept in any case, and their order, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from fairlead_edge.watched import Waiting, Watch

F = TypeVar("F")


class Batch(NamedTuple):
    """What a room says in one turn of the loop, beside its bytes.

    Attributes:
        messages: how many. newest: the last one's bytes.
        at: its cursor; None without history. before: that of the one before it in the batch.
        watches: of the messages, if one of them is sampled; else empty.
        waiting: the same, once it waits for a member.
    """

    messages: int
    newest: bytes
    at: str | None
    before: str | None = None
    watches: Sequence[Watch | None] = ()
    waiting: Waiting | None = None

    @classmethod
    def of(
        cls, encoded: Sequence[bytes], ids: Sequence[str | None],
        watches: Sequence[Watch | None] = (),
    ) -> Batch:  # fmt: skip
        """Args: encoded: the messages' bytes; ids: their cursors."""
        before = ids[-2] if len(ids) > 1 else None
        return cls(len(encoded), encoded[-1], ids[-1], before, watches)

    def given(self, encoded: Sequence[bytes], slow: bool) -> None:
        """A member was given the messages."""
        for watch, data in zip(self.watches, encoded, strict=True):
            if watch is not None:
                watch.given(len(data), slow)

    def queued(self, slow: bool) -> Batch:
        """It waits for a member; slow: whose transport is full."""
        return self._replace(waiting=Waiting.of(self.watches, slow))


class _Gap(NamedTuple):
    """Stands where messages were dropped. at: as of the last one."""

    at: str | None


Piece = tuple[bytes, F | Waiting | Batch | _Gap | None]


class Outgoing(Generic[F]):
    """The pieces, in order, each with who is to know that it was written.

    Attributes:
        size: bytes. newest: those of the last piece that was put.

    Args:
        gap: makes the frame that tells of dropped messages; None where the client can't be told.
    """

    __slots__ = ("_gap", "_pieces", "newest", "size")

    def __init__(self, gap: Callable[[str | None], bytes] | None) -> None:
        self.size = 0
        self.newest = 0
        self._gap = gap
        self._pieces: deque[Piece[F]] = deque()

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, data: bytes, told: F | Waiting | Batch | None) -> None:
        """Args: told: a batch may be dropped, all else is kept."""
        self._pieces.append((data, told))
        self.newest = len(data)
        self.size += self.newest

    def put_newest(self, batch: Batch) -> int:
        """Let a batch take the place of all that wait; returns how many messages are dropped."""
        dropped = self._drop(self.size)
        waiting = batch.waiting and batch.waiting.newest()
        if batch.messages > 1:
            if self._pieces and isinstance(self._pieces[-1][1], _Gap):
                self.size -= len(self._pieces.pop()[0])
            self._say_gap(len(self._pieces), batch.before)
        self.put(batch.newest, Batch(1, batch.newest, batch.at, waiting=waiting))
        return dropped + batch.messages - 1

    def drop_oldest(self, limit: int) -> int:
        """Drop the oldest messages of the room until so many bytes are left, if that can be.

        Returns:
            How many messages were dropped.
        """
        return self._drop(self.size - limit)

    def _drop(self, excess: int) -> int:
        dropped = 0
        last: str | None = None
        kept: deque[Piece[F]] = deque()
        place = 0
        for data, told in self._pieces:
            if excess > 0 and isinstance(told, Batch | _Gap):
                excess -= len(data)
                self.size -= len(data)
                if isinstance(told, Batch):
                    dropped += told.messages
                    if told.waiting is not None:
                        told.waiting.lost()
                last, place = told.at, len(kept)
            else:
                kept.append((data, told))
        found_none = len(kept) == len(self._pieces)
        self._pieces = kept
        if not found_none:
            self._say_gap(place, last)
        return dropped

    def _say_gap(self, place: int, at: str | None) -> None:
        if self._gap is not None:
            frame = self._gap(at)
            self._pieces.insert(place, (frame, _Gap(at)))
            self.size += len(frame)

    def take(self, size: int) -> list[tuple[bytes, F | Waiting | None]]:
        """Remove the first pieces: so many bytes at most, but one in any case."""
        taken: list[tuple[bytes, F | Waiting | None]] = []
        while self._pieces and (not taken or size >= len(self._pieces[0][0])):
            data, told = self._pieces.popleft()
            if isinstance(told, Batch):
                taken.append((data, told.waiting))
            else:
                taken.append((data, None if isinstance(told, _Gap) else told))
            size -= len(data)
            self.size -= len(data)
        return taken
