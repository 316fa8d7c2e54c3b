"""A run with `resume`: it outlives its client's connection, that connection's edge, and its worker.

::

    OPEN ──policies, inputs──▶ store what it began with ──▶ done, says the edge ──▶ execute ──▶ log
    REOPEN ──▶ read that and the log's end; nobody has it? ──▶ the next attempt ──▶ execute ──▶ log

From then on the run belongs to no edge. Edges whose clients read it say so on its control
subject; nobody there means that it may be taken up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fairlead import logs, runstore
from fairlead.bus import Bus, NoResponders
from fairlead.context import subject_id
from fairlead.errors import Malformed, NotStored
from fairlead.interest import Interest
from fairlead.protocol import envelope, runlog
from fairlead.protocol.delivery import BEAT
from fairlead.protocol.envelope import Answer, Kind
from fairlead.protocol.problems import CANCELLED, NO_WORKER, problem
from fairlead.protocol.runlog import Entry, Opening, Start, Viewing
from fairlead.storing import OutOfOrder
from fairlead_worker.runner import Run
from fairlead_worker.writer import Writer

log = logs.get("fairlead.worker")
_unkept = logs.Seldom(log.error, "what a run said cannot be kept", ["workflow"], burst=5)

TRIES = 5
"""Times that a run is looked for to end it, while it goes from one worker to the next."""

ANSWERS_WITHIN = 2.0
"""Seconds in which whoever has a run answers; else it hangs, and another may take the run up."""

VIEWERS_LAST = 2 * BEAT + 0.5
"""Seconds after which viewers of whom nothing more is heard are gone, with their edge."""

KEPT_HEADERS = frozenset(
    {"accept", "accept-language", "content-type", "host", "origin", "referer", "user-agent"}
)
"""Headers of the request that are stored; the workflow's own inputs are, too."""

CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Never stored, whoever asks for them."""


class LoggedRun(Run):
    """One attempt of a run whose output is kept.

    Attributes:
        ended: told the run's id, and how long it is to be kept, when it is over and stored.
    """

    ended: Callable[[str, float], None]

    _writer: Writer | None = None
    _control: Interest | None = None
    _to_end = False  # cancelled, so that no other is to go on with it
    _left = False
    _cancels: tuple[str, ...] = ()  # who wants it to end, of those who asked before it had begun

    @property
    def begun(self) -> bool:
        """Whether it belongs to no edge any more."""
        return self._writer is not None

    @property
    def _resume(self) -> float:
        assert self.route.resume is not None
        return self.route.resume

    @property
    def _bus(self) -> Bus:
        return self.tools.bus

    @property
    def _worker(self) -> str:
        return self._bus.options.process

    # Its way

    async def carry_out(self) -> None:
        attending: asyncio.Task[None] | None = None
        self._viewers: dict[str, tuple[int, float]] = {}  # by edge: how many, and when it said so
        self._seen = self._now()
        try:
            if self.work.kind is Kind.REOPEN and not await self._taken_up():
                return
            attending = asyncio.ensure_future(self._attend())
            await super().carry_out()
            if self._writer is not None and await self._writer.close() and not self._left:
                await self._over()
        except (NotStored, Malformed) as error:
            _unkept(exc_info=error, **self.logged())
        finally:
            if attending is not None:
                attending.cancel()
            self._not_listening()

    async def _execute(self, arguments: dict[str, Any]) -> None:
        if self._writer is None:
            if not await self._launch():
                return
            for reply in self._cancels:
                self._end_it(reply)
        await super()._execute(arguments)

    async def _launch(self) -> bool:
        """Store what it begins with, and be the one who has it."""
        assert self._ctx is not None
        opening = Opening(
            self.inbound, self.work.id, subject_id(self._ctx.subject) or "", self._resume,
            envelope.encode_work(self._storable()),
        )  # fmt: skip
        await runstore.open_run(self._bus, self.run_id, opening)
        try:
            await self._begin(1, Start(self._worker, 0, time.time(), self._traced), 0, 0)
        except OutOfOrder:
            # An attempt at this opening that was taken for lost has come as far.
            Run._say(self, bytes([Answer.DONE]))
            return False
        Run._say(self, bytes([Answer.DONE]))
        return True

    def _storable(self) -> envelope.Work:
        """The work for those who take it up: admitted already, and without credentials."""
        assert self._ctx is not None
        context = envelope.decode_context(self.work.context)
        signature = self.flow.signature
        wanted = signature.headers if signature is not None else frozenset[str]()
        kept = {
            name: value
            for name, value in context.headers.items()
            if name.lower() in (KEPT_HEADERS | wanted) - CREDENTIALS
        }
        encoded = envelope.encode_context(replace(context, headers=kept, subject=self._ctx.subject))
        # Nobody waits for who takes it up, so that is nobody's waiting time: it was sent at no time.
        return replace(self.work, kind=Kind.REOPEN, id="", context=encoded, sent=0.0)

    @property
    def _traced(self) -> str:
        """What the next attempt links to; "" if this one is not sampled."""
        hop = self._recording.hop_now()
        return "" if hop is None else str(hop.parent)

    async def _taken_up(self) -> bool:
        """Make the next attempt this one's, if the run is in nobody's hands.

        `work.id` is the run's id; data `cancel` ends it instead, whoever has it by then.
        """
        run, self._to_end = self.work.id, self.work.data == runlog.CANCEL
        self.announce(self._worker)
        failure = problem(NO_WORKER, "the run goes from one worker to the next; try again")
        for _ in range(TRIES):
            try:
                goes_on = await self._taken(run)
            except LookupError as error:
                failure = problem(404, str(error))
                break
            except OutOfOrder:
                # Another has it since it was looked for.
                self._not_listening()
                if self._to_end:
                    continue
                goes_on = False
            except (NotStored, ValueError) as error:
                failure = problem(NO_WORKER, str(error))
                break
            Run._say(self, bytes([Answer.DONE]))
            return goes_on
        Run._say(self, envelope.error(failure))
        return False

    async def _taken(self, run: str) -> bool:
        """Have it, or end it; False if there is nothing to carry out here.

        Raises:
            LookupError: there is no such run.
            OutOfOrder: another has begun the next attempt meanwhile.
            NotStored, ValueError: the stream does not answer, or what it says is malformed.
        """
        _, opening = await runstore.opening(self._bus, run)
        self.connection, _, message = run.rpartition("-")
        self.message = int(message)
        # Read before it is asked who has it: who begins meanwhile has written behind this.
        newest = await runstore.last(self._bus, run)
        place, entry = newest or (0, None)
        left = entry is not None and entry.left
        if not left and await self._in_hands(run, runlog.CANCEL if self._to_end else b"?"):
            return False
        if entry is not None and entry.ends:
            # Its worker died between its last word and this.
            await self._over()
            return False
        self.work = envelope.decode_work(opening.work)
        attempt, number = (entry.attempt, entry.number) if entry is not None else (0, 0)
        start, self.attempt = await self._next(entry), attempt + 1
        self._recording.begin(start.trace)
        start = start._replace(trace=self._traced)
        failure = self._why_it_ends(start, lost=entry is not None and not left)
        await self._begin(attempt + 1, start, number, place, failure)
        self.tally.taken_over += 1
        if failure is None and self._to_end:  # since it was looked for
            failure = problem(CANCELLED, "cancelled")
            await self._end_with(envelope.error(failure))
        if place:
            assert self._writer is not None
            await self._writer.forget(place + 1)
        if failure is not None:
            await self._over()
            return False
        return True

    async def _next(self, newest: Entry | None) -> Start:
        """What the next attempt begins with, after one whose newest entry is this; its trace is that one's."""
        now = time.time()
        if newest is None:
            return Start(self._worker, 0, now)
        oldest = await runstore.first(self._bus, self.run_id)
        if oldest is None or not oldest[1].begins:
            # So much was said that the beginning is gone: it was no quick death.
            return Start(self._worker, 0 if newest.left else 1, now)
        return runlog.decode_start(oldest[1].said[0]).next(self._worker, newest.left, now)

    def _why_it_ends(self, start: Start, lost: bool) -> dict[str, Any] | None:
        """Why a run is not to be started again; None if it is.

        Args:
            lost: its last worker was, and did not hand it over.
        """
        if self._to_end:
            return problem(CANCELLED, "cancelled")
        if lost and self.route.on_worker_lost == "error":
            return problem(NO_WORKER, "the worker that ran this was lost")
        if start.deadly:
            detail = f"{start.losses} workers were lost with this in hand; it is given up"
            return problem(500, detail)
        return None

    async def _in_hands(self, run: str, question: bytes) -> bool:
        """Whether a worker has it, and answers."""
        try:
            subject = self._bus.subjects.run_control(run)
            await self._bus.request(subject, question, within=ANSWERS_WITHIN)
        except (NoResponders, TimeoutError):
            return False
        return True

    async def _begin(
        self, attempt: int, start: Start, number: int, after: int,
        failure: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Store that this attempt begins, and, with a failure, that the run ends with it."""
        self._control = self._bus.subscribe(
            self._bus.subjects.run_control(self.run_id), self._controlled
        )
        writer = Writer(self._bus, self.run_id, attempt, self._fenced)
        last = b"" if failure is None else envelope.error(failure)
        await writer.start(start, number, after, last)
        self._writer = writer
        self.attempt = attempt

    async def _end_with(self, last: bytes) -> None:
        """Say the last word of a run that was just begun, to whoever wanted that, too.

        Raises:
            OutOfOrder: another has it.
        """
        assert self._writer is not None
        self._writer.say(last)
        if not await self._writer.close():
            raise OutOfOrder(self.run_id)
        for reply in self._cancels:
            self._bus.publish(reply, b"1")

    def _not_listening(self) -> None:
        if self._control is not None:
            self._bus.unsubscribe(self._control)
            self._control = None

    async def _over(self) -> None:
        await runstore.end(self._bus, self.run_id, time.time(), self._resume)
        self.ended(self.run_id, self._resume)

    def _fenced(self, reason: Exception) -> None:
        """Another attempt has written, or nothing can be stored: this one says nothing more."""
        if not isinstance(reason, OutOfOrder):
            _unkept(exc_info=reason, **self.logged())
        self.cancel(silent=True)

    def stop(self) -> None:
        self.hand_over()

    async def give_up(self) -> None:
        await super().give_up()
        if self._writer is not None:
            await self._writer.close()

    # Its words

    def _say(self, answer: bytes) -> None:
        if self._writer is None:
            super()._say(answer)
        elif answer[0] in runlog.LAST or answer[0] == Answer.LEFT:
            self._left = answer[0] == Answer.LEFT
            self._writer.say(answer)

    def refuse(self) -> None:
        if self._to_end:  # also where this worker stops, and would have handed it over
            self._fail(problem(CANCELLED, "cancelled"), None)
        else:
            super().refuse()

    async def _say_in_turn(self, answer: bytes, size: int) -> None:
        assert self._writer is not None, "nothing is said before the run has begun"
        self.tally.items += 1
        await self._before_a_word()
        await self._writer.append(answer)

    async def _still_wanted(self) -> bool:
        if self._writer is None:
            return await super()._still_wanted()
        try:
            current = await self._writer.current()
        except NotStored:
            # Nobody knows. What it says is refused if another has the run; the next word asks again.
            return True
        self.doubted = False
        return current

    # Its viewers

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _controlled(self, subject: str, reply: str, data: bytes, _: bytes) -> None:
        if data != b"?":
            try:
                viewing = runlog.decode_control(data)
            except Malformed as error:
                logs.dropped(subject, data, error)
                return
            if viewing is None:
                self._end_it(reply)
                return
            self._viewed(viewing)
        if reply:
            self._bus.publish(reply, b"1")

    def _end_it(self, reply: str) -> None:
        """End it; who asked is told so once that is certain, and asks elsewhere if it is not told."""
        if self._left:
            return
        self._to_end = True
        if self._writer is None:
            self._cancels += (reply,)
            return
        self.cancel()
        if reply:
            self._bus.publish(reply, b"1")

    def _viewed(self, viewing: Viewing) -> None:
        now = self._now()
        self._viewers[viewing.edge] = viewing.viewers, now
        self._seen = now
        if self._writer is not None:
            self._writer.watched = self._watched(now)
            self._writer.unattended = False
            self._writer.read(viewing.read)

    def _watched(self, now: float) -> bool:
        return any(count and now - seen < VIEWERS_LAST for count, seen in self._viewers.values())

    async def _attend(self) -> None:
        """Notice that nobody reads any more; after `resume` seconds of that, `on_disconnect` decides."""
        while True:
            await asyncio.sleep(min(BEAT / 2, self._resume / 4))
            now, writer = self._now(), self._writer
            if writer is None:
                continue
            writer.watched = self._watched(now)
            if writer.watched:
                self._seen = now
            elif now - self._seen > self._resume and self._bus.connected:
                if self.route.on_disconnect == "cancel":
                    self.cancel()
                    return
                writer.unattended = True
            writer.look()
