"""Rooms and NATS: which rooms this edge listens to, and from where on.

::

    join ──▶ SUB, then ask the stream where it stands ──▶ member
    NATS ──▶ Room.received ──▶ (end of the turn) ──▶ Room.flush ──▶ members' sockets
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from dataclasses import dataclass, field

from fairlead import roomlog
from fairlead.bus import Bus, Interest, parse_headers
from fairlead.errors import NotStored
from fairlead.protocol.cursor import Position
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead.roomlog import StreamState
from fairlead.telemetry import Hop, Tracing, parent_of
from fairlead_edge.room import Member, Room

log = logging.getLogger("fairlead.edge")

READS = 8
"""Rooms whose missed messages are read at a time."""

HELD = 1000
"""Live messages that may wait while those before them are read."""

LAG = 0.1
"""Seconds until a replica that lags behind is asked again."""

LAG_TRIES = 50
"""Times that it is asked before what it does not have counts as gone."""

LINGER = 2.0
"""Seconds for which an empty room is listened to: those who reload come back at once."""


@dataclass(slots=True, eq=False)
class _Open:
    """A room that is listened to.

    Attributes:
        holders: members, and those who are about to be.
        asked: loop time at which its position was last asked for.
        heard: sequence of the last message, also before the position was known.
        heard: sequence of the last message, also before the position was known.
        ready: done when the room may be joined.
    """

    room: Room
    interest: Interest
    history: History | None
    ready: asyncio.Task[None] | None = None
    holders: int = 0
    asked: float = 0.0
    heard: int = 0
    lingering: asyncio.TimerHandle | None = None
    hops: list[Hop] = field(default_factory=list)
    # What is live while the messages before it are read; None when nothing is being read.
    held: list[tuple[dict[str, str], bytes]] | None = None


class Hub:
    """The rooms of one edge."""

    def __init__(self, bus: Bus, tracing: Tracing | None) -> None:
        self._bus = bus
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, _Open] = {}
        self._dirty: list[_Open] = []
        self._asking: dict[str, _Question] = {}
        self._reading = asyncio.Semaphore(READS)
        self._chores: set[asyncio.Task[None]] = set()
        bus.on_up.append(self._nats_came)

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
        room, last = opened.room, opened.room.position
        if last is None or last.created != state.created:
            # What was heard while the question was out may be newer than its answer.
            room.position = Position(state.created, max(state.sequence, opened.heard), state.time)
        elif not await self._missed(opened):
            # The room has nothing newer than it had, so its position may be as new as the answer.
            newest = max(state.sequence, last.sequence)
            room.position = Position(state.created, newest, state.time)
        opened.asked = self._loop.time()

    async def _missed(self, opened: _Open) -> bool:
        """Whether the room's stream has more than was heard; that is then read.

        Raises:
            NotStored: the stream does not answer.
        """
        room = opened.room
        async with self._reading:
            last = await roomlog.last(self._bus, room.template, room.subject)
        if room.position is None or last <= room.position.sequence:
            return False
        if opened.held is None:
            opened.held = []
            self._fill(opened, last)
        return True

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
            return await roomlog.state(self._bus, template)
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
        position = opened.room.position
        if opened.held is not None:
            self._hold(opened, headers, data)
            return
        if position is not None and int(headers.get("Nats-Last-Sequence", 0)) > position.sequence:
            opened.held = [(headers, data)]
            self._fill(opened, int(headers["Nats-Last-Sequence"]))
            return
        opened.heard = int(headers.get("Nats-Sequence", 0))
        self._take(opened, headers, data)

    def _take(self, opened: _Open, headers: dict[str, str], data: bytes) -> None:
        """Give a message to the room; it goes out at the end of this turn."""
        trace = ""
        if self._tracing is not None and (parent := parent_of(headers.get("traceparent", ""))):
            trace = self._deliver_span(opened, parent.sampled, str(parent), data)
        opened.room.received(headers, data, trace)
        if len(opened.room.pending) == 1:
            if not self._dirty:
                self._loop.call_soon(self._flush_all)
            self._dirty.append(opened)

    # What was missed: NATS was away, or dropped what this edge read too slowly

    def _hold(self, opened: _Open, headers: dict[str, str], data: bytes) -> None:
        assert opened.held is not None
        opened.held.append((headers, data))
        if len(opened.held) > HELD:
            self._lost(opened)

    def _fill(self, opened: _Open, target: int) -> None:
        task = self._loop.create_task(self._read_missed(opened, target))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _read_missed(self, opened: _Open, target: int) -> None:
        """Read what lies between the room's position and `target`, then let the live ones through.

        What cannot be read any more is not passed over in silence: the members are closed.
        """
        room = opened.room
        tries = 0
        while opened.held is not None and self._rooms.get(room.subject) is opened:
            assert room.position is not None
            try:
                async with self._reading:
                    missed = await roomlog.read(
                        self._bus, room.template, room.subject, room.position.sequence
                    )
                    whole = await self._nothing_evicted(opened, len(missed))
            except NotStored as error:
                log.warning("what was missed cannot be read yet: %s", error)
                await asyncio.sleep(LAG)
                continue
            if not whole:
                break
            if not missed or int(missed[-1][0]["Nats-Sequence"]) < target:
                tries += 1
                if tries > LAG_TRIES:
                    break  # no replica will ever have it: purged
                await asyncio.sleep(LAG)  # a replica that lags behind
                continue
            held, opened.held = opened.held, None
            for headers, data in [*missed, *(held or ())]:
                if int(headers["Nats-Sequence"]) > room.position.sequence:
                    self._take(opened, headers, data)
            return
        if opened.held is not None:
            self._lost(opened)

    async def _nothing_evicted(self, opened: _Open, read: int) -> bool:
        """Whether what was read is all that there was, by the rule for positions.

        The room's first stored message is not after the position, or the room is neither
        full nor is the position older than what it keeps.
        """
        room, history = opened.room, opened.history
        assert room.position is not None and history is not None
        first = await roomlog.read(self._bus, room.template, room.subject, 0, first=True)
        if first and int(first[0][0]["Nats-Sequence"]) <= room.position.sequence:
            return True
        age = time.time() - room.position.time / 1000
        return read < history.size and age < history.age * 0.9

    def _lost(self, opened: _Open) -> None:
        """Messages are gone for good: say so; those who come back know where they stand."""
        opened.held = None
        room = opened.room
        log.error(
            "messages of a room were lost; its members are closed", extra={"topic": room.template}
        )
        for members in list(room.members.values()):
            for member in list(members):
                member.close(Close.POSITION_LOST, "messages were lost; reconnect")
        opened.ready = None
        room.position = None

    def _nats_came(self) -> None:
        """Whatever was stored meanwhile was not heard: look at each room."""
        for opened in self._rooms.values():
            if opened.history is not None and opened.room.position is not None:
                task = self._loop.create_task(self._look_at(opened))
                self._chores.add(task)
                task.add_done_callback(self._chores.discard)

    async def _look_at(self, opened: _Open) -> None:
        while self._rooms.get(opened.room.subject) is opened and self._bus.connected:
            try:
                await self._missed(opened)
                return
            except NotStored:
                await asyncio.sleep(LAG)

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
