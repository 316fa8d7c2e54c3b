"""A room that this edge listens to, and what is asked and awaited about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fairlead.interest import Interest
from fairlead.roomlog import StreamState
from fairlead_edge.gap import Gap
from fairlead_edge.room import Room

CHECK_EVERY = 30.0
"""Seconds between two looks whether rooms that are quiet stand where their streams do."""


@dataclass(slots=True, eq=False)
class Opened:
    """Its state, beside what its members see.

    Attributes:
        holders: members, and those who are about to be.
        asked: loop time at which its position was last asked for; last: of its last message.
        told: server time, in ms, of the position that its members last were told of.
        heard: sequence of the last message, also before the position was known.
        ready: done when the room may be joined.
        gap: what is being read since it was not heard; None if nothing is.
        backfilling: held while the ring is filled from the stream: once, for all who come back.
        took: when the first of the messages that are pending came (`time.perf_counter`).
    """

    room: Room
    interest: Interest
    ready: asyncio.Task[StreamState | None] | None = None
    gap: Gap | None = None
    backfilling: asyncio.Lock = field(default_factory=asyncio.Lock)
    holders: int = 0
    asked: float = 0.0
    last: float = 0.0
    told: int = 0
    heard: int = 0
    took: float = 0.0
    lingering: asyncio.TimerHandle | None = None

    @property
    def patience(self) -> float:
        """Seconds for which it may be quiet before it is asked about."""
        history = self.room.history
        return CHECK_EVERY if history is None else min(CHECK_EVERY, history.age / 8)

    def stale(self, now: float) -> bool:
        """Whether the position is too old to be handed out: a quarter of what the room keeps."""
        history = self.room.history
        return history is not None and now - self.asked > history.age / 4

    def quiet(self, now: float) -> bool:
        """Whether it is to be asked about."""
        if self.room.position is None or self.gap is not None:
            return False
        return now - max(self.asked, self.last) > self.patience

    def no_gap(self) -> None:
        """What was to be filled is not, or needs not be."""
        gap, self.gap = self.gap, None
        if gap is not None:
            gap.release()
