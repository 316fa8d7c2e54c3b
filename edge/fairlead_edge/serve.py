"""An edge process: a public port for clients, an admin port, and NATS behind."""

from __future__ import annotations

import asyncio
import secrets
import socket

import uvicorn
import uvloop

from fairlead import admin, logs, process, telemetry
from fairlead.bus import Bus, BusOptions
from fairlead.errors import Unusable
from fairlead.protocol.subjects import Subjects
from fairlead.publisher import Publisher
from fairlead.readiness import Readiness
from fairlead_edge.app import EdgeApp
from fairlead_edge.host import Host
from fairlead_edge.http import EdgeHttpProtocol
from fairlead_edge.life import live
from fairlead_edge.metrics import FIGURES
from fairlead_edge.report import Reporter
from fairlead_edge.settings import EdgeSettings
from fairlead_edge.tally import EdgeTally
from fairlead_edge.ws import CLOSE_WITHIN, PING_EVERY, PONG_WITHIN, EdgeWebSocketProtocol

log = logs.get("fairlead.edge")

LAST_WORDS = 0.3
"""Seconds for the close frames of those that are still there when we are told a second time."""


def run(settings: EdgeSettings) -> int:
    """Serve clients until SIGTERM or SIGINT.

    Returns:
        0 stopped as asked, 1 failed at start.
    """
    logs.configure(settings.dev, "edge", settings.log_level, settings.exception_messages)
    try:
        uvloop.run(_serve(settings))
    except (Unusable, OSError) as error:
        log.error("the edge cannot go on", reason=str(error))
        return 1
    return 0


class PublicServer(uvicorn.Server):
    """The public port. Signals are the process' business: uvicorn would close every
    WebSocket within 0.1 s of the first one, before anything could be drained."""

    def __init__(self, app: EdgeApp, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app.asgi,
                ws=EdgeWebSocketProtocol,
                http=EdgeHttpProtocol,
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws_ping_interval=PING_EVERY,
                ws_ping_timeout=PONG_WITHIN,
                ws_per_message_deflate=False,  # 50 KB a connection
                timeout_graceful_shutdown=int(CLOSE_WITHIN),  # until the peers have closed, too
                backlog=4096,
            )
        )
        self._listener = listener
        self._until: float | None = None

    async def run_until(self, stop: asyncio.Event) -> None:
        serving = asyncio.ensure_future(self._serve([self._listener]))
        await process.unless(asyncio.shield(serving), stop)
        if self._until is not None:
            left = self._until - asyncio.get_running_loop().time()
            self.config.timeout_graceful_shutdown = max(0.0, min(CLOSE_WITHIN, left))  # type: ignore[assignment]  # given to `wait_for`
        self.should_exit = True
        await serving

    async def stop_listening(self, grace: float) -> None:
        """Refuse new connections; those that are there stay, for `grace` seconds at most."""
        self._until = asyncio.get_running_loop().time() + grace
        for server in self.servers:
            server.close()

    async def end_at(self, now: asyncio.Event) -> None:
        """End without waiting for anybody: say 1012, and cut off who does not leave at once."""
        await now.wait()
        self.should_exit = self.force_exit = True
        await asyncio.sleep(LAST_WORDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _serve(settings: EdgeSettings) -> None:
    edge = secrets.token_hex(4)
    logs.identify(edge)
    stop, now = process.signals()
    readiness = Readiness(settings.ready_grace, "no routes are known yet")
    listener = admin.listen(settings.host, settings.port)
    tally = EdgeTally()
    app = EdgeApp(settings.pages, tally)
    finished = asyncio.Event()
    opened = readiness.admin(settings.admin_host, settings.admin_port, "edge", edge)
    async with opened as admin_state:
        server = PublicServer(app, listener)
        serving = asyncio.create_task(server.run_until(finished))
        ending = asyncio.create_task(server.end_at(now))
        address = listener.getsockname()
        log.info("edge listens on", host=address[0], port=address[1])
        options = BusOptions(
            settings.servers, Subjects(settings.app), "edge", edge, credentials=settings.credentials
        )
        try:
            connecting = asyncio.ensure_future(Bus.connect(options))
            if not await process.unless(connecting, stop):
                return
            bus = connecting.result()
            readiness.bus = bus
            try:
                host = Host(bus, edge, settings, telemetry.setup("edge", edge), tally)
                admin_state.metrics.add(FIGURES, host)
                Reporter(host, readiness, (address[0], address[1]))
                admin_state.publisher = Publisher(
                    bus, lambda: host.fleet.table.topics, host.tracing
                )

                def serving_now() -> None:
                    readiness.serving = True
                    process.settle()

                async def draining() -> None:
                    readiness.draining = True
                    await server.stop_listening(settings.drain_grace)

                await live(app, host, stop, now, on_serving=serving_now, on_draining=draining)
            finally:
                await bus.close()
        finally:
            finished.set()
            await serving
            await process.end(ending)
    log.info("edge stopped")
