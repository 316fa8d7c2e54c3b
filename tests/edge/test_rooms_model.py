"""Rooms on two edges against a plain list: whatever NATS does, no client has a hole it was not told of.

The hubs, rings and replays are the real ones. The stream is a list that forgets (by number, by age,
by an operator's purge), has a replica that lags, and whose live messages come late or never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fairlead.errors import NotStored
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead.protocol.subjects import Subjects
from fairlead.roomlog import Kept, StreamState
from fairlead_edge import hub as hub_module
from fairlead_edge import questions as questions_module
from fairlead_edge import replay as replay_module
from fairlead_edge.hub import Hub
from fairlead_edge.outgoing import Batch
from fairlead_edge.replay import position_of, resume
from fairlead_edge.room import GATHERED, Room, RoomMessage
from fairlead_edge.tally import EdgeTally

SIZE, AGE = 6, 60.0
TOPIC = "chat"
SUBJECTS = Subjects("model")
CHANNELS = ["a", "b"]


@dataclass(frozen=True)
class Stored:
    sequence: int
    channel: str
    time: int


@dataclass
class Stream:
    """What a topic's stream does.

    Attributes:
        all: every message that there ever was; stored: those that it still has.
        replica: what a server that lags behind has.
        purged: sequences that somebody took away on purpose.
    """

    created: int = 1
    now: int = 1_000_000
    all: list[Stored] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    replica: list[Stored] = field(default_factory=list)
    purged: set[int] = field(default_factory=set)
    from_replica: bool = False

    def publish(self, channel: str) -> tuple[Stored, int]:
        """(the message, sequence of the one before it in its room; 0 if none is stored)"""
        before = [m.sequence for m in self.stored if m.channel == channel]
        message = Stored(len(self.all) + 1, channel, self.now)
        self.all.append(message)
        self.stored.append(message)
        for evicted in self.of(channel)[:-SIZE]:
            self.stored.remove(evicted)
        return message, max(before, default=0)

    def of(self, channel: str) -> list[Stored]:
        return [message for message in self.stored if message.channel == channel]

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.stored = [m for m in self.stored if self.now - m.time < AGE * 1000]

    # As roomlog.py asks it

    async def state(self, bus: Any, topic: str) -> StreamState:
        await asyncio.sleep(0)
        return StreamState(self.created, len(self.all), self.now)

    async def last(self, bus: Any, topic: str, subject: str) -> int:
        await asyncio.sleep(0)
        return max((m.sequence for m in self.of(channel_of(subject))), default=0)

    async def first(self, bus: Any, topic: str, subject: str) -> int:
        await asyncio.sleep(0)
        return min((m.sequence for m in self.of(channel_of(subject))), default=0)

    async def kept(self, bus: Any, topic: str, subject: str) -> Kept:
        await asyncio.sleep(0)
        return Kept(len(self.of(channel_of(subject))), self.now)

    async def read_page(self, bus: Any, topic: str, subject: str, after: int) -> list[Any]:
        await asyncio.sleep(0)
        source = self.replica if self.from_replica else self.stored
        channel = channel_of(subject)
        found = [m for m in source if m.channel == channel and m.sequence > after]
        await asyncio.sleep(0)
        return [(headers_of(m), b"%d" % m.sequence) for m in found[:2]]

    async def read(self, bus: Any, topic: str, subject: str, after: int) -> list[Any]:
        found: list[Any] = []
        while page := await self.read_page(bus, topic, subject, after):
            found += page
            after = int(page[-1][0]["Nats-Sequence"])
        return found


def channel_of(subject: str) -> str:
    return subject.rpartition(".")[2]


def headers_of(message: Stored, before: int | None = None) -> dict[str, str]:
    seconds, milliseconds = divmod(message.time, 1000)
    found = {
        "Nats-Sequence": str(message.sequence),
        "Nats-Time-Stamp": f"1970-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:"
        f"{seconds % 60:02}.{milliseconds:03}Z",
    }
    return found if before is None else {**found, "Nats-Last-Sequence": str(before)}


class Bus:
    """The part of `Bus` that a hub uses."""

    connected = True
    subjects = SUBJECTS

    def __init__(self) -> None:
        self.on_up: list[Callable[[], None]] = []
        self.heard: dict[str, Callable[..., None]] = {}

    def subscribe(self, subject: str, handler: Callable[..., None]) -> str:
        self.heard[subject] = handler
        return subject

    def unsubscribe(self, interest: str) -> None:
        del self.heard[interest]

    def live(self, message: Stored, before: int) -> None:
        handler = self.heard.get(SUBJECTS.live(TOPIC, message.channel))
        if handler is not None:
            lines = [f"{name}: {value}" for name, value in headers_of(message, before).items()]
            raw = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
            handler("", "", b"%d" % message.sequence, raw)


class Client:
    """A connection, from its welcome to its end.

    Attributes:
        after: what came after this sequence is due to it; got: what it was given.
        cursor: of the newest of that.
    """

    dialect = GATHERED  # whole messages, so that the test need not read frames

    def __init__(self, channel: str, edge: int, room: Room) -> None:
        self.id = f"client-{id(self)}"
        self.channel = channel
        self.edge = edge
        self.room = room
        self.after = 0
        self.got: list[int] = []
        self.cursor: str | None = None
        self.gone = False
        self.closed = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.returning: asyncio.Task[None] | None = None

    def room_messages(self, messages: list[RoomMessage]) -> bool:
        for message in messages:
            if not self.closed:  # a close frame is the last
                self.got.append(message.sequence)
                self.cursor = message.id
        return False

    def room_position(self, position: object) -> None:
        self.cursor = self.room.cursor

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        raise AssertionError

    def close(self, code: Close, reason: str) -> None:
        assert code == Close.POSITION_LOST
        self.closed = True

    async def drained(self) -> None:
        await self.reads.wait()


class Rooms(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stream = Stream()
        self.buses: list[Bus] = []
        self.hubs: list[Hub] = []
        self.late: list[list[tuple[Stored, int]]] = [[], []]
        self.clients: list[Client] = []
        self.left: list[Client] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(hub_module, "roomlog", self.stream)
        self.patch.setattr(questions_module, "roomlog", self.stream)
        self.patch.setattr(hub_module, "LAG", 0)
        self.patch.setattr(replay_module, "LAG", 0)
        self.patch.setattr(hub_module, "LAG_TRIES", 5)
        self.patch.setattr(replay_module, "LAG_TRIES", 5)
        self.patch.setattr(hub_module, "LINGER", 0.0)

    @initialize()
    def edges(self) -> None:
        async def make() -> None:
            for _ in range(2):
                bus = Bus()
                self.buses.append(bus)
                self.hubs.append(Hub(bus, None, EdgeTally()))  # type: ignore[arg-type]  # what it uses of it

        self.loop.run_until_complete(make())

    def turn(self, times: int = 1) -> None:
        async def turns() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    # The world

    @rule(channel=st.sampled_from(CHANNELS), number=st.integers(1, 4))
    def publish(self, channel: str, number: int) -> None:
        for _ in range(number):
            sent = self.stream.publish(channel)
            for late in self.late:
                late.append(sent)

    @rule(edge=st.integers(0, 1), number=st.integers(1, 8), turns=st.integers(0, 3))
    def messages_arrive(self, edge: int, number: int, turns: int) -> None:
        due, self.late[edge] = self.late[edge][:number], self.late[edge][number:]
        for message, before in due:
            self.buses[edge].live(message, before)
        self.turn(turns)

    @precondition(lambda self: any(self.late))
    @rule(edge=st.integers(0, 1))
    def a_message_never_arrives(self, edge: int) -> None:
        self.late[edge] = self.late[edge][1:]

    @rule(seconds=st.sampled_from([1, 5, 10, 50, 70]))
    def time_passes(self, seconds: int) -> None:
        """The hubs look after quiet rooms each 7.5 s, an eighth of what is kept."""
        for _ in range(0, seconds, 5):
            self.stream.pass_time(min(seconds, 5) * 1000)
            self.loop.run_until_complete(self._look())

    async def _look(self) -> None:
        for hub in self.hubs:
            for opened in list(hub._rooms.values()):
                if opened.room.position is not None and opened.held is None:
                    await hub._check(opened)

    @rule(channel=st.sampled_from(CHANNELS))
    def an_operator_purges(self, channel: str) -> None:
        """Everything that the room ever had: what it had evicted would be gone now, too."""
        of_room = [message for message in self.stream.all if message.channel == channel]
        self.stream.purged.update(message.sequence for message in of_room)
        self.stream.stored = [m for m in self.stream.stored if m.channel != channel]

    @rule(asked=st.booleans(), fresh=st.booleans())
    def the_replica(self, asked: bool, fresh: bool) -> None:
        """It answers or does not; it has caught up or has not."""
        self.stream.from_replica = asked
        if fresh:
            self.stream.replica = list(self.stream.stored)

    @rule(turns=st.integers(1, 20))
    def the_loops_turn(self, turns: int) -> None:
        self.turn(turns)

    # Clients

    @precondition(lambda self: len(self.clients) < 5)
    @rule(channel=st.sampled_from(CHANNELS), edge=st.integers(0, 1))
    def somebody_comes(self, channel: str, edge: int) -> None:
        self.loop.run_until_complete(self._come(channel, edge, None))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def somebody_is_cut_off(self, data: st.DataObject) -> None:
        self._leave(data.draw(st.sampled_from(self.clients)))

    @precondition(lambda self: self.left)
    @rule(data=st.data(), edge=st.integers(0, 1))
    def somebody_comes_back(self, data: st.DataObject, edge: int) -> None:
        client = data.draw(st.sampled_from(self.left))
        self.left.remove(client)
        self.loop.run_until_complete(self._come(client.channel, edge, client.cursor))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), reads=st.booleans())
    def somebody_reads_or_does_not(self, data: st.DataObject, reads: bool) -> None:
        client = data.draw(st.sampled_from(self.clients))
        (client.reads.set if reads else client.reads.clear)()

    async def _come(self, channel: str, edge: int, cursor: str | None) -> None:
        hub = self.hubs[edge]
        room = await hub.open(TOPIC, TOPIC, channel, History(SIZE, AGE))
        client = Client(channel, edge, room)
        after = position_of(cursor, room) if cursor else None
        # As long as it takes, and no longer: what follows is asked in one turn.
        lost = after is not None and self._lost_since(channel, after.sequence)
        try:
            replay = await resume(hub, room, after)
            await hub.located(room)
        except NotStored:
            hub.close(room)  # 503: it comes again
            return
        if replay is not None:
            assert after is not None
            assert not lost or room.ring.covers(after.sequence), "it cannot have all of it"
            client.after, client.cursor = after.sequence, cursor
            client.returning = asyncio.ensure_future(replay.run(client))
        else:
            hub.join(room, client)
            assert room.position is not None
            client.after, client.cursor = room.position.sequence, room.cursor
        self.clients.append(client)

    def _lost_since(self, channel: str, sequence: int) -> bool:
        have = {message.sequence for message in self.stream.stored} | self.stream.purged
        return any(
            message.sequence not in have
            for message in self.stream.all
            if message.channel == channel and message.sequence > sequence
        )

    def _leave(self, client: Client) -> None:
        async def leave() -> None:
            client.gone = True
            client.reads.set()
            if client.returning is not None:
                client.returning.cancel()
            self.hubs[client.edge].leave(client.room, client)
            await asyncio.sleep(0)

        self.loop.run_until_complete(leave())
        self.clients.remove(client)
        self._check(client)
        self.left.append(client)

    # What must be true

    def _due(self, client: Client) -> list[int]:
        """All that its room got after it came; what was purged may be missing."""
        return [
            message.sequence
            for message in self.stream.all
            if message.channel == client.channel and message.sequence > client.after
        ]

    def _check(self, client: Client) -> None:
        """No hole up to the newest that it has, nothing twice, nothing out of order."""
        newest = client.got[-1] if client.got else 0
        due = [sequence for sequence in self._due(client) if sequence <= newest]
        missing = [each for each in due if each not in client.got]
        assert set(missing) <= self.stream.purged, f"{client.got} of {due}"
        assert client.got == [each for each in due if each not in missing]

    def teardown(self) -> None:
        try:
            self.stream.from_replica = False
            self._settle()
            for client in self.clients:
                self._check(client)
                if not client.closed:
                    behind = set(self._due(client)) - set(client.got)
                    assert behind <= self.stream.purged, "it was not told that it missed something"
            for client in list(self.clients):
                self._leave(client)
            self.loop.run_until_complete(asyncio.sleep(0.002))
            assert [hub._rings.used for hub in self.hubs] == [0] * len(self.hubs)
        finally:
            self.patch.undo()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.turn(3)
            self.loop.close()

    def _settle(self) -> None:
        """All that is late arrives, everybody reads, and one message more is heard by all."""
        for channel in CHANNELS:
            self.publish(channel, 1)
        for client in self.clients:
            self.loop.call_soon(client.reads.set)
        for edge in range(len(self.buses)):
            self.messages_arrive(edge, len(self.late[edge]), 0)
        self.turn(400)


TestRooms = Rooms.TestCase
TestRooms.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
