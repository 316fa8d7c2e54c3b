"""What an edge did not hear of a room: NATS was away, or dropped what was read too slowly.

::

    a message whose predecessor was not heard ──▶ Gap ──▶ its stream is read, page by page
                       what is live meanwhile ──▶ held ──▶ … and then what was held

Pure. What is held is bounded: the stream has it, too, and it is read from there if it is too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from fairlead_edge.ring import OVERHEAD, Budget

HELD = 1000
"""Messages of one room that are held, at most."""

HELD_BYTES = 1024 * 1024
"""Bytes of one room that are held, and at most one message more."""

EDGE_HELD_BYTES = 64 * 1024 * 1024
"""Bytes that are held of all rooms of an edge."""


class Heard(NamedTuple):
    """A live message as it came from NATS."""

    sequence: int
    headers: Mapping[str, str]
    data: bytes


class Gap:
    """The hole in what one room's members were given, while it is filled.

    Attributes:
        target: sequence up to which the stream is read.
        filling: what reads it; None before it has begun.
    """

    __slots__ = ("_budget", "_bytes", "_held", "filling", "target")

    def __init__(self, target: int, budget: Budget) -> None:
        self.target = target
        self.filling: asyncio.Task[None] | None = None
        self._budget = budget
        self._bytes = 0
        self._held: list[Heard] = []

    def hold(self, heard: Heard) -> None:
        """Keep a live message until those before it are read, or let it be read with them."""
        full = len(self._held) >= HELD or self._bytes > HELD_BYTES
        if full or self._budget.used > self._budget.limit:
            self.release()
            self.target = heard.sequence
            return
        self._held.append(heard)
        self._count(len(heard.data) + OVERHEAD)

    def release(self) -> list[Heard]:
        """Give back what is held, in order."""
        held, self._held = self._held, []
        self._count(-self._bytes)
        return held

    def _count(self, bytes: int) -> None:
        self._bytes += bytes
        self._budget.used += bytes
