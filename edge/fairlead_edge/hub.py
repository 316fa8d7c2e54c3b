"""Rooms and NATS: which rooms this edge listens to, and from where on.

::

    join ──▶ SUB, then ask the stream where it stands ──▶ member
    NATS ──▶ Room.received ──▶ (end of the turn) ──▶ Room.flush ──▶ members' sockets
"""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass, field

from fairlead.bus import Bus, Interest, StreamState, parse_headers
from fairlead.protocol.cursor import Position
from fairlead.protocol.manifest import History
from fairlead.telemetry import Hop, Tracing, parent_of
from fairlead_edge.room import Member, Room

log = logging.getLogger("fairlead.edge")

LINGER = 2.0
"""Seconds for which an empty room is listened to: those who reload come back at once."""


@dataclass(slots=True, eq=False)
class _Open:
    """A room that is listened to.

    Attributes:
        holders: members, and those who are about to be.
        asked: loop time at which its position was last asked for.
        ready: done when the room may be joined.
    """

    room: Room
    interest: Interest
    history: History | None
    ready: asyncio.Task[None] | None = None
    holders: int = 0
    asked: float = 0.0
    lingering: asyncio.TimerHandle | None = None
    hops: list[Hop] = field(default_factory=list)


class Hub:
    """The rooms of one edge."""

    def __init__(self, bus: Bus, tracing: Tracing | None) -> None:
        self._bus = bus
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, _Open] = {}
        self._dirty: list[_Open] = []
        self._asking: dict[str, _Question] = {}

    @property
    def rooms(self) -> int:
        return len(self._rooms)

    # Joining and leaving

    async def open(self, template: str, topic: str, channel: str, history: History | None) -> Room:
        """Listen to a room; give it back with `close`, after `join` too.

        When this returns, everything that is stored from now on will be received.

        Raises:
            NotStored: the room's stream does not answer.
            TimeoutError: NATS does not.
        """
        subject = self._bus.subjects.log(topic, channel)
        opened = self._rooms.get(subject)
        if opened is None:
            opened = self._listen(subject, Room(subject, template, topic, channel), history)
        opened.holders += 1
        if opened.lingering is not None:
            opened.lingering.cancel()
            opened.lingering = None
        try:
            if opened.ready is None or (opened.ready.done() and self._stale(opened)):
                opened.ready = self._loop.create_task(self._locate(opened))
            await asyncio.shield(opened.ready)
        except BaseException:
            opened.ready = None
            self.close(opened.room)
            raise
        return opened.room

    def join(self, room: Room, member: Member) -> None:
        """Make a member of an opened room, between two of its messages."""
        self._flush(self._rooms[room.subject])
        room.join(member)

    def leave(self, room: Room, member: Member) -> None:
        room.leave(member)
        self.close(room)

    def close(self, room: Room) -> None:
        """Give back what `open` gave."""
        opened = self._rooms[room.subject]
        opened.holders -= 1
        if opened.holders == 0:
            opened.lingering = self._loop.call_later(LINGER, self._forget, opened)

    def _listen(self, subject: str, room: Room, history: History | None) -> _Open:
        live = self._bus.subjects.live(room.topic, room.channel)
        source = live if history is not None else subject
        opened = _Open(room, _NO_INTEREST, history)
        handler = functools.partial(self._received, opened)
        opened.interest = self._bus.subscribe(source, handler)
        self._rooms[subject] = opened
        return opened

    def _forget(self, opened: _Open) -> None:
        self._bus.unsubscribe(opened.interest)
        del self._rooms[opened.room.subject]

    # Positions

    def _stale(self, opened: _Open) -> bool:
        """Whether the position is too old to be handed out: a quarter of what the room keeps."""
        if opened.history is None:
            return False
        return self._loop.time() - opened.asked > opened.history.age / 4

    async def _locate(self, opened: _Open) -> None:
        if opened.history is None:
            await self._bus.round_trip()
            return
        state = await self._state(opened.room.template)
        opened.asked = self._loop.time()
        here = Position(state.created, state.sequence, state.time)
        last = opened.room.position
        if last is None or last.created != here.created or here.sequence >= last.sequence:
            opened.room.position = here

    async def _state(self, template: str) -> StreamState:
        """Where a topic's stream stands; those who ask while a question is out share the next one.

        They cannot share that one: it may have been answered before they listened.
        """
        running = self._asking.get(template)
        if running is None:
            running = self._asking[template] = _Question()
            running.task = self._loop.create_task(self._ask(template, running))
            return await asyncio.shield(running.task)
        if running.next is None:
            running.next = self._loop.create_task(self._ask_after(template, running))
        return await asyncio.shield(running.next)

    async def _ask(self, template: str, question: _Question) -> StreamState:
        try:
            return await self._bus.stream_state(template)
        finally:
            if question.next is None:
                del self._asking[template]

    async def _ask_after(self, template: str, before: _Question) -> StreamState:
        assert before.task is not None
        await asyncio.wait({before.task})
        question = self._asking[template] = _Question()
        question.task = self._loop.create_task(self._ask(template, question))
        return await question.task

    # Messages

    def _received(self, opened: _Open, subject: str, reply: str, data: bytes, raw: bytes) -> None:
        headers = parse_headers(raw)
        trace = ""
        if self._tracing is not None and (parent := parent_of(headers.get("traceparent", ""))):
            trace = self._deliver_span(opened, parent.sampled, str(parent), data)
        opened.room.received(headers, data, trace)
        if len(opened.room.pending) == 1:
            if not self._dirty:
                self._loop.call_soon(self._flush_all)
            self._dirty.append(opened)

    def _deliver_span(self, opened: _Open, sampled: bool, parent: str, data: bytes) -> str:
        if not sampled or self._tracing is None:
            return ""
        name = opened.room.template
        hop = self._tracing.start(
            f"deliver {name}",
            "consumer",
            parent_of(parent),
            {
                "messaging.operation.name": "deliver",
                "messaging.operation.type": "receive",
                "messaging.destination.template": name,
                "messaging.message.body.size": len(data),
            },
        )
        opened.hops.append(hop)
        return str(hop.parent)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for opened in dirty:
            self._flush(opened)

    def _flush(self, opened: _Open) -> None:
        members, slow = opened.room.flush()
        hops, opened.hops = opened.hops, []
        for hop in hops:
            hop.set("fairlead.members", members)
            hop.set("fairlead.slow", slow)
            hop.end()


class _Question:
    """A question to a stream that is out, and the one that follows it."""

    __slots__ = ("next", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[StreamState] | None = None
        self.next: asyncio.Task[StreamState] | None = None


_NO_INTEREST = Interest(0, "", "", lambda *_: None)
