"""The rooms that one worker runs: `run="topic"` is executed once per room, by who has its lease.

::

    an edge ──seek──▶ TopicRuns: some worker tries to write the room's lease; one wins
    edges ──want──▶ Room: renews it, executes, and ends when no edge has members any more

The rules, and the times, are those of `fairlead.protocol.lease`; this, `leases.py` and
`topicrun.py` are the shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterable

from fairlead import logs
from fairlead.errors import Malformed
from fairlead.interest import Interest
from fairlead.protocol import lease
from fairlead.protocol.lease import Word
from fairlead.protocol.manifest import Route
from fairlead.protocol.subjects import WORKERS
from fairlead.workflow import Workflow
from fairlead_worker.leases import Leases
from fairlead_worker.runner import Run
from fairlead_worker.tools import Tools
from fairlead_worker.topicrun import Room

log = logs.get("fairlead.worker")
_untaken = logs.Seldom(log.warning, "the lease of a room cannot be taken yet", ["workflow"])


class TopicRuns:
    """The rooms of one worker.

    Args:
        full: whether this worker takes no more.
        count: told +1 and -1 for each room.
    """

    def __init__(
        self,
        tools: Tools,
        flows: Iterable[tuple[Route, Workflow]],
        full: Callable[[], bool],
        count: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._bus = tools.bus
        self._flows = [(route, flow) for route, flow in flows if route.run == "topic"]
        self._full = full
        self._count = count
        self._leases = Leases(tools.bus)
        self._rooms: dict[str, Room | None] = {}  # None while its lease is being taken
        self._interests: list[Interest] = []
        self._leaving = False
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Take rooms from now on."""
        self._bus.on_up.append(self._nats_came)
        for route, flow in self._flows:
            subject = self._bus.subjects.seek_all(route.feature, route.workflow)
            handler = functools.partial(self._sought, route, flow)
            self._interests.append(self._bus.subscribe(subject, handler, WORKERS))

    async def leave(self) -> None:
        """Hand all rooms over; returns when their runs have ended."""
        if not self._leaving:
            self._leaving = True
            with contextlib.suppress(TimeoutError):  # NATS is away, and sends nothing more for them
                await self._bus.leave(self._interests)
        for room in self._rooms.values():
            if room is not None:
                room.end()
        if self._tasks:
            await asyncio.wait(self._tasks)  # cancelled, it leaves them to go on

    async def give_up(self) -> None:
        """Hand those over whose runs do not stop; returns when all are."""
        for room in self._rooms.values():
            if room is not None:
                room.give_up()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def runs(self) -> list[Run]:
        """What is executed for rooms here."""
        rooms = [room for room in self._rooms.values() if room is not None and not room.over]
        return [room.run for room in rooms if room.run is not None]

    def cancel(self, subject: str) -> None:
        """End the run of a room, as if it had returned. Args: subject: that of its work."""
        room = self._rooms.get(subject)
        if room is not None:
            room.cancel()

    def _nats_came(self) -> None:
        for room in self._rooms.values():
            if room is not None:
                room.nobody_could_be_heard()

    def _sought(
        self, route: Route, flow: Workflow, subject: str, reply: str, data: bytes, _: bytes
    ) -> None:
        """An edge finds no runner for a room."""
        if self._leaving or self._full() or subject in self._rooms:
            return
        try:
            word = lease.decode_word(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        self._rooms[subject] = None
        self._count(1)
        serving = self._serve(route, flow, subject, word)
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._served, subject))

    def _served(self, subject: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._rooms[subject]
        self._count(-1)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the run of a room ended in an error of ours", exc_info=error)

    async def _serve(self, route: Route, flow: Workflow, subject: str, word: Word) -> None:
        topic, channel = self._bus.subjects.room_of_inbound(subject)
        key = self._bus.subjects.lease(route.feature, route.workflow, topic, channel)
        try:
            held = await self._leases.take(key, word.state)
        except Exception as error:  # whatever NATS says now, the edge asks again in a second
            _untaken(workflow=route.label, error=error)
            return
        if held is None:
            return
        room = Room(self._tools, self._leases, held, route, flow, subject, word)
        self._rooms[subject] = room
        self._tools.tally.of(route).taken_over += held.state.attempt > 0
        if self._leaving:
            room.end()
        await room.serve()
