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
            asyncio.create_task(host.fleet.watch()),
            asyncio.create_task(host.relay.tick()),
            asyncio.create_task(host.hub.watch()),
            asyncio.create_task(host.runs.watch()),
            asyncio.create_task(host.bus.measure()),
        ]
        await stop.wait()
        app.draining = True
        await on_draining()
        await process.unless(asyncio.ensure_future(drain(host, host.settings.drain_grace)), now)
    finally:
        await process.end(*chores)
        if host.tracing is not None:
            await asyncio.to_thread(host.tracing.shutdown)


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
