"""How this edge stands, told to consoles that ask."""

from __future__ import annotations

import heapq
import itertools
import time

from fairlead import reporting
from fairlead.protocol.report import ROOMS, SLOW, VIEWED, EdgeReport, Room, Slow, Viewed
from fairlead.readiness import Readiness
from fairlead_edge.host import Host
from fairlead_edge.tally import RUNS

LOOKED_AT = 10_000
"""Rooms among which the largest are looked for: more would hold the loop for tens of ms."""

COUNTED = (
    "received", "received_bytes", "sent", "begun", "ended", "failed", "lost", "busy", "waited",
    "messages", "deliveries", "bytes", "replayed", "gaps_filled", "gaps_lost",
)  # fmt: skip
"""Of the tally: what is told, all workflows or topics together."""


class Reporter:
    """Answers with how the edge stands.

    Args:
        listens: (host, port) that clients connect to; None in somebody's application.
    """

    def __init__(
        self, host: Host, readiness: Readiness, listens: tuple[str, int] | None = None
    ) -> None:
        self._host = host
        self._readiness = readiness
        self._listens = listens
        self._started = time.time()
        reporting.answer(host.bus, self.report)

    def report(self) -> EdgeReport:
        host = self._host
        viewed = host.runs.viewed
        largest = heapq.nlargest(
            ROOMS, itertools.islice(host.hub.rooms(), LOOKED_AT), key=lambda room: room.size
        )
        most_viewed = heapq.nlargest(VIEWED, viewed, key=lambda each: each[2])
        waiting = host.buffers.worst(SLOW)
        return EdgeReport(
            **reporting.vitals(host.edge, self._readiness, self._started),
            counters={name: host.tally.total(name) for name in COUNTED},
            address=self._address(),
            websockets=host.tally.total("websockets"),
            streams=host.tally.total("streams"),
            rooms=tuple(
                Room(
                    topic=room.topic, template=room.template, channel=room.channel,
                    members=room.size, messages=room.heard,
                )
                for room in largest
            ),
            rooms_in_all=sum(t.rooms for name, t in host.tally.topics.items() if name != RUNS),
            viewed=tuple(
                Viewed(run=run, workflow=label, viewers=n) for run, label, n in most_viewed
            ),
            viewed_in_all=len(viewed),
            slow=tuple(
                Slow(connection=client.id, workflow=client.route.label, bytes=size)
                for client, size in waiting
            ),
            slow_in_all=host.buffers.clients,
            buffered=host.buffers.used,
            buffer_limit=host.buffers.limit,
            routes=sum(1 for _ in host.fleet.table),
        )  # fmt: skip

    def _address(self) -> str:
        """HOST:PORT for other machines: who listens on all addresses is where NATS sees it."""
        if self._listens is None:
            return ""
        host, port = self._listens
        if host in ("0.0.0.0", "::"):
            host = self._host.bus.own_address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
