"""The run of one room: its lease is kept, who wants it is heard, and `execute` is called for all members.

::

    an edge with members ──want──▶ Room ──lease──▶ Leases
                                    └─▶ TopicRun: one `execute` ──items, with the fence──▶ the room
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from fairlead import logs
from fairlead.bus import NoResponders
from fairlead.context import Broadcast, Reply
from fairlead.errors import Malformed
from fairlead.protocol import envelope, lease, names
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.lease import Standing, State, Wanted, Word
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import problem
from fairlead.workflow import Workflow
from fairlead_worker.itemids import ItemIds
from fairlead_worker.leases import Held, Leases
from fairlead_worker.recording import RoomRecording
from fairlead_worker.runner import Run
from fairlead_worker.tally import Outcome
from fairlead_worker.tools import STUBBORN, Tools

log = logs.get("fairlead.worker")
_unrenewed = logs.Seldom(log.warning, "the lease of a room cannot be renewed yet", ["workflow"])
_kept = logs.Seldom(log.warning, "the lease of a room cannot be given back; it ends", ["workflow"])
_stubborn = logs.Seldom(
    log.warning, "a room's run does not stop, though it was cancelled", ["workflow"]
)
_taken = logs.Seldom(log.warning, "another worker has the room by now", ["workflow"], burst=5)

TICK = 0.2
"""Seconds between two looks at a room."""

STILL = 1.0
"""Seconds without a look after which the loop stood still: edges may have spoken meanwhile."""


class Room:
    """One room whose lease this worker has."""

    def __init__(
        self, tools: Tools, leases: Leases, held: Held, route: Route, flow: Workflow, subject: str,
        word: Word,
    ) -> None:  # fmt: skip
        self.lease = held.lease
        self.tools = tools
        self.route = route
        self.flow = flow
        self.subject = subject
        self._bus = tools.bus
        self._name = (
            route.feature, route.workflow, *tools.bus.subjects.room_of_inbound(subject)
        )  # fmt: skip
        self._leases = leases
        self._held = held
        self._state = held.state
        self._loop = asyncio.get_running_loop()
        self._wanted = Wanted(self._loop.time())
        self._wanted.word(word, self._loop.time())
        self._renewed = asyncio.Event()
        self._ended = asyncio.Event()
        self._given_up = asyncio.Event()
        self._lost = False
        self._empty = False
        self._cancelled = False
        self.run: TopicRun | None = None

    async def serve(self) -> None:
        """Execute, until no edge has members, the lease is lost, or `end`."""
        interest = self._bus.subscribe(self._bus.subjects.want(*self._name), self._heard)
        keeping = self._loop.create_task(self._keep())
        executing = self._loop.create_task(self._execute())
        executing.add_done_callback(_never_raises)
        try:
            await self._ended.wait()
            # The lease is kept until `finally` blocks have run: no other runs beside them.
            await self._stop(executing)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            self._bus.unsubscribe(interest)
        if self._empty:
            self._state = State()  # for those who came in meanwhile, all begins anew
        if not self._lost:
            await self._give_back()
        self._tell(Standing(False, self._state))

    def end(self, lost: bool = False) -> None:
        """End it here; another worker may go on. Args: lost: the lease is another's by now."""
        self._lost = self._lost or lost
        self._ended.set()

    @property
    def over(self) -> bool:
        """Whether its run has returned: nothing is begun until the room was empty."""
        return self._state.over

    def cancel(self) -> None:
        """Somebody wants its run to end; the next one begins when the room was empty."""
        self._cancelled = True
        if self.run is not None:
            self.run.cancel(silent=True)

    def give_up(self) -> None:
        """Its run does not stop: it says nothing more, and the room is another worker's."""
        self._ended.set()
        self._given_up.set()

    async def _stop(self, executing: asyncio.Task[None]) -> None:
        given_up = asyncio.ensure_future(self._given_up.wait())
        while not executing.done() and not given_up.done():
            if self.run is not None:
                self.run.cancel(silent=True)
            else:
                executing.cancel()
            await asyncio.wait(
                {executing, given_up}, timeout=STUBBORN, return_when=asyncio.FIRST_COMPLETED
            )
            if not executing.done():
                _stubborn(workflow=self.route.label)
        given_up.cancel()

    async def _give_back(self) -> None:
        try:
            await self._leases.give_back(self._held, self._state)
        except (TimeoutError, NoResponders, Malformed) as error:
            _kept(workflow=self.route.label, seconds=lease.TTL, error=error)

    # Who wants it

    def _heard(self, subject: str, reply: str, data: bytes, _: bytes) -> None:
        try:
            word = lease.decode_word(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        self._wanted.word(word, self._loop.time())
        if word.here:
            self._bus.publish(reply, Standing(True, self._state).encode())

    def _tell(self, standing: Standing) -> None:
        """Tell all edges at once: whichever looks for the next runner knows what came before it."""
        self._bus.publish(self._bus.subjects.stand(*self._name), standing.encode())

    def nobody_could_be_heard(self) -> None:
        """NATS was away: no edge is gone for that."""
        self._wanted.unheard(self._loop.time())

    async def _keep(self) -> None:
        """Renew the lease, and notice when the run is to end; until cancelled, or it is lost."""
        looked = self._loop.time()
        while not self._lost:
            now = self._loop.time()
            if now - looked > STILL:
                self.nobody_could_be_heard()
            looked = now
            if self.lease.lost(now):
                self.end(lost=True)
            elif self._wanted.nobody(now) and not self._ended.is_set():
                self._empty = True
                self.end()
            elif now - self.lease.sent >= lease.RENEW and self._bus.connected:
                await self._renew()
                looked = self._loop.time()
            await asyncio.sleep(TICK)

    async def _renew(self) -> None:
        try:
            if not await self._leases.renew(self._held, self._state):
                _taken(workflow=self.route.label)
                self.end(lost=True)
                return
            self._renewed.set()
            await self._leases.refresh_clock(self._held)
        except Exception as error:  # whatever NATS says now: without a renewal the run falls silent
            _unrenewed(workflow=self.route.label, error=error)

    async def may_speak(self) -> None:
        """Wait until the lease is sure to hold; the run is cancelled if it is lost meanwhile."""
        while self._given_up.is_set() or not (
            self._bus.connected and self.lease.good(self._loop.time())
        ):
            self._renewed.clear()
            await self._renewed.wait()

    # Executing

    async def _execute(self) -> None:
        """Execute until it returns; what raised is started again after a pause."""
        failures = 0
        while not self._state.over:
            attempt = self._state.attempt + 1
            self._state = State(attempt)
            self._tell(Standing(True, self._state))
            started = self._loop.time()
            self.run = TopicRun(self, attempt)
            self.run.task = asyncio.current_task()
            try:
                succeeded = await self._attempt(self.run)
                if not succeeded and not self._told_to_end:
                    lasted = self._loop.time() - started
                    failures = 1 if lasted > lease.PAUSES[1] else failures + 1
                    await asyncio.sleep(lease.pause(failures))
            except asyncio.CancelledError:
                if not self._told_to_end:
                    raise
                succeeded = True
            if self._lost or (self._ended.is_set() and not self._cancelled):
                return  # whatever it made of that: another worker goes on
            if succeeded or self._cancelled:
                self._state = State(attempt, over=True)
                self._tell(Standing(True, self._state))

    async def _attempt(self, run: TopicRun) -> bool:
        """Execute once; False if it raised."""
        began = run.tally.begun(run.work, run.attempt)
        outcome: Outcome = "left"  # or nobody is there any more
        try:
            succeeded = await run.succeeded()
            outcome = run.outcome
        except asyncio.CancelledError:
            if self._cancelled and not self._ended.is_set():
                outcome = "cancelled"
            raise
        finally:
            run.tally.ended(run.work, outcome, began)
        return succeeded

    @property
    def _told_to_end(self) -> bool:
        return self._cancelled or self._ended.is_set()


class TopicRun(Run):
    """One execution for a room: it says what it says to all, and answers nobody."""

    def __init__(self, room: Room, attempt: int) -> None:
        route, subjects = room.route, room.tools.bus.subjects
        levels = names.topic_template(route.topic)
        path = lease.parameters(levels, subjects.room_of_inbound(room.subject)[0])
        context = envelope.encode_context(envelope.Context({}, {}, path))
        work = Work(Kind.OPEN, DataType.BINARY, b"", context=context)
        super().__init__(room.tools, route, room.flow, work, room.subject, "", ("", 0, attempt))
        self.silent = True
        self._room = room
        self._ids = ItemIds(self, f"runner {room.lease.fence} attempt {attempt}")
        self._recording = RoomRecording(room.tools.tracing, self)

    @property
    def run_id(self) -> str:
        return f"{self.route.workflow}.{self.topic}.{self.channel}"

    def logged(self) -> dict[str, Any]:
        # The channel, and what the topic's parameters are, clients choose.
        room = hashlib.sha256(f"{self.topic} {self.channel}".encode()).hexdigest()[:8]
        run = f"{self.route.workflow}.{room}"
        fields = super().logged() | {"topic": self.route.topic, "run": run}
        del fields["connection"]
        return fields

    async def succeeded(self) -> bool:
        """Execute; False if it raised, which is reported."""
        assert self.flow.signature is not None
        logs.about(self.logged)
        try:
            self._ctx = self._context()
            await self._execute(self.flow.signature.connection_arguments(self._ctx))
            return True
        except asyncio.CancelledError as error:
            if self.cancelled is not None:
                raise
            self._fail(problem(500), error)  # something that it waited for was cancelled, not it
        except Exception as error:  # user code: the one place that guards the process from it
            self._fail(problem(500), error)
        self._recording.done()
        return False

    async def _before_a_word(self) -> None:
        await self._room.may_speak()

    def _is_plain_reply(self, result: Any) -> bool:
        return False

    async def _emit(self, item: Any) -> None:
        if isinstance(item, Reply):
            raise TypeError(
                f"{self.route.label} runs once for a room, so there is nobody to reply to; "
                "a plain value goes to all members, direct(to, x) to one"
            )
        if isinstance(item, Broadcast) and item.exclude_self:
            raise TypeError(
                f"{self.route.label} runs once for a room and has no client of its own to exclude; "
                "leave exclude_self out"
            )
        await super()._emit(item)

    async def _publish(self, encoded: bytes, headers: dict[str, str]) -> None:
        room = self._room
        await room.may_speak()
        stamped = room.lease.sent
        workflow = f"{self.route.feature}.{self.route.workflow}"
        headers["Fl-Fence"] = lease.stamp(workflow, room.lease)
        await super()._publish(encoded, headers)
        if asyncio.get_running_loop().time() - stamped >= lease.LATE:
            # Nobody knows whether it was stored in time to be shown: whoever is next goes on.
            room.end()
            await asyncio.Event().wait()


def _never_raises(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the run of a room ended in an error of ours", exc_info=error)
