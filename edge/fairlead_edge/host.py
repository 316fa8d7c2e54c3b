"""What all clients of one edge share: NATS, rooms, the relay, the routes, and this turn's writes."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from fairlead.bus import Bus
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import Close
from fairlead.protocol.subjects import CONNECTION_SEPARATOR
from fairlead.telemetry import Tracing
from fairlead_edge.broker import Broker
from fairlead_edge.buffers import Buffers, Slow
from fairlead_edge.fleet import Fleet
from fairlead_edge.hub import Hub
from fairlead_edge.peers import Peers
from fairlead_edge.relay import Relay
from fairlead_edge.routes import RouteTable
from fairlead_edge.runs import Runs
from fairlead_edge.settings import EdgeSettings
from fairlead_edge.shared_runs import SharedRuns
from fairlead_edge.spans import Spans
from fairlead_edge.tally import EdgeTally
from fairlead_edge.watched import Watch


class Client(Slow, Protocol):
    """A connection of either transport, as the edge keeps it."""

    id: str

    @property
    def route(self) -> Route: ...

    @property
    def topic(self) -> str:
        """The name of its room's topic, or "" if it is in none."""
        ...

    @property
    def who(self) -> str:
        """Its subject's id, or "" where no policy found one."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something of it is not done."""
        ...

    def direct(
        self, sender: str, data_type: DataType, data: bytes, trace: str = "",
        watch: Watch | None = None,
    ) -> bool:  # fmt: skip
        """Give it a peer's message; False if it is gone. The last two: as `peers.Peer` says."""
        ...

    def flush(self) -> None:
        """Write what this turn of the loop has for it."""
        ...

    def stop_taking(self) -> None:
        """A drain begins."""
        ...

    def announce_drain(self, within: int) -> None:
        """Tell it to come back elsewhere within so many ms."""
        ...

    def close(self, code: Close, reason: str) -> None: ...


class Host:
    """One edge.

    Attributes:
        edge: its id; part of the ids of its connections.
        clients: who is connected, by id.
        buffers: what waits for those who read slowly.
        tally: what was counted here.
        spans: what is recorded of them; None where tracing is off.
    """

    def __init__(
        self, bus: Bus, edge: str, settings: EdgeSettings, tracing: Tracing | None,
        tally: EdgeTally,
    ) -> None:  # fmt: skip
        self.bus = bus
        self.edge = edge
        self.settings = settings
        self.tracing = tracing
        self.tally = tally
        self.spans = Spans(tracing) if tracing is not None else None
        self.clients: dict[str, Client] = {}
        self.buffers = Buffers(settings.buffer_limit)
        self.hub = Hub(bus, self.spans, tally)
        self.peers = Peers(bus, self.spans)
        self.relay = Relay(
            bus, edge, self.peers, settings.worker_wait, self._choose_worker, tally,
            settings.broker_spans,
        )  # fmt: skip
        self.broker = Broker(bus, tracing) if settings.broker_spans else None
        self.runs = Runs(bus, self.relay, edge, self.new_id)
        self.fleet = Fleet(bus, self.relay.beat, self.relay.worker_gone, self._routes_changed)
        self.shared_runs = SharedRuns(bus, edge, lambda: self.fleet.table)
        self.hub.on_occupied = self.shared_runs.occupied
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._writing: list[Client] = []
        self._idle = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()

    def chore(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that nobody waits for."""
        task = self._loop.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _choose_worker(self, route: Route) -> str:
        return self.fleet.choose(route)

    now = staticmethod(time.time)

    def new_id(self) -> str:
        """An id for a connection: it says its edge, and can't be guessed from another's."""
        return f"{self.edge}{CONNECTION_SEPARATOR}{next(self._numbers)}{secrets.token_hex(4)}"

    # Clients

    def entered(self, client: Client) -> None:
        self.clients[client.id] = client
        self.tally.of(client.route).connected(client.route, 1)
        self.peers.entered(client)

    def left(self, client: Client) -> None:
        if self.clients.pop(client.id, None) is not None:
            self.tally.of(client.route).connected(client.route, -1)
        self.peers.left(client)
        self.settled(client)

    def settled(self, client: Client) -> None:
        """Something of a client is done: those who wait for quiet look again."""
        self._idle.set()

    async def quiet(self) -> None:
        """Wait until no client has anything outstanding."""
        # Each is looked at until it is quiet, and then no more: there may be many.
        busy = [client for client in self.clients.values() if client.busy]
        while True:
            while busy and not (busy[-1].busy and busy[-1].id in self.clients):
                busy.pop()
            if not busy and not self.relay.outstanding:
                return
            self._idle.clear()
            await self._idle.wait()

    def write_soon(self, client: Client) -> None:
        """Flush a client at the end of this turn: one write for all it got in it."""
        if not self._writing:
            self._loop.call_soon(self._write_all)
        self._writing.append(client)

    def _write_all(self) -> None:
        writing, self._writing = self._writing, []
        for client in writing:
            client.flush()

    def _routes_changed(self, table: RouteTable) -> None:
        """Close those whose route is gone; a route with new options is for new connections."""
        self.shared_runs.routes_changed()
        self.hub.topics_changed(table.topics)
        kept = {(route.transport, route.endpoint) for route in table}
        for client in list(self.clients.values()):
            if (client.route.transport, client.route.endpoint) not in kept:
                client.close(Close.RESTART, "this endpoint is gone; reconnect")
