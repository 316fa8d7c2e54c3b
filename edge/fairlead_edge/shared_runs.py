"""Runs that all members of a room share (`run="topic"`): this edge asks for one while it has members.

::

    first member ──▶ want ──▶ the room's runner, if there is one: it says how the room stands
                       └ no answer ──▶ seek ──▶ any worker: it takes the room's lease, if it can
    last member gone ──▶ good-bye ──▶ the runner ends the run when no edge wants it

The times are those of `fairlead.protocol.lease`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.natsheaders import no_responders
from fairlead.protocol import lease
from fairlead.protocol.envelope import Work
from fairlead.protocol.lease import State, Word
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import problem
from fairlead_edge.room import Room
from fairlead_edge.routes import RouteTable

if TYPE_CHECKING:
    from fairlead.telemetry import Hop
    from fairlead_edge.connection import Connection

log = logs.get("fairlead.edge")

NO_MESSAGES = 405
"""Status of the error that answers a client's message where a workflow runs once per room."""


class SharedRuns:
    """The rooms of this edge that have members, and what runs for them.

    Args:
        table: the routes that are served now.
    """

    def __init__(self, bus: Bus, edge: str, table: Callable[[], RouteTable]) -> None:
        self._bus = bus
        self._edge = edge
        self._table = table
        self._rooms: dict[Room, dict[tuple[str, str], _Wanting]] = {}

    def occupied(self, room: Room, occupied: bool) -> None:
        """A room got its first member here, or lost its last."""
        if not room.topic:
            return  # the log of a run, whatever a topic may be called
        if occupied:
            self._rooms[room] = {}
            self._look_at(room)
            return
        for wanting in self._rooms.pop(room, {}).values():
            wanting.end()

    def routes_changed(self) -> None:
        """Another build may run something else for the rooms that are there."""
        for room in self._rooms:
            self._look_at(room)

    def _look_at(self, room: Room) -> None:
        wanted = {
            (route.feature, route.workflow): route
            for route in self._table()
            if route.run == "topic" and route.topic == room.template
        }
        wanting = self._rooms[room]
        for name in wanting.keys() - wanted.keys():
            wanting.pop(name).end()
        for name in wanted.keys() - wanting.keys():
            wanting[name] = _Wanting(self._bus, self._edge, wanted[name], room)


class _Wanting:
    """One room with members, and one workflow that is to run for it."""

    def __init__(self, bus: Bus, edge: str, route: Route, room: Room) -> None:
        self._bus = bus
        self._edge = edge
        self._loop = asyncio.get_running_loop()
        name = route.feature, route.workflow, room.topic, room.channel
        self._want = bus.subjects.want(*name)
        self._seek = bus.subjects.seek(*name)
        self._state = State()
        self._answered = self._loop.time()
        self._sought = -lease.SEEK_EVERY
        self._inbox = bus.new_inbox
        self._interests = [
            bus.subscribe(self._inbox, self._heard),
            bus.subscribe(bus.subjects.stand(*name), self._heard),
        ]
        self._timer: asyncio.Handle = self._loop.call_soon(self._ask)

    def end(self) -> None:
        """The last member is gone."""
        self._timer.cancel()
        for interest in self._interests:
            self._bus.unsubscribe(interest)
        self._bus.publish(self._want, Word(self._edge, False).encode())

    def _ask(self) -> None:
        """Tell the runner that members are here; it answers, or NATS says that there is none."""
        now = self._loop.time()
        silent = now - self._answered
        self._ask_in(lease.WANT_EVERY if silent <= lease.WANT_EVERY else lease.SEEK_EVERY)
        if self._bus.connected:
            word = Word(self._edge, True, self._state)
            self._bus.publish(self._want, word.encode(), self._inbox)
            if silent > lease.SILENT_AFTER:
                self._look_for_another()  # it stands still, or its worker does

    def _ask_in(self, pause: float) -> None:
        """Not for all rooms of an edge in one moment, after an outage."""
        self._timer.cancel()
        self._timer = self._loop.call_later(pause * random.uniform(0.8, 1.0), self._ask)

    def _heard(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        if no_responders(headers):
            self._look_for_another()
            return
        try:
            standing = lease.decode_standing(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        # A runner that was sought by an edge that knew less may be behind.
        self._state = State(max(self._state.attempt, standing.state.attempt), standing.state.over)
        if standing.held:
            self._answered = self._loop.time()
        else:
            self._sought = -lease.SEEK_EVERY
            self._look_for_another()

    def _look_for_another(self) -> None:
        """Ask any worker to take the room, and soon whether one did."""
        now = self._loop.time()
        if now - self._sought < lease.SEEK_EVERY * 0.7:
            return
        self._sought = now
        word = Word(self._edge, True, self._state)
        self._bus.publish(self._seek, word.encode())
        self._timer.cancel()
        self._timer = self._loop.call_later(lease.SEEK_EVERY * random.uniform(0.8, 1.0), self._ask)


class TopicScope:
    """A member of a room that a shared run speaks to; nobody takes what it says itself."""

    __slots__ = ("_connection", "waiting_bytes")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.waiting_bytes = 0

    @property
    def busy(self) -> bool:
        return False

    def take(self, work: Work, ref: int | None, hop: Hop | None) -> None:
        """Refuse it: the connection stays."""
        if hop is not None:
            hop.refuse(NO_MESSAGES)
            hop.end()
        detail = (
            f"{self._connection.route.label} runs once per room and takes no messages; "
            "send to an endpoint of the same topic that does"
        )
        trace = "" if hop is None else str(hop.parent)
        self._connection.answer(ref, problem(NO_MESSAGES, detail), trace)

    def cancel(self, ref: int) -> None:
        pass  # a message of this client was answered at once

    def cancel_run(self, run: str) -> bool:
        return False  # it is all members'

    def closed(self) -> None:
        pass  # the room knows
