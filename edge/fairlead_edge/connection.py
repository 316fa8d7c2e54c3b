"""A client on a WebSocket, raw or `fairlead.v1`: what comes in, what waits, what goes out.

::

    frame_received ──▶ waiting ──window──▶ Relay ──▶ … a worker … ──▶ item, finished
    room_bytes, item ──▶ outgoing ──end of the turn──▶ one write, at most 64 KiB in the transport
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead.protocol import frames
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.frames import Cancel
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, Close, problem
from fairlead.telemetry import parent_of
from fairlead_edge.host import Host
from fairlead_edge.relay import Flight
from fairlead_edge.room import RAW, V1, Room, websocket_frame
from fairlead_edge.session import Session, Violation
from fairlead_edge.ws import HIGH_WATER, EdgeWebSocketProtocol

log = logging.getLogger("fairlead.edge")

RAW_WAITING = 64 * 1024
"""Bytes of a raw client's messages that may wait; with more its socket is not read."""

BUDGET = 1024 * 1024
"""Bytes that may wait for a client that does not read; with more it is closed with 4001."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the handshake settled.

    Attributes:
        subject: NATS subject of the client's messages.
        context: query, headers and path, encoded once.
    """

    route: Route
    room: Room
    subject: str
    context: bytes


class Connection:
    """One client. Implements `relay.Owner` and `room.Member`.

    Attributes:
        id: `<edge>-…`; other clients see it as `from`.
    """

    __slots__ = (
        "_count", "_flights", "_host", "_leaving", "_outgoing", "_outgoing_bytes", "_protocol",
        "_scheduled", "_session", "_settled", "_waiting", "_waiting_bytes", "gone", "id",
    )  # fmt: skip

    def __init__(
        self, host: Host, protocol: EdgeWebSocketProtocol, id: str, settled: Settled, v1: bool
    ) -> None:
        self.id = id
        self.gone = False
        self._host = host
        self._protocol = protocol
        self._settled = settled
        self._session = Session() if v1 else None
        self._count = 0
        # Most connections are idle: what they need only when busy is made then.
        self._waiting: deque[Flight] | None = None
        self._waiting_bytes = 0
        self._flights: dict[int, Flight] | None = None
        self._outgoing: deque[tuple[bytes, Flight | None]] | None = None
        self._outgoing_bytes = 0
        self._scheduled = False
        self._leaving = False

    @property
    def dialect(self) -> str:
        return RAW if self._session is None else V1

    @property
    def route(self) -> Route:
        return self._settled.route

    @property
    def topic(self) -> str:
        return self._settled.room.topic

    @property
    def busy(self) -> bool:
        """Whether messages of this client are not done."""
        return bool(self._flights or self._waiting)

    def opened(self, recovered: bool | None) -> None:
        """The 101 is out: be a member of the room, and say so.

        Args:
            recovered: for the welcome; None unless the client sent a cursor.
        """
        room = self._settled.room
        self._host.hub.join(room, self)
        if self._session is not None:
            self._send(frames.welcome(self.id, room.cursor, recovered, frames.WINDOW))

    # In

    def frame_received(self, text: bool, data: bytes) -> None:
        """A whole message of the client; called by the protocol."""
        if self._leaving:
            return  # a drain: the client sends it again to another edge, having no ack for it
        try:
            if self._session is None:
                kind = DataType.TEXT if text else DataType.BINARY
                self._take(kind, data)
                return
            frame = self._session.frame_received(text, data)
        except Violation as violation:
            self.close(violation.code, violation.reason)
            return
        if isinstance(frame, bytes):
            self._send(frame)
        elif isinstance(frame, Cancel):
            self._cancel(frame.ref or 0)
        else:
            self._take(frame.type, frame.data, frame.id, frame.traceparent, frame.ref)

    def _take(
        self, kind: DataType, data: bytes, id: str = "", trace: str = "", ref: int | None = None
    ) -> None:
        """Put a message in line; it goes out when its turn comes."""
        host, settled = self._host, self._settled
        self._count += 1
        hop = (
            host.receive_span(settled.route, parent_of(trace), len(data)) if host.tracing else None
        )
        parent = "" if hop is None else str(hop.parent)
        work = Work(Kind.MESSAGE, kind, data, host.now(), parent, id, settled.context)
        flight = Flight(self, settled.route, self._count, settled.subject, work, ref, hop)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(flight)
        self._waiting_bytes += len(data)
        self._next()
        if self._session is None and self._waiting_bytes > RAW_WAITING:
            self._protocol.pause_reading()

    def _next(self) -> None:
        """Send as many messages as the trigger's window lets through."""
        if self._flights is None:
            self._flights = {}
        while self._waiting and len(self._flights) < self._settled.route.window:
            flight = self._waiting.popleft()
            self._waiting_bytes -= len(flight.work.data)
            self._flights[flight.delivery.number] = flight
            self._host.relay.submit(flight)
        if self._protocol.read_paused and self._waiting_bytes <= RAW_WAITING // 2 and not self.gone:
            self._protocol.resume_reading()

    def _cancel(self, ref: int) -> None:
        assert self._session is not None
        if ref not in self._session.unacknowledged:
            return  # it is answered already; the answers have crossed
        for flight in (self._flights or {}).values():
            if flight.ref == ref:
                self._host.relay.cancel(flight)
                return
        for flight in self._waiting or ():
            if flight.ref == ref:
                assert self._waiting is not None
                self._waiting.remove(flight)
                self._waiting_bytes -= len(flight.work.data)
                if flight.hop is not None:
                    flight.hop.end()
                self._answer(flight, problem(CANCELLED, "cancelled"))
                return

    # What the relay tells

    def taken(self, flight: Flight) -> None:
        pass  # the client of a message need not know

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        if self.gone:
            # Executed, as every message is. But if it is all for the sender, it has no reader.
            if self.route.deliver == "sender":
                self._host.relay.cancel(flight)
            else:
                self._host.relay.credit(flight, len(data))
            return
        if self._session is None:
            self._write(websocket_frame(data_type is not DataType.BINARY, data), flight)
            return
        body = frames.message(
            data_type, data, ref=flight.ref, run=flight.run_id, trace=flight.trace
        )
        self._write(websocket_frame(True, body), flight)

    def waiting(self, flight: Flight) -> None:
        if self._session is not None and flight.ref is not None:
            self._send(frames.waiting(flight.ref))

    def worker_lost(self, flight: Flight) -> bool:
        return True

    def restarted(self, flight: Flight) -> None:
        if self._session is not None and flight.ref is not None:
            self._send(frames.restart(flight.run_id, flight.delivery.attempt, flight.ref))

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        if self._flights is not None:
            self._flights.pop(flight.delivery.number, None)
        self._answer(flight, failure)
        self._next()
        if not self.busy:
            self._host.settled(self)

    def _answer(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        """The last frame for a message: its ack or its error."""
        if self._session is None:
            if failure is not None:
                self._send(orjson.dumps({"type": "error", "error": failure}))
            return
        assert flight.ref is not None
        self._session.unacknowledged.discard(flight.ref)
        if failure is None:
            self._send(frames.ack(flight.ref, flight.trace))
        else:
            self._send(frames.error(failure, flight.ref))

    def direct(self, sender: str, data_type: DataType, data: bytes) -> bool:
        """A peer's message; False if this client is gone."""
        if self.gone:
            return False
        if self._session is None:
            self._write(websocket_frame(data_type is not DataType.BINARY, data), None)
        else:
            self._send(frames.message(data_type, data, sender=sender))
        return True

    # Out

    def _send(self, frame: bytes) -> None:
        self._write(websocket_frame(True, frame), None)

    def _write(self, data: bytes, flight: Flight | None) -> None:
        """Send with all else that this turn of the loop has for the client."""
        if self.gone:
            return
        if self._outgoing is None:
            self._outgoing = deque()
        self._outgoing.append((data, flight))
        self._outgoing_bytes += len(data)
        if not self._scheduled:
            self._scheduled = True
            self._host.write_soon(self)

    def room_bytes(self, data: bytes) -> bool:
        protocol = self._protocol
        if not self._outgoing and not protocol.clogged:
            if protocol.open:
                protocol.write(data)
            return False
        self._write(data, None)
        return True

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it. Over budget ends the connection."""
        self._scheduled = False
        protocol = self._protocol
        if self.gone or not self._outgoing:
            return
        while self._outgoing and not protocol.clogged:
            batch: list[bytes] = []
            size = 0
            while self._outgoing and (not batch or size + len(self._outgoing[0][0]) <= HIGH_WATER):
                data, flight = self._outgoing.popleft()
                batch.append(data)
                size += len(data)
                if flight is not None:
                    self._host.relay.credit(flight, len(data))
            self._outgoing_bytes -= size
            protocol.write(batch[0] if len(batch) == 1 else b"".join(batch))
        if not self._outgoing:
            self._outgoing = None
        elif self._outgoing_bytes > BUDGET:
            self._host.slow_consumers += 1
            log.warning("a slow consumer is closed", extra={"connection": self.id})
            self.close(Close.SLOW_CONSUMER, "reads too slowly; reconnect and resume")

    def writable(self) -> None:
        """The transport takes more."""
        self.flush()

    # The end

    def close(self, code: Close, reason: str) -> None:
        """Close from our side; what was answered before goes out before."""
        if code != Close.SLOW_CONSUMER and self._outgoing and not self._protocol.clogged:
            self.flush()
        self._protocol.close(code, reason)

    def stop_taking(self) -> None:
        """A drain begins: what is in hand is finished, what comes is left to the next edge."""
        self._leaving = True

    def announce_drain(self, within: int) -> None:
        """Tell a v1 client when to come back, in ms."""
        if self._session is not None:
            self._send(frames.reconnect(within))

    def closed(self) -> None:
        """The client is gone, or we closed. What it sent is executed all the same."""
        self.gone = True
        outgoing, self._outgoing = self._outgoing, None
        for data, flight in outgoing or ():
            if flight is not None:
                # Or its run would wait for a reader for ever, instead of being cancelled.
                self._host.relay.credit(flight, len(data))
        self._host.hub.leave(self._settled.room, self)
        self._host.left(self)
