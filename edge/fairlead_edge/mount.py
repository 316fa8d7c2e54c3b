"""An edge inside an application of your own, under whatever ASGI server that has.

::

    from fairlead_edge.mount import Edge

    realtime = Edge(nats="nats://localhost:4222")
    app = FastAPI(lifespan=realtime.lifespan)
    app.mount("/realtime", realtime)
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fairlead import logs, process, telemetry
from fairlead.admin import metrics_response
from fairlead.bus import Bus, BusOptions
from fairlead.errors import Unusable
from fairlead.metrics import Metrics
from fairlead.protocol.subjects import Subjects
from fairlead.readiness import Readiness
from fairlead_edge.app import EdgeApp
from fairlead_edge.host import Host
from fairlead_edge.life import live
from fairlead_edge.metrics import FIGURES
from fairlead_edge.report import Reporter
from fairlead_edge.settings import EdgeSettings
from fairlead_edge.tally import EdgeTally

log = logs.get("fairlead.edge")


class Edge:
    """An ASGI application to be mounted. It starts with `lifespan`, or with `async with`.

    It serves as an edge process does, as long as your process lives: a deploy of your
    application drops its clients, which a process of its own would not. Until NATS answers,
    everything is refused with 503.

    Args:
        settings: as the flags of `fairlead edge`: `nats`, `app`, `worker_wait`, `drain_grace`,
            `dev`, …, or their FAIRLEAD_* variables. Ports are your server's business.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = EdgeSettings(**settings)
        self._tally = EdgeTally()
        self._app = EdgeApp(self._settings.pages, self._tally)
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.asgi(scope, receive, send)

    async def metrics(self, request: Request) -> Response:
        """An endpoint that Prometheus reads: `app.add_route("/metrics", realtime.metrics)`.

        What an edge process shows on its admin port. It is made in a thread, and by nobody
        unless asked for.
        """
        accept = request.headers.get("accept", "")
        return await asyncio.to_thread(metrics_response, self._metrics, accept)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For `Starlette(lifespan=…)` and `FastAPI(lifespan=…)`; in one of your own: `async with`."""
        async with self:
            yield

    async def __aenter__(self) -> Edge:
        self._living = asyncio.create_task(self._live())
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(_told_first(self._stop.set))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._signals.close()
        self._stop.set()
        if self._living is not None:
            await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self) -> None:
        edge = secrets.token_hex(4)
        readiness = Readiness(self._settings.ready_grace, "no routes are known yet")
        async with readiness.exported("edge", edge, scraped=True) as state:
            self._metrics = state.metrics
            await self._serve(edge, readiness)

    async def _serve(self, edge: str, readiness: Readiness) -> None:
        settings = self._settings
        try:
            options = BusOptions(
                settings.servers,
                Subjects(settings.app),
                "edge",
                edge,
                credentials=settings.credentials,
            )
            connecting = asyncio.ensure_future(Bus.connect(options))
            if not await process.unless(connecting, self._stop):
                return
            bus = connecting.result()
        except Unusable as error:
            log.error("the mounted edge cannot serve", reason=str(error))
            return
        readiness.bus = bus

        def serving_now() -> None:
            readiness.serving = True
            log.info("edge is mounted", instance=edge)

        async def draining() -> None:
            readiness.draining = True

        try:
            host = Host(bus, edge, settings, telemetry.setup("edge", edge), self._tally)
            self._metrics.add(FIGURES, host)
            Reporter(host, readiness)
            await live(
                self._app, host, self._stop, self._now,
                on_serving=serving_now, on_draining=draining,
            )  # fmt: skip
        finally:
            await bus.close()


@contextlib.contextmanager
def _told_first(call: Any) -> Iterator[None]:
    """Hear of SIGTERM and SIGINT before the server does.

    uvicorn waits for event streams before it ends the lifespan, so who waited for that would
    never end them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def told(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(call)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for each in (signal.SIGTERM, signal.SIGINT):
        if callable(found := signal.getsignal(each)):  # else nobody would stop the process
            before[each] = found
            signal.signal(each, told)
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is told:
                signal.signal(each, handler)
