"""What an edge records of its clients: `connect`, `receive`, `deliver`, `replay`, `close`.

All of it only for what is sampled; names and attributes are listed in docs/tracing.md. No span is
open as long as a connection: its messages link to the one of its handshake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from fairlead.protocol import frames
from fairlead.protocol.problems import CANCELLED, Close
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop, Tracing, parent_of, unsampled
from fairlead_edge.admission import Left, Refused
from fairlead_edge.watched import Watch

if TYPE_CHECKING:
    from fairlead.protocol.manifest import Route
    from fairlead_edge.host import Host
    from fairlead_edge.replay import Replay
    from fairlead_edge.room import Room, RoomMessage

DELIVERED_WITHIN = 10.0
"""Seconds after which `deliver` ends, whoever has not read by then."""

LINKS = 32
"""Traces of replayed messages that a `replay` links to, at most."""

FAREWELLS = frozenset({Close.ENDED, Close.GOING_AWAY, Close.RESTART})
"""Close codes that tell of nothing wrong. So do the two that no frame ever holds:"""

NO_CODE, CUT = 1005, 1006
"""A close frame without a code, and none at all: most often somebody has closed a lid (RFC 6455, 7.1.5)."""

TROUBLE = frozenset(
    {Close.INTERNAL, Close.OVERLOADED, Close.SLOW_CONSUMER, Close.POSITION_LOST}
)  # fmt: skip
"""Close codes for which the server has a reason that is worth a look."""


class Who(Protocol):
    """A client of either transport."""

    id: str

    @property
    def route(self) -> Route: ...


class Connected:
    """A connection, or an event stream, whose handshake or request was sampled.

    Attributes:
        trace: of its `connect` or `receive`. since: loop time; received: messages.
    """

    __slots__ = ("received", "since", "trace")

    def __init__(self, trace: Traceparent) -> None:
        self.trace = trace
        self.since = asyncio.get_running_loop().time()
        self.received = 0


class Spans:
    """The spans of one edge."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def receive(
        self, route: Route, connection: str, parent: Traceparent | None, size: int, id: str = "",
        connected: Connected | None = None, kind: str = "message",
    ) -> Hop | None:  # fmt: skip
        """The first span of a message or a request; None if it is not sampled.

        Args:
            connection: its id, or "" where that is not known yet.
            parent: the client's; id: its own, of the message.
            kind: `message`; of an event stream `open`, `attach` or `cancel`.
        """
        if not self._tracing.sampled(parent):
            return None
        attributes = _attributes("receive", route.name, size)
        attributes |= _of(route, connection)
        attributes["fairlead.kind"] = kind
        if id:
            attributes["messaging.message.id"] = id
        links = [connected.trace] if connected is not None else []
        return self._tracing.start(f"receive {route.name}", "server", parent, attributes, links)

    def connect(
        self, route: Route, connection: str, parent: Traceparent | None, protocol: str
    ) -> Hop | None:
        """The handshake of a WebSocket; None if it is not sampled."""
        if not self._tracing.sampled(parent):
            return None
        attributes = {
            "messaging.operation.name": "connect",
            "messaging.destination.template": route.name,
            "network.protocol.name": "websocket",
            "fairlead.protocol": protocol,
            **_of(route, connection),
        }
        return self._tracing.start(f"connect {route.name}", "server", parent, attributes)

    def close(self, client: Who, connected: Connected, code: int) -> None:
        """The end of a connection whose handshake was sampled: a trace of its own."""
        hop = self._close(client, connected)
        hop.set("fairlead.close.code", code)
        hop.set("fairlead.received", connected.received)
        if code not in FAREWELLS and code not in (NO_CODE, CUT):
            hop.refuse(code, code in TROUBLE)
        hop.end()

    def end(self, client: Who, connected: Connected, failure: int | None) -> None:
        """The end of an event stream whose request was sampled, as `close`.

        Args:
            failure: the status of the problem that it ended with.
        """
        hop = self._close(client, connected)
        if failure is not None:
            hop.refuse(failure)
        hop.end()

    def _close(self, client: Who, connected: Connected) -> Hop:
        route = client.route
        attributes: dict[str, str | float] = {
            "messaging.operation.name": "close",
            "messaging.destination.template": route.name,
            "fairlead.connected": asyncio.get_running_loop().time() - connected.since,
            **_of(route, client.id),
        }
        links = [connected.trace]
        return self._tracing.start(f"close {route.name}", "internal", None, attributes, links)

    def replay(
        self, route: Route, connection: str, parent: Traceparent, rooms: int = 1
    ) -> Replaying:
        """Somebody is back, and is brought up to the present.

        Args:
            parent: sampled; rooms: in which so many replays run.
        """
        attributes = _attributes("replay", route.name) | _of(route, connection)
        hop = self._tracing.start(f"replay {route.name}", "consumer", parent, attributes)
        return Replaying(hop, rooms)

    def deliver(
        self, room: Room, origin: str, data: bytes, redelivered: bool
    ) -> tuple[str, Watch | None]:
        """A message for a room's members: its traceparent and who is told of its way.

        Args:
            origin: the traceparent that it came with; if that is not sampled, ("", None).
            redelivered: it was read from the room's stream, since it was not heard.
        """
        parent = parent_of(origin)
        if parent is None or not parent.sampled:
            return "", None
        attributes = _attributes("deliver", room.template, len(data))
        attributes["messaging.destination.name"] = f"{room.topic}.{room.channel}"
        if redelivered:
            attributes["fairlead.redelivered"] = True
        hop = self._tracing.start(f"deliver {room.template}", "consumer", parent, attributes)
        return str(hop.parent), _Delivering(hop).watch

    def direct(self, name: str, topic: str, origin: str, size: int) -> tuple[str, Watch | None]:
        """A peer's message for some of the clients here, as `deliver`. Args: name: the template."""
        parent = parent_of(origin)
        if parent is None or not parent.sampled:
            return "", None
        attributes = _attributes("deliver", name, size)
        attributes |= {"messaging.destination.name": topic, "fairlead.direct": True}
        hop = self._tracing.start(f"deliver {name}", "consumer", parent, attributes)
        return str(hop.parent), _Delivering(hop).watch


class _Delivering:
    """One `deliver`, until the slowest member has it. Implements `watched.Watcher`."""

    __slots__ = ("_began", "_hop", "_timer", "watch")

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._began = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(DELIVERED_WITHIN, self.over)
        self.watch = Watch(self)

    def written(self) -> None:
        self._hop.set("fairlead.written", time.monotonic() - self._began)

    def over(self) -> None:
        self._timer.cancel()
        watch, hop = self.watch, self._hop
        hop.set("fairlead.members", watch.members)
        hop.set("fairlead.slow", watch.slow)
        hop.set("fairlead.bytes", watch.bytes)
        hop.set("fairlead.coalesced", watch.coalesced)
        if watch.dropped:
            hop.set("fairlead.dropped", watch.dropped)
        if watch.late:
            hop.set("fairlead.late", watch.late)
        hop.end()


class Replaying:
    """One `replay`, until the client has all that it missed. End it once for each of its rooms."""

    __slots__ = ("_hop", "_linked", "_messages", "_rooms", "trace")

    def __init__(self, hop: Hop, rooms: int) -> None:
        self._hop = hop
        self._rooms = rooms
        self._messages = 0
        self._linked: set[str] = set()
        self.trace = str(hop.parent)

    def of(self, origin: str) -> None:
        """It has to do with this trace, if that is sampled."""
        if origin not in self._linked and len(self._linked) < LINKS:
            parent = parent_of(origin)
            if parent is not None and parent.sampled:
                self._linked.add(origin)
                self._hop.link(parent)

    def sent(self, messages: Sequence[RoomMessage]) -> list[RoomMessage]:
        """Some messages go out; returns them with their traceparent, which is this one."""
        self._messages += sum(not message.hidden for message in messages)
        for message in messages:
            if message.origin:
                self.of(message.origin)
        return [message._replace(trace=self.trace) for message in messages]

    def end(self, code: int = 0) -> None:
        """Args: code: that the connection is closed with, since not all of it could be read."""
        if code:
            self._hop.refuse(code, True)
        self._rooms -= 1
        if not self._rooms:
            self._hop.set("fairlead.messages", self._messages)
            self._hop.end()


# The way of a request


def connecting(host: Host, route: Route, id: str, scope: Scope) -> Hop | None:
    """The span of a handshake, which the client's `traceparent` is the parent of."""
    if host.spans is None:
        return None
    parent = parent_of(Headers(scope=scope).get("traceparent", ""))
    v1 = frames.SUBPROTOCOL in scope.get("subprotocols", ())
    return host.spans.connect(route, id, parent, frames.SUBPROTOCOL if v1 else "raw")


def receiving(
    host: Host, route: Route, headers: Headers, size: int, kind: str
) -> tuple[Hop | None, Traceparent]:
    """The span of a request, if it is sampled; and its trace, or the id that stands for one."""
    parent, hop = parent_of(headers.get("traceparent", "")), None
    if host.spans is not None:
        hop = host.spans.receive(route, "", parent, size, kind=kind)
    return hop, hop.parent if hop is not None else unsampled(parent)


def trace_replays(
    host: Host, route: Route, id: str, replays: Sequence[Replay | None], hop: Hop | None
) -> None:
    """Have what a client missed recorded, where its coming is."""
    if hop is None or host.spans is None:
        return
    found = [replay for replay in replays if replay is not None]
    hop.set("fairlead.recovered", bool(found))
    if found:
        span = host.spans.replay(route, id, hop.parent, len(found))
        for replay in found:
            replay.span = span


@contextmanager
def ending(hop: Hop | None) -> Iterator[None]:
    """Say of a span what came of a handshake or a request, and end it."""
    if hop is None:
        yield
        return
    try:
        yield
    except Refused as refused:
        hop.set("http.response.status_code", refused.response.status_code)
        hop.refuse(refused.response.status_code)
        raise
    except (Left, asyncio.CancelledError):
        hop.refuse(CANCELLED)
        raise
    except Exception as error:
        hop.fail(error)
        raise
    finally:
        hop.end()


def _attributes(
    operation: str, template: str, size: int | None = None
) -> dict[str, str | int | float | bool]:
    found: dict[str, str | int | float | bool] = {
        "messaging.operation.name": operation,
        "messaging.operation.type": "receive",
        "messaging.destination.template": template,
    }
    if size is not None:
        found["messaging.message.body.size"] = size
    return found


def _of(route: Route, connection: str) -> dict[str, str]:
    named = {"fairlead.connection": connection} if connection else {}
    return {"fairlead.workflow": route.label, **named}
