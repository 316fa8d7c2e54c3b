"""Rooms and NATS: which rooms this edge listens to, and from where on.

::

    join ──▶ SUB, then ask the stream where it stands ──▶ member
    NATS ──▶ Room.received ──▶ (end of the turn) ──▶ Room.flush ──▶ members' sockets
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairlead import logs, roomlog
from fairlead.bus import Bus, Interest, parse_headers
from fairlead.errors import NotStored
from fairlead.protocol.cursor import Position
from fairlead.protocol.lease import Fences
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead.roomlog import StreamState
from fairlead_edge.questions import Questions
from fairlead_edge.ring import Budget
from fairlead_edge.room import Member, Room, RoomMessage
from fairlead_edge.tally import RUNS, EdgeTally

if TYPE_CHECKING:
    from fairlead_edge.spans import Spans

log = logs.get("fairlead.edge")
_unchecked = logs.Seldom(log.warning, "the position of a room cannot be checked", ["topic"])
_unread = logs.Seldom(log.warning, "what was missed cannot be read yet", ["topic"])
_gone = logs.Seldom(log.error, "messages of a room were lost; its members are closed", ["topic"])

READS = 8
"""Rooms whose missed messages are read at a time."""

HELD = 1000
"""Live messages that may wait while those before them are read."""

LAG = 0.1
"""Seconds until a replica that lags behind is asked again."""

LAG_TRIES = 50
"""Times that it is asked before what it does not have counts as gone."""

FRESH = 0.9
"""The part of a room's age that a position may have when the room no longer shows what was before."""

CHECK_EVERY = 30.0
"""Seconds between two looks whether rooms that are quiet stand where their streams do."""

CHECK_RATE = 1000
"""Rooms that are asked about in a second."""

LINGER = 2.0
"""Seconds for which an empty room is listened to: those who reload come back at once."""


@dataclass(slots=True, eq=False)
class _Open:
    """A room that is listened to.

    Attributes:
        holders: members, and those who are about to be.
        asked: loop time at which its position was last asked for; last: of its last message.
        told: server time, in ms, of the position that its members last were told of.
        heard: sequence of the last message, also before the position was known.
        ready: done when the room may be joined.
        filling: what reads missed messages, while there is a `held`.
        backfilling: held while the ring is filled from the stream: once, for all who come back.
        took: when the first of the messages that are pending came (`time.perf_counter`).
    """

    room: Room
    interest: Interest
    ready: asyncio.Task[StreamState | None] | None = None
    filling: asyncio.Task[None] | None = None
    backfilling: asyncio.Lock = field(default_factory=asyncio.Lock)
    holders: int = 0
    asked: float = 0.0
    last: float = 0.0
    told: int = 0
    heard: int = 0
    took: float = 0.0
    lingering: asyncio.TimerHandle | None = None
    # What is live while the messages before it are read; None when nothing is being read.
    held: list[tuple[dict[str, str], bytes]] | None = None


class Hub:
    """The rooms of one edge.

    Attributes:
        on_occupied: told of a room that gets its first member, and (False) loses its last.
    """

    def __init__(self, bus: Bus, spans: Spans | None, tally: EdgeTally) -> None:
        self.on_occupied: Callable[[Room, bool], None] = lambda room, occupied: None
        self._bus = bus
        self._spans = spans
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, _Open] = {}
        self._rings = Budget()
        self._dirty: list[_Open] = []
        self._questions = Questions(bus)
        self._reading = asyncio.Semaphore(READS)
        self._chores: set[asyncio.Task[None]] = set()
        bus.on_up.append(self._nats_came)

    def rooms(self) -> Iterator[Room]:
        """Those that are listened to; the logs of runs are none."""
        return (opened.room for opened in self._rooms.values() if opened.room.topic)

    # Joining and leaving

    async def open(self, template: str, topic: str, channel: str, history: History | None) -> Room:
        """Listen to a room; give it back with `close`, after `join` too.

        When this returns, everything that is stored from now on will be received.

        Raises:
            NotStored: the room's stream does not answer.
            TimeoutError: NATS does not.
        """
        subjects = self._bus.subjects
        subject, stream = subjects.log(topic, channel), subjects.stream(template)
        opened = self._rooms.get(subject)
        if opened is None:
            tally = self._tally.topics[template]
            room = Room(subject, template, topic, channel, history, self._rings, stream, tally)
            live = subjects.live(topic, channel)
            opened = self._listen(room, live if history is not None else subject)
        return await self._held(opened)

    async def open_run(self, run: str) -> Room:
        """Listen to the log of a run; as `open`, and raises as it."""
        subjects = self._bus.subjects
        subject = subjects.run_log(run)
        opened = self._rooms.get(subject)
        if opened is None:
            tally = self._tally.topics[RUNS]
            room = Room(subject, "run", "", run, _RUN_HISTORY, self._rings, subjects.runs, tally)
            opened = self._listen(room, subjects.run_live(run))
        return await self._held(opened)

    async def _held(self, opened: _Open) -> Room:
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

    async def located(self, room: Room) -> None:
        """Wait until an opened room knows where it stands; it may have lost its place meanwhile.

        Raises:
            NotStored: its stream does not answer.
        """
        opened = self._rooms[room.subject]
        while room.history is not None and room.position is None:
            opened.ready = self._loop.create_task(self._locate(opened))
            await asyncio.shield(opened.ready)

    def join(self, room: Room, member: Member) -> None:
        """Make a member of an opened room, between two of its messages."""
        self._flush(self._rooms[room.subject])
        empty = not room.members
        room.join(member)
        if empty:
            self.on_occupied(room, True)

    def leave(self, room: Room, member: Member) -> None:
        empty = not room.members
        room.leave(member)
        if not empty and not room.members:
            self.on_occupied(room, False)
        self.close(room)

    def close(self, room: Room) -> None:
        """Give back what `open` gave."""
        opened = self._rooms[room.subject]
        opened.holders -= 1
        if opened.holders == 0:
            opened.lingering = self._loop.call_later(LINGER, self._forget, opened)

    def _listen(self, room: Room, source: str) -> _Open:
        opened = _Open(room, _NO_INTEREST)
        self._listen_to(opened, source)
        self._rooms[room.subject] = opened
        room.tally.rooms += 1
        return opened

    def _listen_to(self, opened: _Open, source: str) -> None:
        handler = functools.partial(self._received, opened)
        opened.interest = self._bus.subscribe(source, handler)

    def _forget(self, opened: _Open) -> None:
        self._bus.unsubscribe(opened.interest)
        del self._rooms[opened.room.subject]
        opened.room.tally.rooms -= 1
        opened.held = None
        opened.room.stands(None)  # its ring gives back what it held

    def topics_changed(self, topics: Mapping[str, History | None]) -> None:
        """Take over what another build says of the rooms that are open."""
        for opened in self._rooms.values():
            room = opened.room
            if not room.topic or room.template not in topics:
                continue  # a run's log, or a topic that no build has any more
            history = topics[room.template]
            if (history is None) == (room.history is None):
                room.history = history
            else:
                self._turn(opened, history)

    def _turn(self, opened: _Open, history: History | None) -> None:
        """A room has history from now on, or none: who is in it comes back, and learns that."""
        room = opened.room
        self._bus.unsubscribe(opened.interest)
        room.history = history
        room.stands(None)
        opened.held, opened.heard = None, 0
        live = self._bus.subjects.live(room.topic, room.channel)
        self._listen_to(opened, live if history is not None else room.subject)
        opened.ready = self._loop.create_task(self._locate(opened))
        for members in list(room.members.values()):
            for member in list(members):
                member.close(Close.RESTART, "the history of this topic changed; reconnect")

    # Positions

    def _stale(self, opened: _Open) -> bool:
        """Whether the position is too old to be handed out: a quarter of what the room keeps."""
        if opened.room.history is None:
            return False
        return self._loop.time() - opened.asked > opened.room.history.age / 4

    async def _locate(self, opened: _Open) -> StreamState | None:
        """Find out where a room stands; None is a room without history."""
        if opened.room.history is None:
            await self._bus.round_trip()
            return None
        state = await self._questions.state(opened.room.stream)
        room, last = opened.room, opened.room.position
        if last is not None and last.created != state.created:
            self._lost(opened)  # somebody made the stream anew: what it had is not known
            last = None
        if last is None:
            # What was heard while the question was out may be newer than its answer.
            sequence = max(state.sequence, opened.heard)
            room.stands(Position(state.created, sequence, state.time))
        elif not await self._missed(opened):
            # The room has nothing newer than it had, so its position may be as new as the answer.
            # What came while that was asked has moved it on; back, it would be read a second time.
            newest = max(state.sequence, room.position.sequence if room.position else 0)
            room.stands(Position(state.created, newest, state.time))
        opened.asked = self._loop.time()
        return state

    async def _missed(self, opened: _Open) -> bool:
        """Whether the room's stream has more than was heard; that is then read.

        Raises:
            NotStored: the stream does not answer.
        """
        room = opened.room
        async with self._reading:
            last = await roomlog.last(self._bus, room.stream, room.subject)
        if room.position is None or last <= room.position.sequence:
            return False
        if opened.held is None:
            opened.held = []
            self._fill(opened, last)
        return True

    # Those who come back (replay.py)

    async def level(self, room: Room, sequence: int) -> bool:
        """Hear whatever the room had when a client saw this sequence, elsewhere.

        Returns:
            False if the stream has never got there, or is another one than the room's.

        Raises:
            NotStored: the stream does not answer.
        """
        opened = self._rooms[room.subject]
        created = room.position and room.position.created
        state = await self._locate(opened)
        if state is None or state.created != created or state.sequence < sequence:
            return False
        if opened.held is not None and opened.filling is not None:
            await asyncio.shield(opened.filling)
        return room.position is not None and room.position.created == created

    def backfilling(self, room: Room) -> asyncio.Lock:
        """Held by the one who reads the room's stream for all who come back at once."""
        return self._rooms[room.subject].backfilling

    def flush(self, room: Room) -> None:
        """Write what is pending, now instead of at the end of the turn."""
        self._flush(self._rooms[room.subject])

    async def page(self, room: Room, after: int) -> list[RoomMessage]:
        """What the room's stream has after a sequence, as much as one question gives.

        Raises:
            NotStored: the stream does not answer.
        """
        async with self._reading:
            found = await roomlog.read_page(self._bus, room.stream, room.subject, after)
        fences = Fences()
        return [room.read(headers, data, fences) for headers, data in found]

    async def last(self, room: Room) -> int:
        """The sequence of the room's last message, from the stream's leader; 0 if it is empty.

        Raises:
            NotStored: the stream does not answer.
        """
        async with self._reading:
            return await roomlog.last(self._bus, room.stream, room.subject)

    # Quiet rooms

    async def watch(self) -> None:
        """Look after rooms that are quiet, until cancelled.

        A message that NATS dropped on the way to this edge is else noticed with the next one
        only; and a position that grows old is worth nothing to a client that comes back.
        """
        while True:
            pause = min((_patience(opened) for opened in self._rooms.values()), default=CHECK_EVERY)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            for opened in list(self._rooms.values()):
                if self._quiet(opened):
                    await asyncio.gather(asyncio.sleep(1 / CHECK_RATE), self._check(opened))

    def _quiet(self, opened: _Open) -> bool:
        if opened.room.position is None or opened.held is not None or not self._bus.connected:
            return False
        return self._loop.time() - max(opened.asked, opened.last) > _patience(opened)

    async def _check(self, opened: _Open) -> None:
        try:
            await self._locate(opened)
        except Exception as error:  # whatever NATS says now, the next round asks again
            _unchecked(topic=opened.room.template, error=error)
            return
        now, history = opened.room.position, opened.room.history
        if now is not None and history and now.time - opened.told > history.age * 1000 / 4:
            opened.told = now.time
            opened.room.tell_position()

    # Messages

    def _received(self, opened: _Open, subject: str, reply: str, data: bytes, raw: bytes) -> None:
        headers = parse_headers(raw)
        position = opened.room.position
        sequence = int(headers.get("Nats-Sequence", 0))
        if position is not None and 0 < sequence <= position.sequence:
            return  # on its way when the stream was asked where it stands; who joined since has it
        if opened.held is not None:
            self._hold(opened, headers, data)
            return
        if position is not None and int(headers.get("Nats-Last-Sequence", 0)) > position.sequence:
            opened.held = [(headers, data)]
            self._fill(opened, int(headers["Nats-Last-Sequence"]))
            return
        opened.heard = sequence
        opened.last = self._loop.time()
        self._take(opened, headers, data)

    def _take(
        self, opened: _Open, headers: dict[str, str], data: bytes, missed: bool = False
    ) -> None:
        """Give a message to the room; it goes out at the end of this turn.

        Args:
            missed: it was read from the stream.
        """
        if self._spans is not None and (origin := headers.get("traceparent")):
            trace, watch = self._spans.deliver(opened.room, origin, data, missed)
            opened.room.received(headers, data, trace, watch)
        else:
            opened.room.received(headers, data)
        opened.room.tally.messages += 1
        opened.room.heard += 1
        if len(opened.room.pending) == 1:
            opened.took = time.perf_counter()
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
        opened.filling = self._chore(self._read_missed(opened, target))

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _read_missed(self, opened: _Open, target: int) -> None:
        """Read what lies between the room's position and `target`, then let the live ones through.

        What cannot be read any more is not passed over in silence: the members are closed.
        """
        room = opened.room
        tries = 0
        while opened.held is not None and self._rooms.get(room.subject) is opened:
            since = room.position
            if since is None:
                break
            try:
                async with self._reading:
                    missed = await roomlog.read(
                        self._bus, room.stream, room.subject, since.sequence
                    )
                    whole = await self.whole(room, since)
            except NotStored as error:
                _unread(topic=room.template, error=error)
                await asyncio.sleep(LAG)
                continue
            if room.position is not since:
                continue  # it was looked at meanwhile, and found to be further on, or nowhere
            if not whole:
                break
            if not missed or int(missed[-1][0]["Nats-Sequence"]) < target:
                tries += 1
                if tries > LAG_TRIES:
                    break  # no replica will ever have it: purged
                await asyncio.sleep(LAG)  # a replica that lags behind
                continue
            held, opened.held = opened.held, None
            room.tally.gaps_filled += 1
            for number, (headers, data) in enumerate([*missed, *(held or ())]):
                if room.position and int(headers["Nats-Sequence"]) > room.position.sequence:
                    self._take(opened, headers, data, number < len(missed))
            return
        if opened.held is not None:
            self._lost(opened)

    async def whole(self, room: Room, since: Position) -> bool:
        """Whether the room's stream still has all that it got after a position.

        By the rule for positions: its first stored message is not after it, or the room is not
        full and the position is younger than what it keeps. To be asked after reading; the
        answers are the leader's, as a replica may lag.

        Raises:
            NotStored: the stream does not answer.
        """
        first = await roomlog.first(self._bus, room.stream, room.subject)
        if 0 < first <= since.sequence:
            return True
        kept = await roomlog.kept(self._bus, room.stream, room.subject)
        history = room.history
        if history is None:
            return False  # a newer build keeps nothing here
        return kept.messages < history.size and kept.time - since.time < history.age * 1000 * FRESH

    def _lost(self, opened: _Open) -> None:
        """Messages are gone for good: say so; those who come back know where they stand."""
        opened.held = None
        room = opened.room
        room.tally.gaps_lost += 1
        _gone(topic=room.template)
        for members in list(room.members.values()):
            for member in list(members):
                member.close(Close.POSITION_LOST, "messages were lost; reconnect")
        opened.ready = None
        room.stands(None)

    def _nats_came(self) -> None:
        """Whatever was stored meanwhile was not heard: look at each room."""
        for opened in self._rooms.values():
            if opened.room.history is not None and opened.room.position is not None:
                self._chore(self._look_at(opened))

    async def _look_at(self, opened: _Open) -> None:
        while self._rooms.get(opened.room.subject) is opened and self._bus.connected:
            try:
                await self._missed(opened)
                return
            except NotStored:
                await asyncio.sleep(LAG)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for opened in dirty:
            self._flush(opened)

    def _flush(self, opened: _Open) -> None:
        heard = len(opened.room.pending)
        members, _ = opened.room.flush()
        if members:
            opened.room.tally.fanout.add_alike(time.perf_counter() - opened.took, heard)


def _patience(opened: _Open) -> float:
    """Seconds for which a room may be quiet before it is asked about."""
    return (
        min(CHECK_EVERY, opened.room.history.age / 8)
        if opened.room.history is not None
        else CHECK_EVERY
    )


_RUN_HISTORY = History(size=2**31, age=30 * 24 * 3600.0)
"""No limits of a room's kind hold for a run's log: its worker bounds it, and numbers what it writes."""

_NO_INTEREST = Interest(0, "", "", lambda *_: None)
