"""A client on a stream of server-sent events: its run's output, its room's messages, or both.

The same shape as `connection.py`: what comes back from the relay or the room waits in
`_outgoing`, and leaves with the next write. Here the write is a task of its own, since
HTTP is uvicorn's and Starlette's; a stream costs more than a WebSocket and has no input.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from fairlead.protocol import cursor
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import Close
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop
from fairlead_edge.admission import admitted
from fairlead_edge.gathering import Gathering
from fairlead_edge.host import Host
from fairlead_edge.relay import Flight, Owner
from fairlead_edge.replay import Replay, Returning
from fairlead_edge.room import SSE_JSON, SSE_TEXT, Room, RoomMessage, encode_cursor, sse_item

PING_EVERY = 15.0
"""Seconds of silence after which a comment is sent."""

PING = b": ping\n\n"

BUDGET = 1024 * 1024
"""Bytes of a room's messages that may wait for a client that does not read."""

RETRY = 1000
"""Milliseconds after which an EventSource comes back, when the edge is drained."""


def named_event(name: str, data: Any, id: str | None = None) -> bytes:
    """`event: NAME`, an id if there is one, and JSON data."""
    return sse_item(DataType.JSON, orjson.dumps(data), text=False, id=id, event=name)


def event_item(meta: dict[str, Any], data_type: DataType, data: bytes, text: bool) -> bytes:
    """An item with fields of its own; one with just a comment is only that."""
    head = b""
    if "comment" in meta:
        head += b": %b\n" % str(meta["comment"]).encode()
    if "retry" in meta:
        head += b"retry: %d\n" % meta["retry"]
    if meta.get("empty"):
        return head + b"\n"
    return head + sse_item(data_type, data, text=text, event=str(meta.get("event", "")))


class Stream(Owner):
    """One client. Implements `room.Member` and `host.Client`.

    Attributes:
        id: `<edge>-…`, as that of a WebSocket.
        head: done when the head may be sent: None, or the problem to answer instead.
        cut: done when its client reads so slowly that it is given up.
        run: id of its run, or "" without one.
        who: its subject's id, or "".
    """

    def __init__(self, host: Host, route: Route, rooms: Sequence[Room] = ()) -> None:
        self.id = host.new_id()
        self.route = route
        self.head: asyncio.Future[dict[str, Any] | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run = ""
        self.who = ""
        self._host = host
        self._rooms = rooms
        # One room speaks to the stream itself, in bytes that all its members share.
        self._gathering = Gathering(self, rooms) if len(rooms) > 1 else None
        self._flight: Flight | None = None
        self._outgoing: deque[tuple[bytes, Flight | None]] = deque()
        self._room_waiting = 0
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._returning: list[asyncio.Task[None]] = []
        self._members: list[tuple[Room, Returning]] = []
        self._ended = False
        self._gone = False
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
            self._host.peers.known(self)
            self.head.set_result(None)
            return
        work = Work(Kind.OPEN, DataType.BINARY, body, self._host.now(), str(trace), "", context)
        self._flight = Flight(self, self.route, 1, subject, work, hop=hop)
        self.run = self._flight.run_id
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

    def say_cursor(self) -> None:
        """Tell where the rooms stand: who comes back before the first message has missed nothing."""
        gathering = self._gathering
        at = self._rooms[0].cursor if gathering is None else gathering.cursor
        if at is not None:
            self._write(encode_cursor(at, self.dialect), None)

    def gathered(self, message: RoomMessage, id: str | None) -> bool:
        """Show a message of one of several rooms."""
        return self.room_bytes(sse_item(message.type, message.data, text=self._text, id=id))

    # What the relay tells

    def accepted(self, flight: Flight, who: str, subject: Any) -> None:
        if not self.head.done():
            self.who = who
            self._host.peers.known(self)
            flight.work.kind = Kind.REOPEN
            flight.work.context = admitted(flight.work.context, subject)
            self.head.set_result(None)

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        if self._gone:
            self._host.relay.credit(flight, len(data))  # on_disconnect="continue": nobody slows it
            return
        if meta is None:
            encoded = sse_item(data_type, data, text=self._text)
        else:
            encoded = event_item(meta, data_type, data, self._text)
        self._write(encoded, flight)

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
        if failure is not None:
            self._write(named_event("error", failure), None)
        elif self._rooms:
            return  # its run has ended, its membership has not
        # The id tells a later request that this ended; without data some clients forget it.
        end = cursor.encode(cursor.End(self.run), self.route.endpoint)
        self._write(named_event("end", {}, end), None)
        self._end()

    # What the room and its peers tell

    def room_bytes(self, data: bytes) -> bool:
        if self.cut.done():
            return True
        self._room_waiting += len(data)
        if self._room_waiting > BUDGET:
            self._host.slow_consumers += 1
            self.cut.set_result(None)
            return True
        self._write(data, None)
        return False

    def direct(self, sender: str, data_type: DataType, data: bytes) -> bool:
        if self._gone or self._ended:
            return False
        self._write(sse_item(data_type, data, text=self._text), None)
        return True

    # Out

    def say(self, event: bytes) -> None:
        """Send an event of ours."""
        self._write(event, None)

    def _write(self, data: bytes, flight: Flight | None) -> None:
        if not self._ended and not self._gone:
            self._outgoing.append((data, flight))
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
                yield b"".join(data for data, _ in items)
                self._drained.set()
                for data, flight in items:
                    if flight is not None and flight is self._flight:
                        self._host.relay.credit(flight, len(data))
            elif self._ended:
                return

    # The end

    def flush(self) -> None:
        pass  # `chunks` is the one who writes

    def stop_taking(self) -> None:
        pass  # a stream takes nothing

    def announce_drain(self, within: int) -> None:
        self._write(b"retry: %d\n\n" % within, None)

    def close(self, code: Close, reason: str) -> None:
        """End the stream from our side; the client's EventSource comes back."""
        self._write(b"retry: %d\n\n" % RETRY, None)
        self._end()

    def closed(self) -> None:
        """The response is over, whoever ended it. Call exactly once, after `start`."""
        self._gone = True
        self._drained.set()
        for returning in self._returning:
            returning.cancel()
        for room, member in self._members:
            self._host.hub.leave(room, member)
        if self._flight is not None:
            if self.route.on_disconnect == "cancel":
                self._host.relay.cancel(self._flight)
            else:
                for data, flight in self._outgoing:
                    if flight is not None:
                        self._host.relay.credit(flight, len(data))
        self._host.left(self)
