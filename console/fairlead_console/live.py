"""Asks the processes of an app how they stand, while somebody looks; and ends runs for who may."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from fairlead import buckets, logs
from fairlead.bus import Bus, NoResponders
from fairlead.errors import BadName, Malformed
from fairlead.protocol import envelope, manifest, report, runlog
from fairlead.protocol.envelope import Control
from fairlead.protocol.manifest import Manifest, Route
from fairlead_console.fleet import Fleet

log = logs.get("fairlead.console")
_unread = logs.Seldom(log.warning, "the builds cannot be read")

EVERY = 1.0
"""Seconds between two questions."""

ANSWERS_WITHIN = 0.4
"""Seconds after a question when the picture is made of what has come."""

BUILDS_EVERY = 5.0
"""Seconds between two looks at which builds there are."""

LINGERS = 15.0
"""Seconds for which it goes on asking after the last one has looked away: a reload sees rates at once."""


class NoSuchRun(LookupError):
    """The run that was to be ended is not known, or is over."""


class Live:
    """The app's processes, as a stream of pictures."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.fleet = Fleet()
        self._inbox = bus.new_inbox
        self._loop = asyncio.get_running_loop()
        self._builds: dict[str, Manifest] = {}
        self._routes: list[Route] = []
        self._read = -BUILDS_EVERY
        self._watchers = 0
        self._left = 0.0
        self._picture: dict[str, Any] = {}
        self._news = asyncio.Condition()
        self._asking: asyncio.Task[None] | None = None
        self._closed = False
        bus.subscribe(self._inbox, self._answered)

    async def pictures(self) -> AsyncGenerator[dict[str, Any]]:
        """How all stands, now and each second from now on; nobody is asked when nobody iterates."""
        self._watchers += 1
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._ask())
        try:
            while not self._closed:
                async with self._news:
                    await self._news.wait()
                yield self._picture
        finally:
            self._watchers -= 1
            self._left = self._loop.time()

    async def once(self) -> dict[str, Any]:
        """One picture, as soon as those who live have answered."""
        await self._look()
        return self._picture

    async def close(self) -> None:
        """End all streams of pictures."""
        self._closed = True
        async with self._news:
            self._news.notify_all()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        while self._watchers or self._loop.time() - self._left < LINGERS:
            began = self._loop.time()
            await self._look()
            async with self._news:
                self._news.notify_all()
            await asyncio.sleep(max(0.05, EVERY - (self._loop.time() - began)))

    async def _look(self) -> None:
        if self._bus.connected:
            self._bus.publish(self._bus.subjects.report, b"", self._inbox)
            await asyncio.sleep(ANSWERS_WITHIN)
            await self._look_at_builds()
        now = self._loop.time()
        self.fleet.looked(now, time.time())
        self._picture = {
            "at": time.time(),
            "app": self._bus.subjects.app,
            "nats": {"connected": self._bus.connected, "server": self._bus.server},
            **self.fleet.picture(now, self._routes),
        }

    def _answered(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        if not data:
            return  # NATS says that nobody is there
        try:
            self.fleet.told(report.decode(data), self._loop.time())
        except Malformed as error:
            logs.dropped(subject, data, error)

    async def _look_at_builds(self) -> None:
        """The routes of the builds that live, the newest first; of the newest one if none does."""
        if self._loop.time() - self._read < BUILDS_EVERY:
            return
        self._read = self._loop.time()
        try:
            found = await buckets.manifests(self._bus)
        except Exception as error:  # whatever NATS says now, the next round asks again
            _unread(error=error)
            return
        newest = sorted(found, key=lambda digest: -found[digest][0])
        for digest in newest:
            if digest not in self._builds:
                with contextlib.suppress(Malformed):
                    self._builds[digest] = manifest.decode(found[digest][1])
        live = [d for d in newest if d in self.fleet.builds] or newest[:1]
        routes: dict[tuple[str, str], Route] = {}
        for digest in live:
            for route in self._builds[digest].routes if digest in self._builds else ():
                routes.setdefault((route.transport, route.endpoint), route)
        self._routes = sorted(routes.values(), key=lambda route: route.label)

    # Ending runs

    async def cancel(self, worker: str, run: str) -> None:
        """End a run, whatever it is for; its client hears of it as of any cancelled one.

        Raises:
            NoSuchRun: nobody has told of it, or it is over.
        """
        found = self.fleet.run(worker, run)
        if found is None:
            raise NoSuchRun(f"worker {worker[:20]} has no run {run[:80]}; it may be over")
        log.info("a run is ended by an operator", workflow=found.workflow, kind=found.kind)
        subjects = self._bus.subjects
        if found.kind == "kept":
            try:
                control = subjects.run_control(found.run)
                await self._bus.request(control, runlog.CANCEL, within=2.0)
            except (NoResponders, TimeoutError, BadName):
                raise NoSuchRun(f"run {run[:80]} is in nobody's hands any more") from None
        elif found.kind == "room":
            said = envelope.control(Control.CANCEL, "room", data=found.key.encode())
            self._bus.publish(subjects.worker(worker), said)
        else:
            self._bus.publish(subjects.worker(worker), envelope.control(Control.CANCEL, found.key))
