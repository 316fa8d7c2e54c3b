"""A console process: one port, and NATS behind."""

from __future__ import annotations

import asyncio
import secrets

import uvloop

from fairlead import admin, appbus, logs, process, telemetry
from fairlead.bus import Bus, BusOptions
from fairlead.errors import Unusable
from fairlead.protocol.subjects import Subjects
from fairlead.readiness import AdminState, Readiness
from fairlead_console.app import build_app
from fairlead_console.guard import Guard
from fairlead_console.live import Live
from fairlead_console.overview import Overview
from fairlead_console.settings import ConsoleSettings

log = logs.get("fairlead.console")

TOPICS_FOR = 2.0
"""Seconds after which topics are read again before something is published: in dev they change."""


def run(settings: ConsoleSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0 stopped as asked, 1 failed at start.
    """
    logs.configure(settings.dev, "console", settings.log_level, settings.exception_messages)
    try:
        uvloop.run(_serve(settings))
    except (Unusable, OSError) as error:
        log.error("the console cannot go on", reason=str(error))
        return 1
    return 0


async def _serve(settings: ConsoleSettings) -> None:
    """Answer from the first moment on: what needs NATS says so until it is there."""
    console = secrets.token_hex(4)
    logs.identify(console)
    stop, _ = process.signals()
    readiness = Readiness(settings.ready_grace)
    async with readiness.exported("console", console, scraped=True) as state:
        overview = Overview(Guard(settings.token))
        app = build_app(settings, state, overview)
        listening = admin.serve(
            app, settings.host, settings.port, "console listens on", "websockets-sansio"
        )
        async with listening:
            options = BusOptions(
                settings.servers, Subjects(settings.app), "console", console,
                credentials=settings.credentials,
            )  # fmt: skip
            connecting = asyncio.ensure_future(Bus.connect(options))
            if await process.unless(connecting, stop):
                bus = connecting.result()
                readiness.bus = bus
                try:
                    await _work(state, overview, bus, console, stop)
                finally:
                    await bus.close()
    log.info("console stopped")


async def _work(
    state: AdminState, overview: Overview, bus: Bus, console: str, stop: asyncio.Event
) -> None:
    """Show how all stands, and publish for whoever may, until told to stop."""
    tracing = telemetry.setup("console", console)
    overview.live = live = Live(bus)
    try:
        state.publisher = appbus.LookingPublisher(bus, TOPICS_FOR, tracing)
        state.readiness.serving = True
        process.settle()
        await stop.wait()
        state.readiness.draining = True
    finally:
        await live.close()
        if tracing is not None:  # its collector may be this very port
            await asyncio.to_thread(tracing.shutdown)
