"""Two edges' rooms over a stream that is a plain list, for tests of what no client may miss unseen.

The hubs, rings and replays are the real ones. The stream forgets (by number, by age, by an operator's
purge), is made anew, keeps more or less after a deploy, is away, has a replica that lags, and its
live messages come late or never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fairlead.errors import NotStored
from fairlead.protocol.limits import Limits
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead.protocol.subjects import Subjects
from fairlead.roomlog import Kept, StreamState
from fairlead_edge import hub as hub_module
from fairlead_edge import questions as questions_module
from fairlead_edge import reading as reading_module
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
        limits: what it keeps, and kept before.
    """

    created: int = 1
    now: int = 1_000_000
    limits: Limits = field(default_factory=lambda: Limits(SIZE, AGE))
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
        self.evict()
        return message, max(before, default=0)

    def of(self, channel: str) -> list[Stored]:
        return [message for message in self.stored if message.channel == channel]

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.evict()

    def evict(self) -> None:
        for channel in CHANNELS:
            of_room = self.of(channel)
            for evicted in of_room[: max(0, len(of_room) - int(self.limits.size))]:
                self.stored.remove(evicted)
        self.stored = [m for m in self.stored if self.now - m.time < self.limits.age * 1000]

    # As roomlog.py asks it

    async def state(self, bus: Bus, topic: str) -> StreamState:
        await bus.answers()
        return StreamState(self.created, len(self.all), self.now, self.limits)

    async def last(self, bus: Bus, topic: str, subject: str) -> int:
        await bus.answers()
        return max((m.sequence for m in self.of(channel_of(subject))), default=0)

    async def first(self, bus: Bus, topic: str, subject: str) -> int:
        await bus.answers()
        return min((m.sequence for m in self.of(channel_of(subject))), default=0)

    async def kept(self, bus: Bus, topic: str, subject: str) -> Kept:
        await bus.answers()
        return Kept(len(self.of(channel_of(subject))), self.now, self.limits)

    async def read_page(self, bus: Bus, topic: str, subject: str, after: int) -> list[Any]:
        await bus.answers()
        source = self.replica if self.from_replica else self.stored
        channel = channel_of(subject)
        found = [m for m in source if m.channel == channel and m.sequence > after]
        await asyncio.sleep(0)
        return [(headers_of(m), b"%d" % m.sequence) for m in found[:2]]


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

    async def answers(self) -> None:
        await asyncio.sleep(0)
        if not self.connected:
            raise NotStored("NATS is away")

    def subscribe(self, subject: str, handler: Callable[..., None]) -> str:
        self.heard[subject] = handler
        return subject

    def unsubscribe(self, interest: str) -> None:
        del self.heard[interest]

    def live(self, message: Stored, before: int) -> None:
        handler = self.heard.get(SUBJECTS.live(TOPIC, message.channel))
        if handler is not None and self.connected:
            lines = [f"{name}: {value}" for name, value in headers_of(message, before).items()]
            raw = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
            handler("", "", b"%d" % message.sequence, raw)


class Client:
    """A connection, from its welcome to its end.

    Attributes:
        after: what came after this sequence is due to it; got: what it was given.
        cursor: of the newest of that.
        stream: the one that its edge took it for a client of.
        recovered: whether it was told that it gets all that it missed.
    """

    stream: Stream
    recovered: bool

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


class World:
    """Attributes: clients: those who are there; left: those who may come back."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stream = Stream()
        self.streams = {self.stream.created: self.stream}
        self.buses: list[Bus] = []
        self.hubs: list[Hub] = []
        self.late: list[list[tuple[Stored, int]]] = [[], []]
        self.clients: list[Client] = []
        self.left: list[Client] = []
        self.patch = pytest.MonkeyPatch()
        self._answers()
        self.patch.setattr(hub_module, "LAG", 0)
        self.patch.setattr(replay_module, "LAG", 0)
        self.patch.setattr(hub_module, "LAG_TRIES", 5)
        self.patch.setattr(replay_module, "LAG_TRIES", 5)
        self.patch.setattr(hub_module, "LINGER", 0.0)
        self.loop.run_until_complete(self._make_edges())

    def _answers(self) -> None:
        self.patch.setattr(reading_module, "roomlog", self.stream)
        self.patch.setattr(questions_module, "roomlog", self.stream)

    async def _make_edges(self) -> None:
        for _ in range(2):
            bus = Bus()
            self.buses.append(bus)
            self.hubs.append(Hub(bus, None, EdgeTally()))  # type: ignore[arg-type]  # what it uses of it

    def turn(self, times: int = 1) -> None:
        async def turns() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    # The world

    def publish(self, channel: str, number: int) -> None:
        for _ in range(number):
            sent = self.stream.publish(channel)
            for late in self.late:
                late.append(sent)

    def arrive(self, edge: int, number: int = 100, turns: int = 3) -> None:
        due, self.late[edge] = self.late[edge][:number], self.late[edge][number:]
        for message, before in due:
            self.buses[edge].live(message, before)
        self.turn(turns)

    def lose_a_message(self, edge: int) -> None:
        """NATS drops the next one that is on its way to an edge."""
        self.late[edge] = self.late[edge][1:]

    def pass_time(self, seconds: int) -> None:
        """The hubs look after quiet rooms each 7.5 s, an eighth of what is kept."""
        for _ in range(0, seconds, 5):
            self.stream.pass_time(min(seconds, 5) * 1000)
            self.loop.run_until_complete(self.look())

    async def look(self) -> None:
        for hub in self.hubs:
            for opened in list(hub._rooms.values()):
                if opened.room.position is not None and opened.gap is None:
                    await hub._check(opened)

    def purge(self, channel: str) -> None:
        """Everything that the room ever had: what it had evicted would be gone now, too."""
        of_room = [message for message in self.stream.all if message.channel == channel]
        self.stream.purged.update(message.sequence for message in of_room)
        self.stream.stored = [m for m in self.stream.stored if m.channel != channel]

    def deploy(self, size: int, age: float) -> None:
        self.stream.limits = self.stream.limits.changed(History(size, age), self.stream.now)
        self.stream.evict()

    def make_anew(self) -> None:
        """What it had is gone; whoever was there is told, sooner or later."""
        for client in self.clients:
            self.check(client)
        self.stream = Stream(self.stream.created + 1, self.stream.now + 1)
        self.streams[self.stream.created] = self.stream
        self.late = [[], []]
        self._answers()

    def lose_nats(self, edge: int) -> None:
        self.buses[edge].connected = False
        self.turn()

    def find_nats(self, edge: int) -> None:
        """It is back; what was said meanwhile does not come to this edge."""
        self.late[edge] = []
        self.buses[edge].connected = True
        self.loop.run_until_complete(self._tell_it_is_up(self.buses[edge]))
        self.turn(30)

    async def _tell_it_is_up(self, bus: Bus) -> None:
        for call in bus.on_up:
            call()

    def use_replica(self, asked: bool, fresh: bool) -> None:
        """It answers or does not; it has caught up or has not."""
        self.stream.from_replica = asked
        if fresh:
            self.stream.replica = list(self.stream.stored)

    # Clients

    def come(self, channel: str = "a", edge: int = 0, cursor: str | None = None) -> Client | None:
        """Connect; None: it was refused, and may come again."""
        return self.loop.run_until_complete(self._come(channel, edge, cursor))

    def come_back(self, client: Client, edge: int = 0) -> Client | None:
        """Connect again, and resume."""
        self.left.remove(client)
        return self.come(client.channel, edge, client.cursor)

    async def _come(self, channel: str, edge: int, cursor: str | None) -> Client | None:
        hub = self.hubs[edge]
        try:
            room = await hub.open(TOPIC, TOPIC, channel, History(SIZE, AGE))
        except NotStored:
            return None  # 503: it comes again
        client = Client(channel, edge, room)
        after = position_of(cursor, room) if cursor else None
        anew = after is not None and after.created != self.stream.created
        # As long as it takes, and no longer: what follows is asked in one turn.
        lost = after is not None and self._lost_since(channel, after.sequence)
        here = after is not None and not anew and self._has_from_before(channel, after.sequence)
        try:
            replay = await resume(hub, room, after)
            await hub.located(room)
        except NotStored:
            hub.close(room)
            return None
        if replay is not None:
            assert after is not None
            assert anew or not lost or room.ring.covers(after.sequence), "it cannot have all of it"
            client.after, client.cursor = after.sequence, cursor
            client.returning = asyncio.ensure_future(replay.run(client))
        else:
            assert not here, "it is all there, and the client was told that it is not"
            hub.join(room, client)
            assert room.position is not None
            client.after, client.cursor = room.position.sequence, room.cursor
        assert room.position is not None
        client.stream = self.streams[room.position.created]
        client.recovered = replay is not None
        self.clients.append(client)
        return client

    def _lost_since(self, channel: str, sequence: int) -> bool:
        have = {message.sequence for message in self.stream.stored} | self.stream.purged
        return any(
            message.sequence not in have
            for message in self.stream.all
            if message.channel == channel and message.sequence > sequence
        )

    def _has_from_before(self, channel: str, sequence: int) -> bool:
        return any(message.sequence <= sequence for message in self.stream.of(channel))

    def leave(self, client: Client) -> None:
        async def leave() -> None:
            client.gone = True
            client.reads.set()
            if client.returning is not None:
                client.returning.cancel()
            self.hubs[client.edge].leave(client.room, client)
            await asyncio.sleep(0)

        self.loop.run_until_complete(leave())
        self.clients.remove(client)
        self.check(client)
        self.left.append(client)

    # What must be true

    def _due(self, client: Client) -> list[int]:
        """All that its room got after it came; what was purged may be missing."""
        return [
            message.sequence
            for message in client.stream.all
            if message.channel == client.channel and message.sequence > client.after
        ]

    def check(self, client: Client) -> None:
        """No hole up to the newest that it has, nothing twice, nothing out of order."""
        if client.stream is not self.stream:
            return  # it was looked at when that was made anew
        newest = client.got[-1] if client.got else 0
        due = [sequence for sequence in self._due(client) if sequence <= newest]
        missing = [each for each in due if each not in client.got]
        assert set(missing) <= client.stream.purged, f"{client.got} of {due}"
        assert client.got == [each for each in due if each not in missing]

    def end(self) -> None:
        """Let all that goes on come to its end, and see that nobody has a hole it knows nothing of."""
        try:
            self.stream.from_replica = False
            self.settle()
            for client in self.clients:
                self.check(client)
                if not client.closed:
                    assert client.stream is self.stream, "it was not told that this is another one"
                    behind = set(self._due(client)) - set(client.got)
                    assert behind <= self.stream.purged, "it was not told that it missed something"
            for client in list(self.clients):
                self.leave(client)
            self.loop.run_until_complete(asyncio.sleep(0.002))
            for hub in self.hubs:
                assert (hub._rings.used, hub._held_of_all.used) == (0, 0)
        finally:
            self.close()

    def close(self) -> None:
        self.patch.undo()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn(3)
        self.loop.close()

    def settle(self) -> None:
        """NATS is there, all that is late arrives, everybody reads, and one message more is heard by all."""
        for edge, bus in enumerate(self.buses):
            if not bus.connected:
                self.find_nats(edge)
        for channel in CHANNELS:
            self.publish(channel, 1)
        for client in self.clients:
            self.loop.call_soon(client.reads.set)
        for edge in range(len(self.buses)):
            self.arrive(edge, len(self.late[edge]), 0)
        self.turn(400)
        self.loop.run_until_complete(self.look())
        self.turn(400)
