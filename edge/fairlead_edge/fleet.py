"""Which builds live, and the routes that follow: learnt from manifests and beats alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from fairlead import buckets, logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.protocol import manifest
from fairlead.protocol.delivery import BEAT, LOST_AFTER
from fairlead.protocol.manifest import Beat, Manifest, Route
from fairlead_edge.routes import RouteTable

log = logs.get("fairlead.edge")

ALIVE = 1.25
"""Beats that may pass until a worker is no longer given what another did not take."""


@dataclass(slots=True)
class _Worker:
    build: str
    seen: float


class Fleet:
    """The workers of the app, as this edge sees them.

    Attributes:
        table: the routes of the builds that live; of the newest build if none does.
    """

    def __init__(
        self,
        bus: Bus,
        on_beat: Callable[[Beat], None],
        on_gone: Callable[[str], None],
        on_routes: Callable[[RouteTable], None],
    ) -> None:
        self.table = RouteTable()
        self._bus = bus
        self._on_beat = on_beat
        self._on_gone = on_gone
        self._on_routes = on_routes
        self._loop = asyncio.get_running_loop()
        self._workers: dict[str, _Worker] = {}
        self._builds: dict[str, tuple[int, Manifest]] = {}
        self._served: list[str] | None = None
        self._unknown: set[str] = set()
        self._news = asyncio.Event()
        bus.subscribe(bus.subjects.beats, self._beaten)
        bus.on_up.append(self._call_the_roll)

    @property
    def living(self) -> int:
        """How many workers are heard."""
        return len(self._workers)

    async def start(self) -> None:
        """Read what was ever built, and ask who lives; returns when the first routes stand."""
        for digest, (generation, raw) in (await buckets.manifests(self._bus)).items():
            self._learn(digest, generation, raw)
        self._call_the_roll()
        # The answers to the roll are on their way before the answer to this.
        await self._bus.round_trip()
        await self._look_up()
        self._serve()

    def _learn(self, digest: str, generation: int, raw: bytes) -> None:
        try:
            self._builds[digest] = generation, manifest.decode(raw)
        except Malformed as error:
            log.warning("a build is not served", build=digest, error=error)

    def _call_the_roll(self) -> None:
        self._nobody_could_be_heard()
        self._bus.publish(self._bus.subjects.roll, b"")

    def _nobody_could_be_heard(self) -> None:
        """NATS, or this edge, was away: nobody is gone for that."""
        now = self._loop.time()
        for worker in self._workers.values():
            worker.seen = now

    def _beaten(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        try:
            beat = manifest.decode_beat(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        if beat.leaving and not beat.hands:
            news = self._workers.pop(beat.worker, None) is not None
        else:
            news = beat.worker not in self._workers
            self._workers[beat.worker] = _Worker(beat.build, self._loop.time())
        if news:
            if beat.build not in self._builds:
                self._unknown.add(beat.build)
            self._news.set()
        self._on_beat(beat)

    def choose(self, route: Route) -> str:
        """A worker that lives, as far as is known, and serves a route; "" without one."""
        now = self._loop.time()
        serving = [
            name
            for name, worker in self._workers.items()
            if now - worker.seen < BEAT * ALIVE and self._serves(worker.build, route)
        ]
        return random.choice(serving) if serving else ""

    def _serves(self, build: str, route: Route) -> bool:
        _, known = self._builds.get(build, (0, None))
        named = route.feature, route.workflow
        return known is not None and any((r.feature, r.workflow) == named for r in known.routes)

    async def watch(self) -> None:
        """Follow workers that come and go, until cancelled."""
        looked = self._loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT / 4):
                    await self._news.wait()
            self._news.clear()
            still, looked = self._loop.time() - looked, self._loop.time()
            if still > BEAT:
                self._nobody_could_be_heard()  # it was this edge's loop that stood still
            if self._bus.connected:
                self._bury()
            try:
                await self._look_up()
            except (
                Exception
            ) as error:  # NATS may be away or without a leader; the next round asks again
                log.warning("a manifest cannot be read yet", error=error)
                continue
            self._serve()

    def _bury(self) -> None:
        now = self._loop.time()
        for name, worker in list(self._workers.items()):
            if now - worker.seen > LOST_AFTER:
                log.warning("a worker is gone: two beats missed", worker=name)
                del self._workers[name]
                self._on_gone(name)

    async def _look_up(self) -> None:
        for digest in list(self._unknown):
            try:
                self._learn(digest, *await buckets.get_manifest(self._bus, digest))
            except LookupError as error:
                log.warning("a worker of an unknown build", build=digest, error=error)
            self._unknown.discard(digest)

    def _serve(self) -> None:
        """Make the routes anew if other builds live than before."""
        live = {worker.build for worker in self._workers.values()} & self._builds.keys()
        if not live and self._builds:
            # Routes stay when all workers are gone.
            live = {max(self._builds, key=lambda digest: self._builds[digest][0])}
        newest_first = sorted(live, key=lambda digest: self._builds[digest][0], reverse=True)
        if newest_first == self._served:
            return
        self._served = newest_first
        self.table = RouteTable(self._builds[digest][1] for digest in newest_first)
        self._on_routes(self.table)
        log.info("routes are served", routes=sum(1 for _ in self.table), builds=newest_first)
