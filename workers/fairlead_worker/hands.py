"""What a worker has in its hands: how work comes in, how much, and who is told of it.

::

    NATS ──work──▶ received ──▶ Run.carry_out ──answers──▶ NATS
                      │ over the limit: busy
                      └ the loop stood still: the run asks its edge first
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable

from fairlead.bus import Bus, Interest
from fairlead.errors import Malformed
from fairlead.protocol import envelope
from fairlead.protocol.delivery import BEAT
from fairlead.protocol.envelope import Answer, Control
from fairlead.protocol.manifest import Beat, Route
from fairlead.protocol.subjects import WORKERS, parse_answer
from fairlead.workflow import Workflow
from fairlead_worker.runner import Run, Tools

log = logging.getLogger("fairlead.worker")

TICK = 0.1
"""Seconds between two looks at what is in hand."""

ANNOUNCE_AFTER = 0.15
"""Seconds after which the edge is told who has a message: with a tick, within its 250 ms."""

STILL = 1.0
"""Seconds without a tick after which the loop counts as having stood still."""

REJOIN = 0.8
"""Part of the limit at which a worker that left the queue groups comes back."""


class Hands:
    """The runs of one worker.

    Attributes:
        runs: by (connection, message): one attempt of each at most.
        ticked: loop time of the last tick; the watchdog reads it from its own thread.
        leaving: whether new work is declined for good.
    """

    def __init__(
        self, tools: Tools, flows: Iterable[tuple[Route, Workflow]], limit: int, build: str
    ) -> None:
        self.runs: dict[tuple[str, int], Run] = {}
        self.leaving = False
        self._tools = tools
        self._bus: Bus = tools.bus
        self._flows = [(route, flow) for route, flow in flows if flow.execute is not None]
        self._limit = limit
        self._build = build
        self._worker = tools.bus.options.process
        self._interests: list[Interest] = []
        self._loop = asyncio.get_running_loop()
        self.ticked = self._loop.time()
        self._beaten = 0.0
        self._doubting = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._chores: set[asyncio.Task[None]] = set()

    # Joining and leaving the queue groups

    def open(self) -> None:
        """Take work from now on."""
        subjects = self._bus.subjects
        self._bus.subscribe(subjects.worker(self._worker), self._controlled)
        self._bus.subscribe(subjects.roll, lambda *_: self.beat())
        self._bus.on_up.append(self.beat)
        self._join()
        self.beat()

    def _join(self) -> None:
        for route, flow in self._flows:
            subject = self._bus.subjects.inbound_all(route.feature, route.workflow)
            handler = functools.partial(self._received, route, flow)
            self._interests.append(self._bus.subscribe(subject, handler, WORKERS))

    def _leave(self) -> asyncio.Task[None]:
        interests, self._interests = self._interests, []
        task = self._loop.create_task(self._bus.leave(interests))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def leave(self, grace: float) -> None:
        """Stop without losing anything.

        1. Leave the queue groups; what is on its way is answered `busy`.
        2. Let what is in hand end, for `grace` seconds at most.
        3. Drop the rest, and say so in a last beat: its edges try another worker at once.
        """
        self.leaving = True
        self.beat()
        try:
            async with asyncio.timeout(grace):
                await self._leave()
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d runs are handed over to other workers", len(self.runs))
        left = [run.task for run in self.runs.values() if run.task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.runs.clear()
        self.beat()

    # Work

    def _received(
        self, route: Route, flow: Workflow, subject: str, reply: str, data: bytes, _: bytes
    ) -> None:
        self._look_at_the_clock()
        try:
            work = envelope.decode_work(data)
            answer = parse_answer(reply)
            if isinstance(answer, str):
                raise Malformed(f"work without an attempt: {reply!r}")
        except Malformed as error:
            log.warning("dropped what came on %s: %s", subject, error)
            return
        name = answer.connection, answer.message
        if (same := self.runs.get(name)) is not None and self._adopted(same, answer.attempt, reply):
            return
        if self.leaving or len(self.runs) >= self._limit:
            self._bus.publish(reply, bytes([Answer.BUSY]))
            return
        run = Run(self._tools, route, flow, work, subject, reply, answer)
        run.doubted = self._doubting
        self.runs[name] = run
        self._empty.clear()
        run.task = self._loop.create_task(run.carry_out())
        run.task.add_done_callback(functools.partial(self._ended, run))
        if len(self.runs) >= self._limit and self._interests:
            self._leave()

    def _adopted(self, run: Run, attempt: int, reply: str) -> bool:
        """Whether a newer attempt at what is in hand is the run that is in hand.

        So it is as long as that has said nothing; after that the newer one starts anew,
        since its edge has told the client to forget what the older one said.
        """
        if attempt <= run.attempt:
            return True
        if run.emitted:
            self._drop(run)
            return False
        run.attempt, run.reply, run.doubted = attempt, reply, False
        run.announce(self._worker)
        return True

    def _drop(self, run: Run) -> None:
        run.cancelled = run.silent = True
        if run.task is not None:
            run.task.cancel()
        self.runs.pop((run.connection, run.message), None)

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        name = run.connection, run.message
        if self.runs.get(name) is run and not (task.cancelled() and self.leaving):
            del self.runs[name]
        if task.cancelled():
            if run.cancelled:
                run.refuse()  # cancelled before its first step: it could not answer itself
        elif (error := task.exception()) is not None:
            log.error("a run ended in an error of ours", exc_info=error)
        if not self.runs:
            self._empty.set()
        if not self.leaving and not self._interests and len(self.runs) <= self._limit * REJOIN:
            self._join()

    def _controlled(self, subject: str, reply: str, data: bytes, _: bytes) -> None:
        try:
            what, key, size = envelope.decode_control(data)
            connection, message, attempt = key.split(".")
            run = self.runs.get((connection, int(message)))
        except ValueError as error:
            log.warning("dropped what came on %s: %s", subject, error)
            return
        if run is None or str(run.attempt) != attempt:
            return
        if what is Control.CREDIT:
            run.pay(size)
        elif run.task is not None:
            run.cancelled = True
            run.task.cancel()

    # Time

    async def tick(self) -> None:
        """Announce what is in hand, beat, and notice when the loop stood still; until cancelled."""
        while True:
            self._look_at_the_clock()
            now = self._loop.time()
            for run in self.runs.values():
                if now - run.born < ANNOUNCE_AFTER:
                    break  # they stand in the order in which they came
                if not run.announced and not run.doubted:
                    run.announce(self._worker)
            if now - self._beaten >= BEAT:
                self.beat()
            await asyncio.sleep(TICK)

    def beat(self) -> None:
        """Say that this worker lives, and what is in its hands."""
        self._beaten = self._loop.time()
        if self._bus.connected:
            hands = tuple(run.key for run in self.runs.values())
            beat = Beat(self._worker, self._build, hands, self.leaving)
            self._bus.publish(self._bus.subjects.beat(self._worker), beat.encode())

    def _look_at_the_clock(self) -> None:
        """After a standstill, what waited may long be in other hands: it asks before it runs.

        Whatever the server had sent before now is read before the answer to a round trip.
        """
        now = self._loop.time()
        still, self.ticked = now - self.ticked, now
        if still < STILL or self._doubting:
            return
        log.warning("the loop stood still for %.1f s; what waited is asked for", still)
        self._doubting = True
        for run in self.runs.values():
            run.doubted = True
        task = self._loop.create_task(self._trust_again())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _trust_again(self) -> None:
        while True:
            try:
                await self._bus.ready()
                await self._bus.round_trip()
            except TimeoutError:
                continue
            self._doubting = False
            return
