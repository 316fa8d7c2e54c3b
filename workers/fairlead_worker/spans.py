"""What a worker records: `process` for what it executes, `publish` for what that says to a room.

All of it only for what is sampled; names and attributes are listed in docs/tracing.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from fairlead.protocol.envelope import Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop, Tracing, parent_of

PUBLICATIONS = 100
"""Publications of one message, or one run, that have spans; those after them travel untraced. So a
message is whole in its trace, and a long answer to a room does not bury all others."""

_KINDS = {
    Kind.MESSAGE: "message",
    Kind.OPEN: "open",
    Kind.REOPEN: "reopen",
    Kind.CHECK: "check",
    Kind.ADMIT: "admit",
}


class Executed(Protocol):
    """A run, as far as its spans tell of it."""

    route: Route
    topic: str
    channel: str
    connection: str
    attempt: int

    @property
    def run_id(self) -> str: ...


class Processing:
    """One `process`: of a message, a run or a check. End it once.

    Attributes:
        hop: the span.
    """

    __slots__ = ("_items", "_last", "_published", "_tracing", "hop")

    def __init__(self, tracing: Tracing, hop: Hop) -> None:
        self.hop = hop
        self._tracing = tracing
        self._items = 0
        self._last = 0  # ns since the epoch
        self._published = 0

    def said(self) -> None:
        """One more item of a stream. The first and the last are events: never one per item."""
        self._items += 1
        self._last = time.time_ns()
        if self._items == 1:
            self.hop.event("first item", {"fairlead.item": 1}, self._last)

    def publish(self, run: Executed, size: int, direct: bool) -> Hop | None:
        """Something goes to the room; None if there was too much of that."""
        self._published += 1
        if self._published > PUBLICATIONS:
            return None
        return publish(self._tracing, run, self.hop.parent, size, direct)

    def failed(self, status: int, error: BaseException | None) -> None:
        """It ends with a problem of this status; `error` if something was raised that should not be."""
        if error is not None:
            self.hop.fail(error)
        else:
            self.hop.refuse(status)

    def end(self) -> None:
        if self._items:
            self.hop.event("last item", {"fairlead.item": self._items}, self._last)
        if self._published > PUBLICATIONS:
            self.hop.set("fairlead.untraced", self._published - PUBLICATIONS)
        self.hop.end()


def process(
    tracing: Tracing, run: Executed, work: Work, previous: str = "", kind: str = ""
) -> Processing | None:
    """What begins to be executed; None if it is not sampled.

    Args:
        work: of the run, or a message for the run of a connection.
        previous: trace of the attempt before; "" if only that of the work is known.
        kind: what it is called, if not as `work.kind`.
    """
    if not work.trace:
        return None
    parent = parent_of(work.trace)
    if parent is None or not parent.sampled:
        return None
    attributes: dict[str, str | int | float | bool] = {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": run.route.name,
        "messaging.message.body.size": len(work.data),
        "fairlead.workflow": run.route.label,
        "fairlead.connection": run.connection,
        "fairlead.attempt": run.attempt,
        "fairlead.kind": kind or _KINDS[work.kind],
    }
    if work.sent and not kind:
        attributes["fairlead.queue.wait"] = max(0.0, time.time() - work.sent)
    if work.kind not in (Kind.CHECK, Kind.ADMIT):
        attributes["fairlead.run"] = run.run_id
    if work.kind is Kind.MESSAGE and work.id:  # that of an open is its run's token
        attributes["messaging.message.id"] = work.id
    links: Sequence[Traceparent] = ()
    if run.attempt > 1:
        links = [parent_of(previous) or parent]
    hop = tracing.start(f"process {run.route.name}", "consumer", parent, attributes, links)
    return Processing(tracing, hop)


def broken(tracing: Tracing, run: Executed) -> Processing:
    """A room's run has raised; it has no span, so this is a trace of its own for that."""
    attributes: dict[str, str | int] = {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": run.route.name,
        "fairlead.workflow": run.route.label,
        "fairlead.attempt": run.attempt,
        "fairlead.run": run.run_id,
        "fairlead.kind": "room",
    }
    hop = tracing.start(f"process {run.route.name}", "consumer", None, attributes)
    return Processing(tracing, hop)


def publish(
    tracing: Tracing, run: Executed, parent: Traceparent | None, size: int, direct: bool = False
) -> Hop:
    """Something goes to the run's room, or to one of its topic. Args: parent: None begins a trace."""
    name = run.topic if direct else f"{run.topic}.{run.channel}"
    attributes: dict[str, str | int | bool] = {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": run.route.topic,
        "messaging.destination.name": name,
        "messaging.message.body.size": size,
        "fairlead.workflow": run.route.label,
        "fairlead.attempt": run.attempt,
    }
    if direct:
        attributes["fairlead.direct"] = True
    return tracing.start(f"publish {run.route.topic}", "producer", parent, attributes)
