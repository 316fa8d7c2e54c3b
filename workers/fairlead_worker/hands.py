"""What a worker has in its hands: how work comes in, how much, and who is told of it.

::

    NATS ──work──▶ received ──▶ Run.carry_out ──answers──▶ NATS
                      │ over the limit: busy
                      └ the loop stood still: the run asks its edge first
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

import orjson

from fairlead import logs, process
from fairlead.bus import Bus, NoResponders
from fairlead.errors import Malformed
from fairlead.interest import Interest
from fairlead.protocol import envelope
from fairlead.protocol.delivery import BEAT
from fairlead.protocol.envelope import Answer, Control, DataType, Kind, Work
from fairlead.protocol.manifest import Beat, Route
from fairlead.protocol.runlog import Opening
from fairlead.protocol.subjects import WORKERS, parse_answer
from fairlead.protocol.subjects import Answer as Attempt
from fairlead.workflow import Workflow
from fairlead_worker.logged import LoggedRun
from fairlead_worker.runner import Run
from fairlead_worker.sweeper import Sweeper
from fairlead_worker.tally import Outcome
from fairlead_worker.tools import STUBBORN, Tools
from fairlead_worker.topics import TopicRuns

log = logs.get("fairlead.worker")
_stubborn = logs.Seldom(log.warning, "a run does not stop, though it was cancelled", ["workflow"])
_unserved = logs.Seldom(log.warning, "work for a workflow that is not served here is dropped")
_ours = logs.Seldom(log.error, "a run ended in an error of ours", ["workflow"], burst=5)

TICK = 0.1
"""Seconds between two looks at what is in hand."""

ANNOUNCE_AFTER = 0.15
"""Seconds after which the edge is told who has a message: with a tick, within its 250 ms."""

STILL = 1.0
"""Seconds without a tick after which the loop counts as having stood still."""

REJOIN = 0.8
"""Part of the limit at which a worker that left the queue groups comes back."""

CENSUS = 5.0
"""Seconds between two questions to each edge which of its runs it still wants."""

LAST_WORDS = 1.0
"""Seconds for the `finally` of what is cancelled at the end of the grace; then it is given up."""

EDGE_GONE_AFTER = 2
"""Such questions without anybody there after which an edge, and its clients, are gone."""


class _Share:
    """A kind of work, its limit, and the queue groups that are left when that is reached."""

    def __init__(self, name: str, flows: list[tuple[Route, Workflow]], limit: int) -> None:
        self.name = name
        self.flows = flows
        self.limit = limit
        self.runs = 0
        self.interests: list[Interest] = []

    @property
    def full(self) -> bool:
        return self.runs >= self.limit


def _long(route: Route) -> bool:
    """Whether a run of it lasts as long as its client stays: idle, most of the time."""
    return route.transport == "sse" or route.run == "connection"


def _asked_for(route: Route) -> bool:
    """Whether an edge ever sends work for it: a room's run, its worker begins by itself (topics.py)."""
    return route.checks or (route.executes and route.run != "topic")


class Hands:
    """The runs of one worker.

    Attributes:
        runs: by (connection, message): one attempt of each at most.
        ticked: loop time of the last tick; the watchdog reads it from its own thread.
        leaving: whether new work is declined for good.
        sweeper: looks after runs with `resume` that are in nobody's hands.
        shares: of its limits. tally: what was counted here.
    """

    def __init__(
        self,
        tools: Tools,
        flows: Iterable[tuple[Route, Workflow]],
        limits: tuple[int, int],
        build: str,
    ) -> None:
        """Args: limits: messages, and connections with streams, at once."""
        self.runs: dict[tuple[str, int], Run] = {}
        self.leaving = False
        self.tally = tools.tally
        self._tools = tools
        self._bus: Bus = tools.bus
        flows = list(flows)
        served = [(route, flow) for route, flow in flows if _asked_for(route)]
        self.shares = [
            _Share("messages", [each for each in served if not _long(each[0])], limits[0]),
            _Share("streams", [each for each in served if _long(each[0])], limits[1]),
        ]
        long = self.shares[1]
        self._topics = TopicRuns(
            tools, flows, lambda: long.full, functools.partial(self._count, long)
        )
        self._build = build
        self._worker = tools.bus.options.process
        self._loop = asyncio.get_running_loop()
        self.ticked = self._loop.time()
        self._beaten = 0.0
        self._counted = self.ticked
        self._absent: dict[str, int] = {}  # edge → censuses that it missed
        self._doubting = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._chores: set[asyncio.Task[None]] = set()
        self.sweeper = Sweeper(self._bus, self.take_up)

    @property
    def rooms(self) -> list[Run]:
        """The runs of rooms that are here."""
        return self._topics.runs

    @property
    def limits(self) -> tuple[int, int]:
        """Messages, and connections with streams and rooms, at once."""
        return self._shares_of("limit")

    @property
    def in_hand(self) -> tuple[int, int]:
        """So many of them are here."""
        return self._shares_of("runs")

    def _shares_of(self, what: str) -> tuple[int, int]:
        messages, long = (int(getattr(share, what)) for share in self.shares)
        return messages, long

    # Joining and leaving the queue groups

    def open(self) -> None:
        """Take work from now on."""
        subjects = self._bus.subjects
        self._bus.subscribe(subjects.worker(self._worker), self._controlled)
        self._bus.subscribe(subjects.handed_all(self._worker), self._handed)
        self._bus.subscribe(subjects.roll, lambda *_: self.beat())
        self._bus.on_up.append(self.beat)
        for share in self.shares:
            self._join(share)
        self._topics.open()
        self.beat()

    def _join(self, share: _Share) -> None:
        for route, flow in share.flows:
            subject = self._bus.subjects.inbound_all(route.feature, route.workflow)
            handler = functools.partial(self._received, share, route, flow)
            share.interests.append(self._bus.subscribe(subject, handler, WORKERS))

    def _leave(self, *shares: _Share) -> asyncio.Task[None]:
        interests: list[Interest] = []
        for share in shares:
            interests += share.interests
            share.interests = []
        return self._chore(self._have_left(interests))

    async def _have_left(self, interests: list[Interest]) -> None:
        with contextlib.suppress(TimeoutError):  # NATS is away, and sends nothing more for them
            await self._bus.leave(interests)

    def _count(self, share: _Share, runs: int) -> None:
        """So many runs more, or less: leave at the limit, and come back below it."""
        share.runs += runs
        if share.full and share.interests:
            self._leave(share)
        elif not self.leaving and not share.interests and share.runs <= share.limit * REJOIN:
            self._join(share)

    def _chore(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def leave(self, grace: float, now: asyncio.Event) -> None:
        """Stop without losing anything.

        1. Leave the queue groups; what is on its way is answered `busy`.
        2. Hand over the runs of connections and of rooms: they would not end by themselves.
        3. Let what is in hand end, for `grace` seconds at most, or until `now`.
        4. Cancel the rest; it has `LAST_WORDS` seconds to say that it goes on elsewhere.
        5. Give up what does not stop: it says nothing more, and goes on elsewhere all the same.
        6. Say so in a last beat: its edges try another worker at once.
        """
        self.leaving = True
        self.beat()
        ending, hurry = (asyncio.ensure_future(each) for each in (self._end(), now.wait()))
        await asyncio.wait({ending, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            log.warning("runs are handed over to other workers", runs=len(self.runs))
        await process.end(ending, hurry)
        if not ending.cancelled():
            ending.result()  # an error of ours
        for run in self.runs.values():
            run.stop()
        tasks = [run.task for run in self.runs.values() if run.task is not None]
        await _wait(*tasks, self._topics.leave())
        stubborn = [run for run in self.runs.values() if run.task and not run.task.done()]
        await _wait(*(run.give_up() for run in stubborn), self._topics.give_up())
        self.runs.clear()
        self.beat()

    async def _end(self) -> None:
        await self._leave(*self.shares)
        for run in self.runs.values():
            if run.inbox is not None:
                run.hand_over()
        await self._topics.leave()
        await self._empty.wait()

    # Work

    def _received(
        self, share: _Share, route: Route, flow: Workflow,
        subject: str, reply: str, data: bytes, _: bytes,
    ) -> None:  # fmt: skip
        self._look_at_the_clock()
        try:
            work = envelope.decode_work(data)
            answer = parse_answer(reply)
            if isinstance(answer, str):
                raise Malformed(f"work without an attempt: {reply!r}")
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        name = answer.connection, answer.message
        if (same := self.runs.get(name)) is not None and self._adopted(same, answer.attempt, reply):
            return
        if self.leaving or share.full:
            self.tally.busy += 1
            self._bus.publish(reply, bytes([Answer.BUSY]))
            return
        self._begin(share, self._made(route, flow, work, subject, reply, answer))

    def _made(
        self, route: Route, flow: Workflow, work: Work, subject: str, reply: str, answer: Attempt
    ) -> Run:
        if route.resume is None or work.kind not in (Kind.OPEN, Kind.REOPEN):
            return Run(self._tools, route, flow, work, subject, reply, answer)
        run = LoggedRun(self._tools, route, flow, work, subject, reply, answer)
        run.ended = self.sweeper.ended
        return run

    def take_up(self, run: str, opening: Opening) -> None:
        """Begin the next attempt of a run that nobody has, if there is room for it here."""
        served = self._served(*self._bus.subjects.workflow_of_inbound(opening.inbound))
        if served is None or served[0].full or self.leaving:
            return
        share, route, flow = served
        work = Work(Kind.REOPEN, DataType.BINARY, b"", id=run)
        taken = self._made(route, flow, work, opening.inbound, "", Attempt(run, 0, 0))
        taken.silent = True  # no edge has asked
        self._begin(share, taken)

    def _begin(self, share: _Share, run: Run) -> None:
        run.doubted = self._doubting
        run.began = run.tally.begun(run.work, run.attempt)
        if run.work.kind is Kind.REOPEN and not isinstance(run, LoggedRun):
            run.tally.taken_over += 1
        self.runs[run.name] = run
        self._empty.clear()
        run.task = self._loop.create_task(run.carry_out())
        run.task.add_done_callback(functools.partial(self._ended, share, run))
        self._count(share, 1)

    def _handed(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        """Work that another worker did not take, given to this one by name."""
        inbound = self._bus.subjects.inbound_of_handed(subject)
        served = self._served(*self._bus.subjects.workflow_of_inbound(inbound))
        if served is None:
            _unserved()
        else:
            self._received(*served, inbound, reply, data, headers)

    def _served(self, feature: str, workflow: str) -> tuple[_Share, Route, Workflow] | None:
        for share in self.shares:
            for route, flow in share.flows:
                if (route.feature, route.workflow) == (feature, workflow):
                    return share, route, flow
        return None

    def _adopted(self, run: Run, attempt: int, reply: str) -> bool:
        """Whether a newer attempt at what is in hand is the run that is in hand.

        So it is as long as that has said nothing; after that the newer one starts anew,
        since its edge has told the client to forget what the older one said.
        """
        if isinstance(run, LoggedRun) and run.begun:
            self._bus.publish(reply, bytes([Answer.DONE]))  # the first time it was not heard
            return True
        if attempt <= run.attempt:
            return True
        if run.emitted or run.inbox is not None or run.cancelled is not None:
            self._drop(run)
            return False
        run.adopt(attempt, reply)
        run.announce(self._worker)
        return True

    def _drop(self, run: Run) -> None:
        if run.cancelled is None:
            run.cancel(silent=True)
        run.silent = True  # its `finally` has been begun, and is not disturbed
        self.runs.pop(run.name, None)

    def _ended(self, share: _Share, run: Run, task: asyncio.Task[None]) -> None:
        outcome: Outcome = "left" if run.leaving or task.cancelled() else run.outcome
        if run.cancelled is not None:
            outcome = "cancelled"
        run.tally.ended(run.work, outcome, run.began)
        if self.runs.get(run.name) is run and not (task.cancelled() and self.leaving):
            del self.runs[run.name]
        if task.cancelled():
            if run.cancelled is not None or run.leaving:
                run.refuse()  # cancelled before its first step: it could not answer itself
        elif (error := task.exception()) is not None:
            _ours(exc_info=error, **run.logged())
            if not (isinstance(run, LoggedRun) and run.begun):
                run.break_off()
        if not self.runs:
            self._empty.set()
        self._count(share, -1)

    def _controlled(self, subject: str, reply: str, data: bytes, _: bytes) -> None:
        try:
            what, key, number, body = envelope.decode_control(data)
            if what is Control.CANCEL and body:
                self._topics.cancel(body.decode())  # a room's run has no attempt of an edge's
                return
            connection, message, attempt = key.split(".")
            run = self.runs.get((connection, int(message)))
            if run is None or str(run.attempt) != attempt:
                return
            if isinstance(run, LoggedRun) and run.begun:
                return  # it is no edge's any more
            if what is Control.INPUT:
                self._look_at_the_clock()
                run.received(number, envelope.decode_work(body))
            elif what is Control.CREDIT:
                run.pay(number)
            elif what is Control.DROP:
                run.drop(number)
            else:
                run.cancel()
        except ValueError as error:
            logs.dropped(subject, data, error)

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
                self._look_at_the_stubborn(now)
            if now - self._counted >= CENSUS and self._bus.connected and not self._doubting:
                self._counted = now
                self._chore(self._take_census(now))
            await asyncio.sleep(TICK)

    def beat(self) -> None:
        """Say that this worker lives, and what is in its hands."""
        self._beaten = self._loop.time()
        if self._bus.connected:
            hands = tuple(run.key for run in self.runs.values())
            beat = Beat(self._worker, self._build, hands, self.leaving)
            self._bus.publish(self._bus.subjects.beat(self._worker), beat.encode())

    def _look_at_the_stubborn(self, now: float) -> None:
        """User code may swallow a cancellation; it is told again until it listens."""
        for run in self.runs.values():
            if run.cancelled is not None and now - run.cancelled >= STUBBORN:
                _stubborn(**run.logged())
                run.cancel()

    async def _take_census(self, now: float) -> None:
        """Ask each edge which of its runs it still wants: a cancel, or the edge, may be lost."""
        hands: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs.values():
            if now - run.born >= CENSUS and not isinstance(run, LoggedRun):
                hands[run.edge].append(run)
        self._absent = {edge: n for edge, n in self._absent.items() if edge in hands}
        await asyncio.gather(*(self._ask(edge, runs) for edge, runs in hands.items()))

    async def _ask(self, edge: str, runs: list[Run]) -> None:
        subject = self._bus.subjects.census(edge)
        question = envelope.census([run.key for run in runs])
        try:
            unwanted = set(orjson.loads(await self._bus.request(subject, question, within=CENSUS)))
        except NoResponders:
            # Once may be an edge that comes back to NATS in a moment.
            self._absent[edge] = self._absent.get(edge, 0) + 1
            if self._absent[edge] >= EDGE_GONE_AFTER:
                log.warning("an edge is gone, and its clients with it", edge=edge, runs=len(runs))
                for run in runs:
                    run.abandon()
            return
        except TimeoutError:
            return  # it stands still, or NATS is away: nothing is known
        self._absent.pop(edge, None)
        for run in runs:
            if run.key in unwanted:
                run.cancel(silent=True)

    def _look_at_the_clock(self) -> None:
        """After a standstill, what waited may long be in other hands: it asks before it runs.

        Whatever the server had sent before now is read before the answer to a round trip.
        """
        now = self._loop.time()
        still, self.ticked = now - self.ticked, now
        if still < STILL or self._doubting:
            return
        log.warning("the loop stood still; what waited is asked for", seconds=round(still, 1))
        self.tally.standstills += 1
        self._doubting = True
        for run in self.runs.values():
            run.doubted = True
        self._chore(self._trust_again())

    async def _trust_again(self) -> None:
        while True:
            try:
                await self._bus.ready()
                await self._bus.round_trip()
            except TimeoutError:
                continue
            self._doubting = False
            return


async def _wait(*ends: Awaitable[None]) -> None:
    """Wait for what is to end soon; what does not goes on."""
    await asyncio.wait([asyncio.ensure_future(end) for end in ends], timeout=LAST_WORDS)
