"""An edge's life behind its port: start, serve, drain. A process and a mounted edge share it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fairlead import logs, process
from fairlead.protocol.subjects import shortened
from fairlead_edge.app import EdgeApp
from fairlead_edge.drain import drain
from fairlead_edge.host import Host

log = logs.get("fairlead.edge")
_failed = logs.Seldom(log.error, "a chore of the edge failed, and is begun again", ["chore"])
_not_yet = logs.Seldom(log.warning, "the routes cannot be read yet")


async def live(
    app: EdgeApp,
    host: Host,
    stop: asyncio.Event,
    now: asyncio.Event,
    *,
    on_serving: Callable[[], None],
    on_draining: Callable[[], Awaitable[None]],
) -> None:
    """Serve until told to stop, then drain until told a second time.

    Args:
        on_serving: the routes are known; on_draining: before the first client is told.
    """
    chores: list[asyncio.Task[None]] = []
    try:
        if not await process.unless(asyncio.ensure_future(_started(host)), stop):
            return
        app.host = host
        on_serving()
        chores = [
            asyncio.create_task(always("workers", host.fleet.watch)),
            asyncio.create_task(always("flights", host.relay.tick)),
            asyncio.create_task(always("rooms", host.hub.watch)),
            asyncio.create_task(always("runs", host.runs.watch)),
            asyncio.create_task(always("figures", host.bus.measure)),
        ]
        await stop.wait()
        app.draining = True
        await on_draining()
        await process.unless(asyncio.ensure_future(drain(host, host.settings.drain_grace)), now)
    finally:
        await process.end(*chores)
        if host.tracing is not None:
            await asyncio.to_thread(host.tracing.shutdown)


async def always(chore: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do something until cancelled: an error of ours ends one round of it, not the edge that all clients are on.

    Args:
        chore: its name, for the log.
        work: may be begun again at any time.
    """
    while True:
        try:
            await work()
        except Exception as error:
            _failed(chore=chore, exc_info=error)
        await asyncio.sleep(1)


async def _started(host: Host) -> None:
    """Read the routes, however long NATS takes to answer."""
    while True:
        try:
            await host.bus.ready()
            await host.fleet.start()
            return
        except Exception as error:  # whatever NATS says now, it may be well in a moment
            _not_yet(reason=shortened(str(error)) or type(error).__name__)
            await asyncio.sleep(1)
