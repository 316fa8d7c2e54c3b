"""NATS's own hop tracing, joined in: each server that a sampled message passed, as a span.

The events come on one subject, in a queue group, so that one edge makes a span of each. They are
exported with this edge's own, as a service `nats`.
"""

from __future__ import annotations

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.protocol import passage
from fairlead.protocol.passage import Passage
from fairlead.protocol.subjects import EDGES
from fairlead.telemetry import Tracing

log = logs.get("fairlead.edge")

SERVERS = 64
"""Servers that are told apart, each as an instance of the service; more are `others`."""


class Broker:
    """What NATS tells. Args: tracing: None where there is nothing to join it to."""

    def __init__(self, bus: Bus, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self._servers: dict[str, Tracing] = {}
        if tracing is None:
            log.warning("broker spans are asked for, but nothing is traced: set OTEL_* variables")
        else:
            bus.subscribe(bus.subjects.broker, self._heard, EDGES)

    def _heard(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        try:
            self._record(passage.decode(data))
        except Malformed as error:
            logs.dropped(subject, data, error)

    def _record(self, passed: Passage) -> None:
        attributes: dict[str, str | int] = {
            "messaging.operation.name": "route",
            "messaging.destination.name": passed.subject,
            "messaging.message.envelope.size": passed.size,
            "fairlead.nats.server": passed.server,
        }
        if passed.hop:
            attributes["fairlead.nats.hop"] = passed.hop
        first, last = passed.steps[0].at, passed.steps[-1].at
        name = f"nats {passed.server}"
        hop = self._server(passed.server).start(
            name, "internal", passed.parent, attributes, at=first
        )
        for step in passed.steps:
            hop.event(step.name, step.attributes, step.at)
        if passed.error:
            hop.refuse("not delivered", broken=True)
        hop.end(last)

    def _server(self, name: str) -> Tracing:
        assert self._tracing is not None
        if name not in self._servers and len(self._servers) >= SERVERS:
            name = "others"
        if name not in self._servers:
            self._servers[name] = self._tracing.beside("nats", name)
        return self._servers[name]
