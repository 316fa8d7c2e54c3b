"""A client on a stream of server-sent events: its run's output, its room's messages, or both.

The same shape as `connection.py`: what comes back from the relay or the room waits in
`_outgoing`, and leaves with the next write. Here the write is a task of its own, since
HTTP is uvicorn's and Starlette's; a stream costs more than a WebSocket and has no input.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import orjson

from fairlead import logs
from fairlead.protocol import cursor, envelope
from fairlead.protocol.delivery import LOST_AFTER
from fairlead.protocol.envelope import Answer, DataType, Kind, Wish, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, Close
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop
from fairlead_edge.admission import RUN, admitted
from fairlead_edge.buffers import PER_CLIENT
from fairlead_edge.flight import Flight, Owner
from fairlead_edge.gathering import Gathering
from fairlead_edge.host import Host
from fairlead_edge.outgoing import Batch
from fairlead_edge.replay import Replay, Returning
from fairlead_edge.room import SSE_JSON, SSE_TEXT, Room, RoomMessage, encode_cursor, sse_item
from fairlead_edge.spans import Connected
from fairlead_edge.watched import Waiting, Watch

log = logs.get("fairlead.edge")
_slow = logs.Seldom(log.warning, "a slow consumer is cut off")

PING_EVERY = 15.0
"""Seconds of silence after which a comment is sent."""

PING = b": ping\n\n"

HIGH_WATER = 64 * 1024
"""Bytes from which on what waits for a client is counted among what the edge holds."""

RETRY = 1000
"""Milliseconds after which an EventSource comes back that we close for a reason of its own."""


def named_event(name: str, data: Any, id: str | None = None) -> bytes:
    """`event: NAME`, an id if there is one, and JSON data."""
    return sse_item(DataType.JSON, orjson.dumps(data), text=False, id=id, event=name)


def event_item(
    meta: dict[str, Any], data_type: DataType, data: bytes, text: bool, id: str | None = None
) -> bytes:
    """An item with fields of its own; one with just a comment is only that."""
    head = b""
    if "comment" in meta:
        head += b": %b\n" % str(meta["comment"]).encode()
    if "retry" in meta:
        head += b"retry: %d\n" % meta["retry"]
    if meta.get("empty"):
        return head + b"\n"
    return head + sse_item(data_type, data, text=text, id=id, event=str(meta.get("event", "")))


Piece = tuple[bytes, Flight | Waiting | int | None]
"""Bytes, and who is told that they are written: a run here, the viewer of a log's entry, a room."""


class Shown(Protocol):
    """A run that began without this stream, or outlives it."""

    def enter(self) -> None:
        """The stream is there."""
        ...

    def left(self) -> None:
        """It is not any more."""
        ...

    def wrote(self, sequence: int, size: int) -> None:
        """Some of what the stream was given is written."""
        ...


class Stream(Owner):
    """One client. Implements `room.Member` and `host.Client`.

    Attributes:
        id: `<edge>-…`, as that of a WebSocket.
        head: done when the head may be sent: None, or the problem to answer instead.
        cut: done when its client reads so slowly that it is given up.
        run, key: id and token of its run, or "" without one.
        who: its subject's id, or "".
        connected: what its end links to; None where its request was not sampled.
    """

    def __init__(self, host: Host, route: Route, rooms: Sequence[Room] = ()) -> None:
        self.id = host.new_id()
        self.route = route
        self.head: asyncio.Future[dict[str, Any] | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run = ""
        self.key = ""
        self.who = ""
        self.connected: Connected | None = None
        self._host = host
        self._rooms = rooms
        # One room speaks to the stream itself, in bytes that all its members share.
        self._gathering = Gathering(self, rooms) if len(rooms) > 1 else None
        self._flight: Flight | None = None
        self._viewer: Shown | None = None
        self._copied_until = 0.0  # loop time
        self._outgoing: deque[Piece] = deque()
        self._waiting = 0  # bytes, until they are with the transport
        self._room_waiting = 0
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._writing_out: Sequence[Piece] = ()
        self._returning: list[asyncio.Task[None]] = []
        self._members: list[tuple[Room, Returning]] = []
        self._ended = False
        self._gone = False
        self._failure: int | None = None
        self._announced = False
        self._text = route.format == "text"

    @property
    def dialect(self) -> str:
        return SSE_TEXT if self._text else SSE_JSON

    @property
    def topic(self) -> str:
        return self._rooms[0].topic if self._rooms else ""

    @property
    def busy(self) -> bool:
        return False  # a drain does not wait for streams: it ends them

    @property
    def gone(self) -> bool:
        return self._gone or self._ended

    def start(
        self, subject: str, body: bytes, context: bytes, trace: Traceparent, hop: Hop | None,
        replays: Sequence[Replay | None] = (),
    ) -> None:  # fmt: skip
        """Be a member of the rooms, and ask for a run if the workflow has a function.

        Args:
            replays: what the client missed in each room; it is a member when it has that.
        """
        self._host.entered(self)
        self._enter(replays or [None] * len(self._rooms))
        if not self.route.executes:
            self.head.set_result(None)
            return
        work = Work(Kind.OPEN, DataType.BINARY, body, self._host.now(), str(trace), "", context)
        self._flight = Flight(self, self.route, RUN, subject, work, hop=hop)
        self.run = self._flight.run_id
        self.key = secrets.token_urlsafe(16)
        self._host.relay.submit(self._flight)

    def _enter(self, replays: Sequence[Replay | None]) -> None:
        members: Sequence[Returning] = [self]
        if self._gathering is not None:
            members = self._gathering.begin(
                [replay.after if replay else None for replay in replays]
            )
        for room, member, replay in zip(self._rooms, members, replays, strict=False):
            self._members.append((room, member))
            if replay is not None:
                self._returning.append(asyncio.ensure_future(replay.run(member)))
            else:
                self._host.hub.join(room, member)
        if self._rooms and not self.route.executes and not any(replays):
            self.say_cursor()

    def show(self, viewer: Shown) -> None:
        """Show a run that has begun, or has ended."""
        self._host.entered(self)
        self._viewer = viewer
        viewer.enter()
        self.head.set_result(None)

    async def known(self) -> None:
        """Wait until its peers can speak to it."""
        await self._host.peers.known(self)

    def answered(self) -> None:
        """The head is out."""
        self._host.tally.handshakes["sse", 200, "accepted"] += 1

    def say_cursor(self) -> None:
        """Tell where the rooms stand: who comes back before the first message has missed nothing."""
        gathering = self._gathering
        at = self._rooms[0].cursor if gathering is None else gathering.cursor
        if at is not None:
            self._write(encode_cursor(at, self.dialect), None)

    def gathered(self, message: RoomMessage, id: str | None) -> bool:
        """Show a message of one of several rooms."""
        encoded = sse_item(message.type, message.data, text=self._text, id=id)
        if message.watch is None:
            return self.room_bytes(encoded)
        batch = Batch.of([encoded], [id], [message.watch])
        slow = self.room_bytes(encoded, batch)
        batch.given([encoded], slow)
        return slow

    # What the relay tells

    def accepted(self, flight: Flight, who: str, subject: Any) -> None:
        if not self.head.done():
            self.who = who
            flight.hop = None  # that of the request: it is answered, though its run just begins
            flight.work.kind = Kind.REOPEN
            flight.work.context = admitted(flight.work.context, subject)
            self.head.set_result(None)

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        if meta is None:
            self._copy(envelope.item(Answer.ITEM, data_type, data))
        else:
            self._copy(envelope.event(meta, data_type, data))
        if self._gone:
            self._host.relay.credit(flight, len(data))  # on_disconnect="continue": nobody slows it
            return
        if meta is None:
            encoded = sse_item(data_type, data, text=self._text)
        else:
            encoded = event_item(meta, data_type, data, self._text)
        self._write(encoded, flight)

    def wanted(self, flight: Flight, key: str, who: str, wish: Wish) -> bool:
        mine = bool(who) and who == self.who
        if not (secrets.compare_digest(key.encode(), self.key.encode()) if key else mine):
            return False
        if wish is Wish.CANCEL:
            self._host.relay.cancel(flight)
        else:
            self._copied_until = asyncio.get_running_loop().time() + LOST_AFTER
        return True

    def _copy(self, answer: bytes) -> None:
        """Pass on what the run says to those who read it elsewhere."""
        if self._copied_until and asyncio.get_running_loop().time() < self._copied_until:
            bus = self._host.bus
            bus.publish(bus.subjects.run_live(self.run), answer)

    def worker_lost(self, flight: Flight) -> bool:
        return not self.head.done() or self.route.on_worker_lost == "restart"

    def restarted(self, flight: Flight) -> None:
        attempt = flight.delivery.attempt
        self._write(named_event("restart", {"run": self.run, "attempt": attempt}), None)

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        self._flight = None
        if not self.head.done():
            self.head.set_result(failure)
            if failure is not None:
                return
        if failure is not None and failure.get("status") == CANCELLED:
            failure = None  # somebody wanted it to end
        self._copy(bytes([Answer.DONE]) if failure is None else envelope.error(failure))
        if failure is None and self._rooms:
            return  # its run has ended, its membership has not
        self.show_end(failure)

    # What the viewer of a run's log tells

    def show_item(
        self, data_type: DataType, data: bytes, meta: dict[str, Any] | None, id: str | None,
        sequence: int,
    ) -> int:  # fmt: skip
        """Send an item of a shown run; returns how many bytes it is."""
        if meta is None:
            encoded = sse_item(data_type, data, text=self._text, id=id)
        else:
            encoded = event_item(meta, data_type, data, self._text, id)
        self._write(encoded, sequence)
        tally = self._host.tally.of(self.route)
        tally.sent += 1
        tally.sent_bytes += len(data)
        return len(encoded)

    def show_event(self, name: str, data: Any, id: str) -> None:
        """Send an event of ours, in a log's order."""
        self._write(named_event(name, data, id), None)

    def show_end(self, failure: dict[str, Any] | None) -> None:
        """The run is over."""
        if failure is not None:
            self._failure = int(failure["status"])
            self._write(named_event("error", failure), None)
        # The id tells a later request that this ended; without data some clients forget it.
        end = cursor.encode(cursor.End(self.run), self.route.endpoint)
        self._write(named_event("end", {}, end), None)
        self._end()

    # What the room and its peers tell

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        slow = self._waiting > HIGH_WATER
        waiting = Waiting.of(batch.watches, slow) if batch and batch.watches else None
        # One batch is let through in any case, and whatever comes while nothing holds the writer up.
        if self._writing_out and self._room_waiting > PER_CLIENT:
            self.give_up()
        self._room_waiting += len(data)
        if self.cut.done():
            if waiting is not None:
                waiting.lost()
            return True
        self._write(data, waiting)
        return slow

    def give_up(self) -> None:
        """The client reads so slowly that it is cut off."""
        if not self.cut.done():
            self._host.tally.slow_closed[self.route.overflow] += 1
            self._failure = Close.SLOW_CONSUMER
            _slow(connection=self.id, workflow=self.route.label)
            self.cut.set_result(None)

    def relieve(self) -> None:
        """All slow clients together have too much waiting, and this one the most of it."""
        self.give_up()

    def direct(
        self, sender: str, data_type: DataType, data: bytes, trace: str = "",
        watch: Watch | None = None,
    ) -> bool:  # fmt: skip
        if self._gone or self._ended:
            return False
        encoded, waiting = sse_item(data_type, data, text=self._text), None
        if watch is not None:
            slow = self._waiting > HIGH_WATER
            watch.given(len(encoded), slow)
            waiting = Waiting.of([watch], slow)
        self._write(encoded, waiting)
        return True

    # Out

    def say(self, event: bytes) -> None:
        """Send an event of ours."""
        self._write(event, None)

    def _write(self, data: bytes, told: Flight | Waiting | int | None) -> None:
        if not self._ended and not self._gone:
            self._waiting += len(data)
            if self._waiting > HIGH_WATER:
                self._host.buffers.waits(self, self._waiting)
            self._outgoing.append((data, told))
            self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()

    async def drained(self) -> None:
        """Wait until what was said is written, or the client is gone."""
        while self._outgoing and not self.gone:
            self._drained.clear()
            await self._drained.wait()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body: all that came in one turn of the loop at once, a comment after 15 s of silence.

        Asking for the next chunk means that the one before was written.
        """
        while True:
            if not self._outgoing and not self._ended:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING_EVERY):
                        await self._news.wait()
                if not self._outgoing and not self._ended:
                    yield PING
                    continue
            items, self._outgoing = self._outgoing, deque()
            if items:
                self._room_waiting = 0
                size, whole = self._waiting, b"".join(data for data, _ in items)
                self._writing_out = items
                yield whole
                self._writing_out = ()
                self._waiting -= size
                if size > HIGH_WATER or self._host.buffers.waiting(self):
                    self._host.buffers.waits(
                        self, self._waiting if self._waiting > HIGH_WATER else 0
                    )
                self._drained.set()
                for data, told in items:
                    if isinstance(told, int):
                        assert self._viewer is not None
                        self._viewer.wrote(told, len(data))
                    elif isinstance(told, Waiting):
                        told.wrote()
                    elif told is not None and told is self._flight:
                        self._host.relay.credit(told, len(data))
            elif self._ended:
                return

    # The end

    def flush(self) -> None:
        pass  # `chunks` is the one who writes

    def stop_taking(self) -> None:
        pass  # a stream takes nothing

    def announce_drain(self, within: int) -> None:
        self._announced = True
        self._write(b"retry: %d\n\n" % within, None)

    def close(self, code: Close, reason: str) -> None:
        """End the stream from our side; the client's EventSource comes back."""
        if not self._announced:  # an EventSource keeps to the last one
            self._write(b"retry: %d\n\n" % RETRY, None)
        self._end()

    def closed(self) -> None:
        """The response is over, whoever ended it. Call exactly once, after `start`."""
        self._gone = True
        self._drained.set()
        self._host.buffers.waits(self, 0)
        for returning in self._returning:
            returning.cancel()
        for room, member in self._members:
            self._host.hub.leave(room, member)
        if self._viewer is not None:
            self._viewer.left()
        flight, goes_on = self._flight, self.route.on_disconnect != "cancel"
        for data, told in (*self._writing_out, *self._outgoing):
            if isinstance(told, Waiting):
                told.lost()
            elif isinstance(told, Flight) and told is flight and goes_on:
                self._host.relay.credit(told, len(data))
        if flight is not None and not goes_on:
            self._host.relay.cancel(flight)
        self._host.left(self)
        if self.connected is not None and self._host.spans is not None:
            self._host.spans.end(self, self.connected, self._failure)
