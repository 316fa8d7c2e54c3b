"""The output of a run with `resume`, on its way into its log: rolled up, in order, and bounded.

::

    append ──▶ buffer ──as soon as the entry before is stored, at most each 40 ms──▶ stream

One entry is on its way at a time, each on the condition that the one before is the log's last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from fairlead import logs, runstore
from fairlead.bus import Bus
from fairlead.errors import NotStored
from fairlead.protocol.runlog import Entry, Start
from fairlead.storing import OutOfOrder

log = logs.get("fairlead.worker")
_longer = logs.Seldom(log.warning, "what a run said before is forgotten later")

ROLL_UP = 0.04
"""Seconds between two entries, at least: what is said meanwhile goes into one."""

ENTRY = 256 * 1024
"""Bytes of an entry; an item that is larger has one of its own."""

CREDIT = 256 * 1024
"""Bytes that a run may be ahead of its quickest viewer."""

KEPT = 4 * 1024 * 1024
"""Bytes that are kept of a run."""

UNREAD = KEPT // 2
"""Bytes that a run may be ahead while nobody reads. The rest of what is kept was sent last: a client
that was cut off may have some of it still to come, and asks for it when it is back."""

SHORTER = 512 * 1024
"""Bytes by which a log that is too long is made shorter at once: so it is seldom done. After as many
more it is tried again, if that was not possible."""


class Writer:
    """Writes one attempt of a run.

    Args:
        lost: called when another attempt has written, or the stream takes nothing more.

    Attributes:
        watched: whether somebody reads.
        unattended: nobody has read for so long that it goes on all the same; what is too much
            is forgotten.
    """

    def __init__(self, bus: Bus, run: str, attempt: int, lost: Callable[[Exception], None]) -> None:
        self.watched = True
        self.unattended = False
        self._bus = bus
        self._run = run
        self._attempt = attempt
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._sequence = 0
        self._buffer: deque[bytes] = deque()
        self._waiting = 0  # bytes in the buffer
        self._unread: deque[tuple[int, int]] = deque()  # (sequence, bytes) of stored entries
        self._ahead = 0  # bytes of those
        self._stored: deque[tuple[int, int]] = deque()
        self._kept = 0  # bytes of those
        self._bound = KEPT  # bytes from which on there are too many
        self._room = asyncio.Event()
        self._hurry = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._wrote = 0.0
        self._closed = False

    async def start(self, start: Start, number: int, after: int, last: bytes = b"") -> None:
        """Store that this attempt begins.

        Args:
            number: of the log's last entry; after: its sequence. 0 where there is none.
            last: what ends the run at once; b"" if it goes on.

        Raises:
            OutOfOrder: another attempt has begun meanwhile.
            NotStored: it could not be stored.
        """
        self._number = number + 1
        said = [start.encode(), last] if last else [start.encode()]
        entry = Entry(self._number, self._attempt, said)
        self._sequence = await runstore.append(self._bus, self._run, entry, after)

    async def append(self, answer: bytes) -> None:
        """Say something; waits while the viewers, or the log, have enough."""
        while self._waiting + self._ahead >= self._limit and not self._closed:
            self._room.clear()
            await self._room.wait()
        if not self._hurry.is_set():  # else its last word was said
            self.say(answer)

    @property
    def _limit(self) -> float:
        if self.unattended:
            # Nobody is waited for, but the stream is.
            return self._ahead + ENTRY
        return CREDIT if self.watched else UNREAD

    def say(self, answer: bytes) -> None:
        """Say something without waiting: the last words."""
        if self._closed:
            return
        self._buffer.append(answer)
        self._waiting += len(answer)
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    def read(self, sequence: int) -> None:
        """The quickest viewer has been sent everything up to this sequence."""
        while self._unread and self._unread[0][0] <= sequence:
            self._ahead -= self._unread.popleft()[1]
        self.look()

    def look(self) -> None:
        """What bounds it may have changed."""
        self._room.set()

    async def current(self) -> bool:
        """Whether this attempt is still the one that the log has last.

        Raises:
            NotStored: the stream does not answer.
        """
        if self._writing is not None:
            await asyncio.wait({self._writing})
        newest = await runstore.last(self._bus, self._run)
        return newest is not None and newest[0] == self._sequence

    async def close(self) -> bool:
        """Store what was said; returns whether all of it was."""
        self._hurry.set()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        whole = not self._closed
        self._closed = True
        return whole

    async def _write(self) -> None:
        try:
            while self._buffer:
                pause = self._wrote + ROLL_UP - self._loop.time()
                if pause > 0 and not self._hurry.is_set():
                    await _until(self._hurry, pause)
                self._wrote = self._loop.time()
                await self._store()
        except (OutOfOrder, NotStored) as error:
            self._closed = True
            self._lost(error)
        finally:
            self._writing = None
            self._room.set()

    async def _store(self) -> None:
        """Store one entry of what waits."""
        said: list[bytes] = []
        size = 0
        while self._buffer and (not said or size + len(self._buffer[0]) <= ENTRY):
            said.append(self._buffer.popleft())
            size += len(said[-1])
        self._number += 1
        entry = Entry(self._number, self._attempt, said)
        self._sequence = await runstore.append(self._bus, self._run, entry, self._sequence)
        self._waiting -= size
        self._unread.append((self._sequence, size))
        self._ahead += size
        self._stored.append((self._sequence, size))
        self._kept += size
        self._room.set()
        if self._kept > self._bound:
            await self._shorten()

    async def _shorten(self) -> None:
        """Forget the oldest entries; who comes to them later is told that they are gone."""
        old = self._too_old()
        if not old:
            return
        if not await self.forget(self._stored[old][0]):
            self._bound = self._kept + SHORTER
            return
        self._bound = KEPT
        for _ in range(old):
            sequence, size = self._stored.popleft()
            self._kept -= size
            self.read(sequence)

    def _too_old(self) -> int:
        """How many of the oldest entries are to be forgotten.

        What nobody has read is so only where nobody is waited for.
        """
        old, left = 0, self._kept
        while left > KEPT - SHORTER and old < len(self._stored) - 1:
            sequence, size = self._stored[old]
            if self._unread and self._unread[0][0] <= sequence and not self.unattended:
                break
            left -= size
            old += 1
        return old

    async def forget(self, before: int) -> bool:
        """Have the log forget what is older than this sequence; returns whether it has.

        If it has not, it is longer than it is to be, and that is all: what the run says is stored.
        """
        try:
            await runstore.shorten(self._bus, self._run, before)
        except NotStored as error:
            _longer(run=self._run, error=error)
            return False
        return True


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
