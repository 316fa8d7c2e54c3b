"""A sampled message on its way from a room to its members' sockets: who has it, and who not yet.

Pure. Only for messages that are sampled: others are not watched, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Watcher(Protocol):
    """Who wants to know."""

    def written(self) -> None:
        """All members that keep up have it."""
        ...

    def over(self) -> None:
        """Nobody waits for it any more."""
        ...


class Watch:
    """One message.

    Attributes:
        members: who were given it. slow: those of them whose transports were full then.
        bytes: encoded for each of them, together.
        coalesced: messages in the write that it was part of, itself included.
        dropped: slow ones who will not get it: it gave way to newer ones, or their connection ended.
        late: slow ones who have not got it yet.
    """

    __slots__ = (
        "_quick", "_shown", "_watcher", "_written", "bytes", "coalesced", "dropped", "late",
        "members", "slow",
    )  # fmt: skip

    def __init__(self, watcher: Watcher) -> None:
        self.members = self.slow = self.bytes = self.dropped = self.late = 0
        self.coalesced = 1
        self._watcher = watcher
        self._quick = 0  # of the others, those for whom it waits until the end of the turn
        self._shown = self._written = False

    def given(self, size: int, slow: bool) -> None:
        """A member has taken it; it may wait there, which `queued` has said before."""
        self.members += 1
        self.slow += slow
        self.bytes += size

    def shown(self) -> None:
        """All members have been given it."""
        self._shown = True
        self._look()

    def queued(self, slow: bool) -> None:
        """A member keeps it until its transport takes it."""
        self.late += slow
        self._quick += not slow

    def wrote(self, slow: bool) -> None:
        """The transport has it."""
        self.late -= slow
        self._quick -= not slow
        self._look()

    def lost(self, slow: bool) -> None:
        """It will not get there."""
        self.dropped += 1
        self.wrote(slow)

    def _look(self) -> None:
        if not self._shown or self._quick:
            return
        if not self._written:
            self._written = True
            self._watcher.written()
        if not self.late:
            self._watcher.over()


class Waiting(NamedTuple):
    """What waits for one member, as far as it is watched.

    Attributes:
        watches: of its messages, in their order; None for those that are not sampled.
        slow: whether its transport was full when it was given them.
    """

    watches: Sequence[Watch | None]
    slow: bool

    @classmethod
    def of(cls, watches: Sequence[Watch | None], slow: bool) -> Waiting:
        for watch in watches:
            if watch is not None:
                watch.queued(slow)
        return cls(watches, slow)

    def wrote(self) -> None:
        for watch in self.watches:
            if watch is not None:
                watch.wrote(self.slow)

    def lost(self) -> None:
        for watch in self.watches:
            if watch is not None:
                watch.lost(self.slow)

    def newest(self) -> Waiting:
        """Only the newest message is left; the others are lost."""
        Waiting(self.watches[:-1], self.slow).lost()
        return Waiting(self.watches[-1:], self.slow)
