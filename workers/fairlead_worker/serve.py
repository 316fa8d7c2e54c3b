"""A worker process: from the user's module to a place in the queue groups, and out again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import uvloop

from fairlead import buckets, errorfeed, loading, logs, process, roomstreams, runstore, telemetry
from fairlead.bus import Bus, BusOptions
from fairlead.errors import BadDeclaration, Unusable
from fairlead.protocol.manifest import Manifest
from fairlead.protocol.subjects import Subjects, shortened
from fairlead.publisher import Publisher
from fairlead.readiness import Readiness
from fairlead.workflow import Project
from fairlead_worker.hands import Hands
from fairlead_worker.metrics import FIGURES
from fairlead_worker.report import Reporter
from fairlead_worker.settings import WorkerSettings
from fairlead_worker.tally import WorkerTally
from fairlead_worker.tools import Tools
from fairlead_worker.watchdog import Watchdog

log = logs.get("fairlead.worker")
_not_yet = logs.Seldom(log.warning, "the streams cannot be made yet")

CLOSING = 5.0
"""Seconds after the grace in which a worker that was told to stop is gone, whatever it runs."""

AT_ONCE = 0.5
"""Seconds after a second signal, likewise: who says so twice wants no last words."""

FINISH = 1.0
"""Seconds for what the project still runs by itself when this worker has said its last word."""

THREADS = 64
"""Threads for plain `def` functions, at most; more of them wait for one to be free."""


def run(settings: WorkerSettings) -> int:
    """Serve a project until SIGTERM or SIGINT.

    Returns:
        0 stopped as asked, 1 failed at start or while running.
    """
    logs.configure(settings.dev, "worker", settings.log_level, settings.exception_messages)
    project = cast(Project, loading.load(settings.target, Project))
    try:
        uvloop.run(_serve(settings, project))
    except (Unusable, BadDeclaration, OSError) as error:
        log.error("the worker cannot go on", reason=str(error))
        return 1
    except Exception as error:  # of ours: a line like all others, not the traceback of the command
        log.error("the worker ended in an error of ours", exc_info=error)
        return 1
    return 0


async def _serve(settings: WorkerSettings, project: Project) -> None:
    last_resort = process.LastResort()
    grace = settings.drain_grace

    def told(number: int) -> None:
        if number > 1:
            last_resort.code = 0  # it ends as it was asked to
        last_resort.within(grace + CLOSING if number == 1 else AT_ONCE)

    try:
        await _work(settings, project, process.signals(told))
        last_resort.code = 0
    finally:
        last_resort.within(FINISH)


async def _work(
    settings: WorkerSettings, project: Project, signals: tuple[asyncio.Event, asyncio.Event]
) -> None:
    worker = secrets.token_hex(4)
    logs.identify(worker)
    stop, now = signals
    readiness = Readiness(settings.ready_grace, "no work is taken yet")
    opened = readiness.admin(settings.admin_host, settings.admin_port, "worker", worker)
    async with opened as admin:
        options = BusOptions(
            settings.servers, Subjects(settings.app), "worker", worker, settings.replicas,
            settings.credentials,
        )  # fmt: skip
        connecting = asyncio.ensure_future(Bus.connect(options))
        if not await process.unless(connecting, stop):
            return
        bus = connecting.result()
        readiness.bus = bus
        errorfeed.attach(bus, worker)
        threads = ThreadPoolExecutor(min(settings.concurrency, THREADS), "execute")
        tracing = telemetry.setup("worker", worker)
        try:
            manifest = project.manifest()
            introducing = asyncio.ensure_future(_introduced(bus, project, settings.allow_shrink))
            if not await process.unless(introducing, stop):
                return
            build = introducing.result()
            history = {topic: kept is not None for topic, kept in manifest.topics.items()}
            tally = WorkerTally()
            tools = Tools(
                bus, threads, tracing, history, settings.dev, settings.policy_timeout, tally
            )
            limits = settings.concurrency, settings.streams
            hands = Hands(tools, project.workflows(), limits, build)
            admin.metrics.add(FIGURES, hands)
            Reporter(hands, readiness, worker, build)
            admin.publisher = Publisher(bus, lambda: manifest.topics, tracing)
            watchdog = Watchdog(lambda: hands.ticked, bus.cut)
            ticking = asyncio.create_task(hands.tick())
            sweeping = _beside("sweep", _sweep(hands, manifest))
            measuring = _beside("measure", bus.measure())
            watchdog.start()
            hands.open()
            await bus.round_trip()
            readiness.serving = True
            process.settle()
            log.info("worker serves", build=build, routes=len(manifest.routes))
            if not manifest.routes:
                log.warning("the project declares no workflow; nothing is served")
            await _until(stop, ticking)
            readiness.draining = True
            await hands.leave(settings.drain_grace, now)
            watchdog.stop()
            await process.end(ticking, sweeping, measuring)
        finally:
            errorfeed.detach()
            await bus.close()
            threads.shutdown(wait=False, cancel_futures=True)
            if tracing is not None:
                await asyncio.to_thread(tracing.shutdown)
    log.info("worker stopped")


async def _until(stop: asyncio.Event, ticking: asyncio.Task[None]) -> None:
    """Wait until it is to stop.

    Raises:
        Exception: `ticking` ended first, with this. A worker that beats no more is taken for dead by
            every edge: it is to be so, and to be started again.
    """
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
    await process.end(stopping)
    if not stop.is_set():
        ticking.result()


def _beside(chore: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that a worker can do without; if it fails, that is said."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a chore of the worker ended in an error", chore=chore, exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


async def _introduce(bus: Bus, project: Project, allow_shrink: bool) -> str:
    """Write the build's manifest, bring the streams of its topics up to it; return its digest."""
    manifest = project.manifest()
    kept = {topic: history for topic, history in manifest.topics.items() if history is not None}
    if not allow_shrink and not await buckets.has_manifest(bus, manifest.digest):
        # Asked first: edges go by a manifest as soon as it is written, and this one may be refused.
        for topic, history in kept.items():
            await roomstreams.refuse_eviction(bus, topic, history)
    generation = await buckets.put_manifest(bus, manifest.digest, manifest.encode())
    for topic, history in kept.items():
        await roomstreams.ensure(bus, topic, history, generation, allow_shrink)
    if _keeps_runs(manifest):
        await runstore.ensure(bus)
    return manifest.digest


async def _introduced(bus: Bus, project: Project, allow_shrink: bool) -> str:
    """The same, however long JetStream takes: a stream that was just made has no leader yet."""
    while True:
        try:
            await bus.ready()
            return await _introduce(bus, project, allow_shrink)
        except BadDeclaration:
            raise
        except Exception as error:  # whatever NATS says now, it may be well in a moment
            _not_yet(reason=shortened(str(error)) or type(error).__name__)
            await asyncio.sleep(1)


def _keeps_runs(manifest: Manifest) -> bool:
    return any(route.resume is not None for route in manifest.routes)


async def _sweep(hands: Hands, manifest: Manifest) -> None:
    if _keeps_runs(manifest):
        await hands.sweeper.watch()
