"""Rooms and NATS: which rooms this edge listens to, and from where on.

::

    join ──▶ SUB, then ask the stream where it stands ──▶ member
    NATS ──▶ Room.received ──▶ (end of the turn) ──▶ Room.flush ──▶ members' sockets
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import NotStored
from fairlead.interest import Interest
from fairlead.natsheaders import parse_headers
from fairlead.protocol.cursor import Position
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead.roomlog import StreamState
from fairlead_edge.gap import EDGE_HELD_BYTES, Gap, Heard
from fairlead_edge.opened import CHECK_EVERY, Opened
from fairlead_edge.questions import Questions
from fairlead_edge.reading import Reading
from fairlead_edge.ring import Budget
from fairlead_edge.room import Member, Room, milliseconds
from fairlead_edge.tally import RUNS, EdgeTally

if TYPE_CHECKING:
    from fairlead_edge.spans import Spans

log = logs.get("fairlead.edge")
_unchecked = logs.Seldom(log.warning, "the position of a room cannot be checked", ["topic"])
_unread = logs.Seldom(log.warning, "what was missed cannot be read yet", ["topic"])
_gone = logs.Seldom(log.error, "messages of a room were lost; its members are closed", ["topic"])

LAG = 0.1
"""Seconds until a replica that lags behind is asked again."""

LAG_TRIES = 50
"""Times that it is asked before what it does not have counts as gone."""

CHECK_RATE = 1000
"""Rooms that are asked about in a second."""

LINGER = 2.0
"""Seconds for which an empty room is listened to: those who reload come back at once."""


class Hub:
    """The rooms of one edge.

    Attributes:
        on_occupied: told of a room that gets its first member, and (False) loses its last.
        reading: what is asked of the rooms' streams.
    """

    def __init__(self, bus: Bus, spans: Spans | None, tally: EdgeTally) -> None:
        self.on_occupied: Callable[[Room, bool], None] = lambda room, occupied: None
        self.reading = Reading(bus)
        self._bus = bus
        self._spans = spans
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, Opened] = {}
        self._rings = Budget()
        self._dirty: list[Opened] = []
        self._held_of_all = Budget(EDGE_HELD_BYTES)
        self._questions = Questions(bus)
        self._pause = CHECK_EVERY  # seconds
        self._less_patient = asyncio.Event()
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
        return await self._hold(opened)

    async def open_run(self, run: str) -> Room:
        """Listen to the log of a run; as `open`, and raises as it."""
        subjects = self._bus.subjects
        subject = subjects.run_log(run)
        opened = self._rooms.get(subject)
        if opened is None:
            tally = self._tally.topics[RUNS]
            room = Room(subject, "run", "", run, _RUN_HISTORY, self._rings, subjects.runs, tally)
            opened = self._listen(room, subjects.run_live(run))
        return await self._hold(opened)

    async def _hold(self, opened: Opened) -> Room:
        opened.holders += 1
        if opened.lingering is not None:
            opened.lingering.cancel()
            opened.lingering = None
        try:
            if opened.ready is None or (opened.ready.done() and opened.stale(self._loop.time())):
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

    def _listen(self, room: Room, source: str) -> Opened:
        opened = Opened(room, _NO_INTEREST)
        self._listen_to(opened, source)
        self._rooms[room.subject] = opened
        self._no_later_than(opened.patience)
        room.tally.rooms += 1
        return opened

    def _listen_to(self, opened: Opened, source: str) -> None:
        handler = functools.partial(self._received, opened)
        opened.interest = self._bus.subscribe(source, handler)

    def _forget(self, opened: Opened) -> None:
        self._bus.unsubscribe(opened.interest)
        del self._rooms[opened.room.subject]
        opened.room.tally.rooms -= 1
        opened.no_gap()
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
                self._no_later_than(opened.patience)
            else:
                self._turn(opened, history)

    def _turn(self, opened: Opened, history: History | None) -> None:
        """A room has history from now on, or none: who is in it comes back, and learns that."""
        room = opened.room
        self._bus.unsubscribe(opened.interest)
        room.history = history
        room.stands(None)
        opened.no_gap()
        opened.heard = 0
        live = self._bus.subjects.live(room.topic, room.channel)
        self._listen_to(opened, live if history is not None else room.subject)
        opened.ready = self._loop.create_task(self._locate(opened))
        for members in list(room.members.values()):
            for member in list(members):
                member.close(Close.RESTART, "the history of this topic changed; reconnect")

    # Positions

    async def _locate(self, opened: Opened) -> StreamState | None:
        """Find out where a room stands; None is a room without history."""
        if opened.room.history is None:
            await self._bus.round_trip()
            return None
        state = await self._questions.state(opened.room.stream)
        room, last = opened.room, opened.room.position
        if last is not None and last.created != state.created:
            self._lost(opened)  # somebody made the stream anew: what it had is not known
            last, opened.heard = None, 0
        if last is None or not await self._missed(opened, state):
            # The room has nothing newer than was heard, so its position may be as new as the answer.
            # What came while that was asked has moved it on; back, it would be read a second time.
            heard = max(opened.heard, room.position.sequence if room.position else 0)
            room.stands(Position(state.created, max(state.sequence, heard), state.time))
        opened.asked = self._loop.time()
        return state

    async def _missed(self, opened: Opened, state: StreamState) -> bool:
        """Whether the room's stream has more than was heard; that is then read.

        Args:
            state: of the stream, as of just now.

        Raises:
            NotStored: the stream does not answer.
        """
        room = opened.room
        last = await self.reading.last(room)
        position = room.position
        if position is None:
            return False
        if last == 0 and not state.limits.whole(0, position.time, state.time):
            self._lost(opened)  # it is empty: whatever came since then has aged away
            return False
        if last <= position.sequence:
            return False
        if opened.gap is None:
            self._fill(opened, last)
        else:
            opened.gap.target = max(opened.gap.target, last)
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
        if opened.gap is not None and opened.gap.filling is not None:
            await asyncio.shield(opened.gap.filling)
        return room.position is not None and room.position.created == created

    def backfilling(self, room: Room) -> asyncio.Lock:
        """Held by the one who reads the room's stream for all who come back at once."""
        return self._rooms[room.subject].backfilling

    def flush(self, room: Room) -> None:
        """Write what is pending, now instead of at the end of the turn."""
        self._flush(self._rooms[room.subject])

    # Quiet rooms

    async def watch(self) -> None:
        """Look after rooms that are quiet, until cancelled.

        A message that NATS dropped on the way to this edge is else noticed with the next one
        only; and a position that grows old is worth nothing to a client that comes back.
        """
        while True:
            self._less_patient.clear()
            patience = (opened.patience for opened in self._rooms.values())
            self._pause = min(patience, default=CHECK_EVERY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause * random.uniform(0.5, 1.0)):
                    await self._less_patient.wait()
                    continue
            for opened in list(self._rooms.values()):
                if self._bus.connected and opened.quiet(self._loop.time()):
                    await asyncio.gather(asyncio.sleep(1 / CHECK_RATE), self._check(opened))

    def _no_later_than(self, patience: float) -> None:
        """A room wants to be looked after that often, in seconds."""
        if patience < self._pause:
            self._less_patient.set()

    async def _check(self, opened: Opened) -> None:
        try:
            await self._locate(opened)
        except Exception as error:  # whatever NATS says now, the next round asks again
            _unchecked(topic=opened.room.template, error=error)
            return
        now, history = opened.room.position, opened.room.history
        if now is not None and history and now.time - opened.told > history.age * 1000 / 4:
            opened.told = now.time
            self._flush(opened)  # what the position covers goes before it
            opened.room.tell_position()

    # Messages

    def _received(self, opened: Opened, subject: str, reply: str, data: bytes, raw: bytes) -> None:
        headers = parse_headers(raw)
        position = opened.room.position
        sequence = int(headers.get("Nats-Sequence", 0))
        if position is not None and 0 < sequence <= position.sequence:
            # On its way when the stream was asked where it stands; who joined since has it. What is
            # stored later than that has a higher number, or else the stream was made anew.
            if milliseconds(headers["Nats-Time-Stamp"]) > position.time:
                self._chore(self._check(opened))
            return
        if self._in_order(opened, sequence, headers, data):
            opened.heard = sequence
            opened.last = self._loop.time()

    def _in_order(
        self, opened: Opened, sequence: int, headers: Mapping[str, str], data: bytes
    ) -> bool:
        """Give a live message to the room if nothing before it is missing, else hold it.

        Returns:
            Whether it was given.
        """
        position = opened.room.position
        before = int(headers.get("Nats-Last-Sequence", 0))
        gap = opened.gap
        if gap is None and position is not None and before > position.sequence:
            gap = self._fill(opened, before)
        if gap is not None:
            gap.hold(Heard(sequence, headers, data))
            return False
        self._take(opened, headers, data)
        return True

    def _take(
        self, opened: Opened, headers: Mapping[str, str], data: bytes, missed: bool = False
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

    # What was not heard (gap.py)

    def _fill(self, opened: Opened, target: int) -> Gap:
        """Read what the stream has up to there; what is live waits until then."""
        gap = opened.gap = Gap(target, self._held_of_all)
        gap.filling = self._chore(self._read_missed(opened, gap))
        return gap

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _read_missed(self, opened: Opened, gap: Gap) -> None:
        """Read on from the room's position, page by page, then let the live ones through.

        What cannot be read any more is not passed over in silence: the members are closed.
        """
        try:
            await self._read_on(opened, gap)
        except Exception as error:  # whatever it is, nobody must wait for ever for what comes after
            _unread(topic=opened.room.template, error=error)
        if opened.gap is gap:
            self._lost(opened)

    async def _read_on(self, opened: Opened, gap: Gap) -> None:
        """Returns with the gap still open if what was missed is gone."""
        room = opened.room
        tries = 0
        while opened.gap is gap and (since := room.position) is not None:
            if since.sequence >= gap.target:
                self._filled(opened)
                return
            try:
                page = await self.reading.page(room, since.sequence)
                last = 0 if page else await self.reading.last(room)
                whole = await self.reading.whole(room, since)
            except NotStored as error:
                _unread(topic=room.template, error=error)
                await asyncio.sleep(LAG)
                continue
            if opened.gap is not gap or room.position is not since:
                continue  # it was looked at meanwhile, and found to be further on, or nowhere
            if not whole:
                break
            for headers, data in page:
                self._take(opened, headers, data, missed=True)
            if page:
                tries = 0
            elif last <= since.sequence:
                gap.target = since.sequence  # purged: there is no more of it
            elif (tries := tries + 1) > LAG_TRIES:
                break  # no replica will ever have it
            else:
                await asyncio.sleep(LAG)  # a replica that lags behind

    def _filled(self, opened: Opened) -> None:
        gap, room = opened.gap, opened.room
        assert gap is not None
        opened.gap = None
        room.tally.gaps_filled += 1
        for heard in gap.release():
            if room.position is not None and heard.sequence > room.position.sequence:
                self._in_order(opened, *heard)

    def _lost(self, opened: Opened) -> None:
        """Messages are gone for good: say so; those who come back know where they stand."""
        opened.no_gap()
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

    async def _look_at(self, opened: Opened) -> None:
        while self._rooms.get(opened.room.subject) is opened and self._bus.connected:
            try:
                state = await self._questions.state(opened.room.stream)
                position = opened.room.position
                if position is not None and position.created != state.created:
                    await self._locate(opened)  # it was made anew meanwhile
                else:
                    await self._missed(opened, state)
                return
            except NotStored:
                await asyncio.sleep(LAG)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for opened in dirty:
            self._flush(opened)

    def _flush(self, opened: Opened) -> None:
        heard = len(opened.room.pending)
        if opened.room.flush():
            opened.room.tally.fanout.add_alike(time.perf_counter() - opened.took, heard)


_RUN_HISTORY = History(size=2**31, age=30 * 24 * 3600.0)
"""No limits of a room's kind hold for a run's log: its worker bounds it, and numbers what it writes."""

_NO_INTEREST = Interest(0, "", "", lambda *_: None)
