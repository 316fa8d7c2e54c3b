"""Runs with `resume` that nobody looks after: taken up, or forgotten when their time has come.

A worker that dies leaves its runs behind, and what it was to forget. Those that have viewers are
taken up at their edges' word; the rest is found here, by any worker.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from fairlead import logs, runstore
from fairlead.bus import Bus, NoResponders
from fairlead.errors import NotStored
from fairlead.protocol.runlog import Opening
from fairlead.protocol.subjects import as_made

log = logs.get("fairlead.worker")
_later = logs.Seldom(log.warning, "a run is forgotten later")
_unseen = logs.Seldom(log.warning, "a run cannot be looked at")

SWEEP = 20.0
"""Seconds between two looks of one worker, on average."""

FIRST = 1.0
"""Seconds until the first one."""

ANSWERS_WITHIN = 2.0
"""Seconds in which whoever has a run answers."""

AT_ONCE = 8
"""Questions that are out at a time."""


class Sweeper:
    """Looks after the runs of an app.

    Args:
        take_up: begins the next attempt of a run here; told its id and what it began with.
    """

    def __init__(self, bus: Bus, take_up: Callable[[str, Opening], None]) -> None:
        self._bus = bus
        self._take_up = take_up
        self._loop = asyncio.get_running_loop()
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._forgetting: set[asyncio.Task[None]] = set()

    def ended(self, run: str, resume: float) -> None:
        """A run is over; what it said is kept for so many seconds."""
        self._due[run] = self._loop.call_later(resume, self._now_due, run)

    def _now_due(self, run: str) -> None:
        del self._due[run]
        task = self._loop.create_task(self._forget(run))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, run: str) -> None:
        try:
            await runstore.forget(self._bus, run)
        except NotStored as error:
            _later(run=run, error=error)  # by the next sweep

    async def watch(self, first: float = FIRST, every: float = SWEEP) -> None:
        """Look around now and then, until cancelled; soon at first: another may just have died."""
        pause = first
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = every
            try:
                await self._bus.ready()
                await self._sweep()
            except NotStored as error:
                log.warning("the runs cannot be looked at", error=error)
            except Exception as error:  # of ours: told, and no reason to look no more
                log.error("a sweep of the runs failed", exc_info=error)

    async def _sweep(self) -> None:
        at_once = asyncio.Semaphore(AT_ONCE)
        runs = await runstore.stored(self._bus)
        await asyncio.gather(*(self._look_at(run, what, at_once) for run, what in runs.items()))

    async def _look_at(self, run: str, stored: set[str], at_once: asyncio.Semaphore) -> None:
        async with at_once:
            try:
                if "end" in stored:
                    due = await runstore.due(self._bus, run)
                    if due is not None and due < time.time() and run not in self._due:
                        await self._forget(run)
                elif "open" in stored and await self._orphaned(run):
                    _, opening = await runstore.opening(self._bus, run)
                    self._take_up(run, opening)
            except (NotStored, LookupError, ValueError) as error:
                # ValueError: a name, or bytes, that are none of ours; who may publish can store them.
                _unseen(run=as_made(run), error=error)

    async def _orphaned(self, run: str) -> bool:
        """Whether nobody has a run; one that hangs is left to those who wait for it."""
        try:
            subject = self._bus.subjects.run_control(run)
            await self._bus.request(subject, b"?", within=ANSWERS_WITHIN)
        except NoResponders:
            return True
        except TimeoutError:
            pass
        return False
