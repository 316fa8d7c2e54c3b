"""What waits for all slow clients of an edge together, and who of them has to give way."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from typing import Protocol

from fairlead import logs
from fairlead.protocol.manifest import Route

log = logs.get("fairlead.edge")
_full = logs.Seldom(log.warning, "too much waits for slow clients; the worst give way")

PER_CLIENT = 1024 * 1024
"""Bytes that may wait for one client."""

RELIEF = 7 / 8
"""The part of the limit down to which is cleared at once, so that it is seldom done."""


class Slow(Protocol):
    """A client for whom something waits."""

    id: str

    @property
    def route(self) -> Route: ...

    def relieve(self) -> None:
        """Drop what it may lose, or else close."""
        ...


class Buffers:
    """The bytes that wait on this edge, of those whose transports are full.

    Attributes:
        limit, used: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: dict[Slow, int] = {}
        self._loop = asyncio.get_running_loop()
        self._relieving = False

    def slow(self) -> Counter[str]:
        """How many have something waiting, by the `overflow` of their trigger. Called from any thread."""
        return Counter(client.route.overflow for client in list(self._waiting))

    def waiting(self, client: Slow) -> int:
        """Bytes that wait for a client."""
        return self._waiting.get(client, 0)

    @property
    def clients(self) -> int:
        """How many have something waiting."""
        return len(self._waiting)

    def worst(self, most: int) -> list[tuple[Slow, int]]:
        """Those with most bytes waiting, and how many these are."""
        return heapq.nlargest(most, self._waiting.items(), key=lambda each: each[1])

    def waits(self, client: Slow, size: int) -> None:
        """So many bytes wait for a client now; 0 when it has it all, or is gone."""
        self.used += size - self._waiting.get(client, 0)
        if size:
            self._waiting[client] = size
        else:
            self._waiting.pop(client, None)
        if self.used > self.limit and not self._relieving:
            self._relieving = True
            # Not in the middle of what a room says to all of its members.
            self._loop.call_soon(self._relieve)

    def _relieve(self) -> None:
        """Clear the worst ones first."""
        self._relieving = False
        if self.used <= self.limit:
            return
        _full(bytes=self.used, limit=self.limit)
        for client in sorted(self._waiting, key=self._waiting.__getitem__, reverse=True):
            if self.used <= self.limit * RELIEF:
                return
            client.relieve()
