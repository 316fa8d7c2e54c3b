"""A client on a WebSocket, raw or `fairlead.v1`: what comes in, and what goes out.

::

    frame_received ──▶ Scope ──▶ Relay ──▶ … a worker … ──▶ item, answer
    room_bytes, item ──▶ outgoing ──end of the turn──▶ one write, at most 64 KiB in the transport
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from fairlead import logs
from fairlead.protocol import frames
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.frames import Cancel
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, NO_WORKER, Close, problem
from fairlead.telemetry import parent_of
from fairlead_edge.admission import Refused, Settled
from fairlead_edge.asgi import AsgiProtocol
from fairlead_edge.attach import cancel_anywhere
from fairlead_edge.buffers import PER_CLIENT
from fairlead_edge.flight import Flight
from fairlead_edge.host import Host
from fairlead_edge.outgoing import Batch, Outgoing
from fairlead_edge.replay import Replay
from fairlead_edge.room import RAW, V1, Room, websocket_frame
from fairlead_edge.scopes import ConnectionScope, MessageScope, Scope
from fairlead_edge.session import Session, Violation
from fairlead_edge.shared_runs import TopicScope
from fairlead_edge.spans import Connected
from fairlead_edge.watched import Waiting, Watch
from fairlead_edge.ws import HIGH_WATER, EdgeWebSocketProtocol

log = logs.get("fairlead.edge")
_slow = logs.Seldom(log.warning, "a slow consumer is closed")

Protocol = EdgeWebSocketProtocol | AsgiProtocol
"""What a connection reads and writes through."""

CANCELLING = 32
"""Cancels of runs elsewhere that one connection may have under way."""

RAW_WAITING = 64 * 1024
"""Bytes of a raw client's messages that may wait; with more its socket is not read."""


class CameBack(NamedTuple):
    """Whether a client was here before.

    Attributes:
        recovered: None if it sent no cursor; else whether it gets what it missed.
        replay: what it missed; cursor: where it was.
    """

    recovered: bool | None = None
    replay: Replay | None = None
    cursor: str | None = None


class Connection:
    """One client. Implements `room.Member` and `host.Client`.

    Attributes:
        id: `<edge>-…`; other clients see it as `from`, if no policy finds who it is.
        scope: where its messages go.
        connected: what its messages link to; None where the handshake was not sampled.
    """

    __slots__ = (
        "_came_back", "_cancelling", "_drained", "_farewell", "_leaving", "_outgoing", "_protocol", "_returning",
        "_room", "_scheduled", "_session", "connected", "gone", "host", "id", "scope", "settled",
    )  # fmt: skip

    def __init__(
        self, host: Host, protocol: Protocol, id: str, settled: Settled, room: Room,
        v1: bool, came_back: CameBack,
    ) -> None:  # fmt: skip
        self.id = id
        self.gone = False
        self.host = host
        self.settled = settled
        self._protocol = protocol
        self._room = room
        self._session = Session() if v1 else None
        self._cancelling = 0
        # Most connections are idle: what they need only when busy is made then.
        self._outgoing: Outgoing[Flight] | None = None
        # Until the 101 is out nothing is written, as if a write were coming.
        self._scheduled = True
        self._leaving = False
        self._farewell: tuple[Close, str] | None = None
        self._came_back: CameBack | None = came_back
        self._returning: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.connected: Connected | None = None
        self.scope: Scope = _SCOPES[settled.route.run](self)

    @property
    def dialect(self) -> str:
        return RAW if self._session is None else V1

    @property
    def route(self) -> Route:
        return self.settled.route

    @property
    def topic(self) -> str:
        return self._room.topic

    @property
    def who(self) -> str:
        return self.settled.who

    @property
    def busy(self) -> bool:
        """Whether messages of this client are not done."""
        return self.scope.busy

    def enter(self) -> None:
        """Be a member of the room, just before the 101 goes out; what is said waits until then.

        Who has missed something becomes a member when it has got that.
        """
        assert self._came_back is not None
        recovered, replay, cursor = self._came_back
        if replay is None:
            self.host.hub.join(self._room, self)
        self.host.entered(self)
        if self._session is not None:
            at = self._room.cursor if replay is None else cursor
            self._send(frames.welcome(self.id, at, recovered, frames.WINDOW))

    def opened(self) -> None:
        """The 101 is out, and the socket handed over: write what waits."""
        came_back, self._came_back = self._came_back, None
        self.flush()
        leaving = self.gone or self._farewell is not None
        if came_back is not None and came_back.replay is not None and not leaving:
            self._returning = asyncio.ensure_future(came_back.replay.run(self))

    async def drained(self) -> None:
        """Wait until what was said is with the transport, or the client is gone."""
        while self._outgoing and not self.gone:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

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
            self._cancel(frame)
        else:
            self._take(frame.type, frame.data, frame.id, frame.traceparent, frame.ref)

    def _take(
        self, kind: DataType, data: bytes, id: str = "", trace: str = "", ref: int | None = None
    ) -> None:
        """Give a message to the scope, with the span that begins here."""
        host, settled, connected = self.host, self.settled, self.connected
        tally = host.tally.workflows[settled.route.label]
        tally.received += 1
        tally.received_bytes += len(data)
        if connected is not None:
            connected.received += 1
        hop = None
        if host.spans is not None:
            parent_span = parent_of(trace)
            hop = host.spans.receive(settled.route, self.id, parent_span, len(data), id, connected)
        parent = "" if hop is None else str(hop.parent)
        work = Work(Kind.MESSAGE, kind, data, host.now(), parent, id, settled.context)
        self.scope.take(work, ref, hop)
        if self._session is None and self.scope.waiting_bytes > RAW_WAITING:
            self._protocol.pause_reading()

    def took(self) -> None:
        """The scope has fewer messages waiting: read on."""
        protocol = self._protocol
        if protocol.read_paused and self.scope.waiting_bytes <= RAW_WAITING // 2 and not self.gone:
            protocol.resume_reading()

    def _cancel(self, frame: Cancel) -> None:
        assert self._session is not None
        if frame.run is not None:
            if self.scope.cancel_run(frame.run):
                return
            if self._cancelling >= CANCELLING:
                detail = f"{CANCELLING} cancels of this connection wait for an answer; try again"
                self._send(frames.error(problem(429, detail)))
                return
            self._cancelling += 1
            self.host.chore(self._cancel_elsewhere(frame.run, frame.key))
        elif frame.ref in self._session.unacknowledged:  # else the answers have crossed
            self.scope.cancel(frame.ref)

    async def _cancel_elsewhere(self, run: str, key: str) -> None:
        try:
            await cancel_anywhere(self.host, self.settled.context, run, key)
        except Refused as refused:
            self._send(frames.error(problem(refused.status, refused.detail)))
        finally:
            self._cancelling -= 1

    # What the scope tells

    def item(self, flight: Flight, data_type: DataType, data: bytes) -> None:
        """One thing that `execute` said to this client."""
        if self._session is None:
            self._write(websocket_frame(data_type is not DataType.BINARY, data), flight)
            return
        body = frames.message(
            data_type, data, ref=flight.ref, run=flight.run_id, trace=flight.trace
        )
        self._write(websocket_frame(True, body), flight)

    def waiting(self, ref: int | None) -> None:
        """No worker takes this message yet."""
        if self._session is not None and ref is not None:
            self._send(frames.waiting(ref))

    def restarted(self, flight: Flight) -> None:
        """What came of it before is to be forgotten."""
        if self._session is not None:
            self._send(frames.restart(flight.run_id, flight.delivery.attempt, flight.ref))

    def answer(self, ref: int | None, failure: dict[str, Any] | None, trace: str) -> None:
        """The last frame for a message: its ack or its error."""
        if self._session is None:
            if failure is not None:
                self._send(orjson.dumps({"type": "error", "error": failure}))
            return
        assert ref is not None
        self._session.unacknowledged.discard(ref)
        if failure is None:
            self._send(frames.ack(ref, trace))
        else:
            self._send(frames.error(failure, ref))

    def run_ended(self, run: str, failure: dict[str, Any] | None) -> None:
        """The run of this connection is over, and so is the connection."""
        cancelled = failure is not None and failure.get("status") == CANCELLED
        if failure is None or cancelled:
            if self._session is not None:
                self._send(frames.end(run))
            self._part(Close.ENDED, "the run was cancelled" if cancelled else "the run ended")
            return
        if self._session is None:
            self._send(orjson.dumps({"type": "error", "error": failure}))
        else:
            self._send(frames.error(failure))
        if failure.get("status") == NO_WORKER:
            self._part(Close.OVERLOADED, "no worker; reconnect later")
        else:
            self._part(Close.INTERNAL, f"the run failed; trace {failure.get('trace', 'unknown')}")

    def direct(
        self, sender: str, data_type: DataType, data: bytes, trace: str = "",
        watch: Watch | None = None,
    ) -> bool:  # fmt: skip
        """A peer's message; False if this client is gone."""
        if self.gone:
            return False
        if self._session is None:
            frame = websocket_frame(data_type is not DataType.BINARY, data)
        else:
            body = frames.message(data_type, data, sender=sender, trace=trace)
            frame = websocket_frame(True, body)
        waiting = None
        if watch is not None:
            slow = self._protocol.clogged
            watch.given(len(frame), slow)
            waiting = Waiting.of([watch], slow)
        self._write(frame, waiting)
        return True

    # Out

    def _send(self, frame: bytes) -> None:
        self._write(websocket_frame(True, frame), None)

    def _write(self, data: bytes, told: Flight | Waiting | Batch | None) -> None:
        """Send with all else that this turn of the loop has for the client."""
        if self.gone:
            return
        if self._outgoing is None:
            self._outgoing = Outgoing(None if self._session is None else _gap)
        if isinstance(told, Batch):
            if self._came_back is not None and self._farewell is not None:
                return  # it is closed as soon as it can be
            clogged = self._protocol.clogged
            if told.watches:
                told = told.queued(clogged)
            if clogged and self.route.overflow == "latest":
                self.host.tally.superseded += self._outgoing.put_newest(told)
            else:
                self._outgoing.put(data, told)
        else:
            self._outgoing.put(data, told)
        if not self._scheduled:
            self._scheduled = True
            self.host.write_soon(self)
        elif self._came_back is not None:
            self._bound()

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        protocol = self._protocol
        if not self._scheduled and not protocol.clogged:
            if protocol.open:
                protocol.write(data)
            return False
        self._write(data, batch)
        return protocol.clogged

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it; over budget, `overflow` decides."""
        self._scheduled = False
        protocol, outgoing = self._protocol, self._outgoing
        if self.gone:
            return
        while outgoing and not protocol.clogged:
            taken = outgoing.take(HIGH_WATER)
            for data, told in taken:
                if isinstance(told, Waiting):
                    told.wrote()
                elif told is not None:
                    self.host.relay.credit(told, len(data))
            protocol.write(taken[0][0] if len(taken) == 1 else b"".join(d for d, _ in taken))
        if outgoing:
            self._bound()
            return
        self._outgoing = None
        self.host.buffers.waits(self, 0)
        self._tell_drained()
        if self._farewell is not None:
            self.close(*self._farewell)

    def _bound(self) -> None:
        """Count what waits, and have no more than the budget of it."""
        outgoing = self._outgoing
        assert outgoing is not None
        self.host.buffers.waits(self, outgoing.size)
        # One piece is let through in any case: a message may be as large as the budget.
        if outgoing.size - outgoing.newest > PER_CLIENT:
            self._shorten(PER_CLIENT * 3 // 4)

    def _shorten(self, limit: int) -> None:
        """Drop messages of the room until so many bytes are left; close if that is not enough."""
        outgoing = self._outgoing
        assert outgoing is not None
        if self.route.overflow != "disconnect":
            self.host.tally.dropped += outgoing.drop_oldest(limit)
            self.host.buffers.waits(self, outgoing.size)
            if outgoing.size - outgoing.newest <= PER_CLIENT:
                return
        self._give_up()

    def relieve(self) -> None:
        """All slow clients together have too much waiting, and this one the most of it."""
        if self.gone or self._outgoing is None:
            return
        before = self._outgoing.size
        if self.route.overflow != "disconnect":
            self._shorten(0)
        if self._outgoing is not None and self._outgoing.size > before // 2:
            self._give_up()

    def _give_up(self) -> None:
        if self._came_back is not None and self._farewell is not None:
            return  # it is done once there is a socket
        self.host.tally.slow_closed[self.route.overflow] += 1
        _slow(connection=self.id, workflow=self.route.label)
        self.close(Close.SLOW_CONSUMER, "reads too slowly; reconnect and resume")

    def writable(self) -> None:
        """The transport takes more."""
        self.flush()

    # The end

    def close(self, code: Close, reason: str) -> None:
        """Close from our side; what was answered before goes out before. Until the 101 it waits for that."""
        if self._came_back is not None:
            self._farewell = self._farewell or (code, reason)
            return
        if code != Close.SLOW_CONSUMER and self._outgoing and not self._protocol.clogged:
            self.flush()
        self._protocol.close(code, reason)

    def _part(self, code: Close, reason: str) -> None:
        """Close when the client has read what its run said."""
        self._farewell = code, reason
        if not self._outgoing:
            self.close(code, reason)

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
        for data, told in outgoing.take(outgoing.size) if outgoing is not None else ():
            if isinstance(told, Waiting):
                told.lost()
            elif told is not None:
                # Or its run would wait for a reader for ever, instead of being cancelled.
                self.host.relay.credit(told, len(data))
        self.host.buffers.waits(self, 0)
        self._tell_drained()
        if self._returning is not None:
            self._returning.cancel()
        self.host.hub.leave(self._room, self)
        self.host.left(self)
        self.scope.closed()
        if self.connected is not None and self.host.spans is not None:
            self.host.spans.close(self, self.connected, self._protocol.close_code)


def _gap(at: str | None) -> bytes:
    return websocket_frame(True, frames.gap(at))


_SCOPES: dict[str, Callable[[Connection], Scope]] = {
    "message": MessageScope,
    "connection": ConnectionScope,
    "topic": TopicScope,
}
