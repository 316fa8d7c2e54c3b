"""One run: call `execute`, and say on NATS what it returns or yields.

::

    work ──▶ policies, inputs ──▶ execute (calling.py) ──items──▶ its client, by the edge
                                                          ├─────▶ the room (itemids.py)
                                                          └─────▶ somebody else's client (peers.py)

Nothing here knows how work arrives or when a worker stops; that is `hands.py` and
`serve.py`. What is traced of it is kept by `recording.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from fairlead import errorfeed, logs, storing, values
from fairlead.bus import NoResponders
from fairlead.context import SSE, WS, Broadcast, Channel, Direct, Event, Message, Reply, subject_id
from fairlead.errors import Invalid, NoSuchPeer, NotStored, Reject
from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, HEADROOM, NO_WORKER, problem
from fairlead.protocol.subjects import CONNECTION_SEPARATOR
from fairlead.telemetry import parent_of
from fairlead.workflow import Workflow
from fairlead_worker import calling, peers, policies
from fairlead_worker.inbox import Inbox
from fairlead_worker.itemids import ItemIds
from fairlead_worker.recording import Recording
from fairlead_worker.tally import Outcome
from fairlead_worker.tools import Tools

log = logs.get("fairlead.worker")
_failed = logs.Seldom(log.error, "execute failed", ["workflow"], burst=100)

_unclean = logs.Seldom(log.warning, "a run raised while it was ended", ["workflow"], burst=5)

CREDIT = 256 * 1024
"""Bytes that a run may have on their way to a client that has not read them."""


class Run:
    """One attempt at one message or open, in this worker's hands.

    Attributes:
        name: what it is called in this worker's hands; key: in beats and control messages.
        inbound, reply: NATS subjects of the work, and of its answers.
        announced: whether the edge was told who has it.
        doubted: the loop stood still meanwhile: ask the edge before the next word.
        cancelled: loop time at which the client, or a newer attempt, ended it, or None.
        emitted: whether anything was said to the client or the room.
        inbox: of the run of a connection, what its client says; else None.
        leaving: whether it is handed over, since this worker stops.
        outcome: how it ended, if nobody ended it. began: as its tally has it.
        tally: what is counted of its workflow.
        given_up: whether it took no notice of that: another worker has it, and it says no more.
    """

    def __init__(
        self, tools: Tools, route: Route, flow: Workflow, work: Work, subject: str, reply: str,
        answer: tuple[str, int, int],
    ) -> None:  # fmt: skip
        self.tools = tools
        self.route = route
        self.flow = flow
        self.work = work
        self.tally = tools.tally.of(route)
        self.outcome: Outcome = "done"
        self.began = 0.0
        self.reply = reply
        self.inbound = subject
        self.connection, self.message, self.attempt = answer
        self.name = self.connection, self.message
        self.topic, self.channel = tools.bus.subjects.room_of_inbound(subject)
        self.born = asyncio.get_running_loop().time()
        self.announced = False
        self.doubted = False
        self.cancelled: float | None = None
        self.silent = False
        self.emitted = False
        self.leaving = False
        self._stopping = False  # this worker stops, and has no time left for it
        self.given_up = False
        self.task: asyncio.Task[None] | None = None
        self.inbox: Inbox | None = None
        if route.run == "connection" and work.kind not in (Kind.CHECK, Kind.ADMIT):
            self.inbox = Inbox(self._trusted, self._done_with)
        self._ctx: WS | SSE | None = None
        self._abandoned = False
        self._ids: ItemIds | None = None  # of what it says to a room with history
        self._recording = Recording(tools.tracing, self)
        self._owed = 0
        self._paid: asyncio.Event | None = None
        self._streams = route.transport == "sse"  # whether it says items, one by one

    @property
    def key(self) -> str:
        return envelope.key(self.connection, self.message, self.attempt)

    @property
    def edge(self) -> str:
        """Id of the edge that holds the client."""
        return self.connection.partition(CONNECTION_SEPARATOR)[0]

    @property
    def run_id(self) -> str:
        """The same over all attempts."""
        return f"{self.connection}-{self.message}"

    def logged(self) -> dict[str, Any]:
        """What stands on each line of the log that is about this run."""
        return {
            "workflow": self.route.label,
            "connection": self.connection,
            "run": self.run_id,
            "attempt": self.attempt,
            "trace_id": self._recording.trace_id,
        }

    # The way through a run

    async def carry_out(self) -> None:
        """Execute and answer; returns when the last answer is on its way.

        A cancelled run answers with 499, unless it is `silent` (taken over elsewhere).
        """
        logs.about(self.logged)
        try:
            if self.doubted and not await self._still_wanted():
                return
            if self.work.kind in (Kind.OPEN, Kind.REOPEN):
                self.announce(self.tools.bus.options.process)
            self._recording.begin()
            arguments = await self._admitted()
            if self.inbox is not None:
                self._recording.done()  # it is open; no span lasts as long as a connection
            if self.work.kind in (Kind.CHECK, Kind.ADMIT):
                self._say(bytes([Answer.DONE]))
            else:
                await self._execute(arguments)
        except asyncio.CancelledError as error:
            if not self._stopped() and not _cancelled_itself():
                self._failed(error)  # something that it waited for was cancelled, not it
                return
            self._end_early()
        except Exception as error:  # user code: the one place that guards the process from it
            if self._stopped():
                _unclean(exc_info=error, **self.logged())
                self._end_early()
            else:
                self._failed(error)
        finally:
            if self._recording.processing is not None:
                self._recording.done()

    def _end_early(self) -> None:
        """It was told to end, and has, whatever it made of that.

        Raises:
            CancelledError: this worker stops, and another one has it from its beginning.
        """
        if self.cancelled is None and not self.leaving:
            self._recording.handed_over()
            raise asyncio.CancelledError
        self.refuse()

    def _failed(self, error: BaseException) -> None:
        """Answer with what `execute`, a policy or an input raised."""
        trace = self._recording.trace_id
        match error:
            case Invalid():
                body = problem(error.status, error.detail, errors=error.errors, trace=trace)
                self._fail(body, None)
            case Reject():
                self._fail(problem(error.status, error.detail, trace=trace), None)
            case NoSuchPeer():
                self._fail(problem(peers.NO_PEER, str(error), trace=trace), None)
            case NotStored():
                self._fail(problem(NO_WORKER, str(error), trace=trace), error)
            case _:
                told = f"{type(error).__name__}: {error}" if self.tools.dev else "execute failed"
                self._fail(problem(500, told, trace=trace), error)

    async def _admitted(self) -> dict[str, Any]:
        """Ask the policies and check the inputs, once for a connection; the arguments of `execute`.

        Raises:
            Reject: it is not to be.
        """
        assert self.flow.signature is not None or self.work.kind in (Kind.CHECK, Kind.ADMIT)
        ctx = self._ctx = self._context()
        subject: Any = None
        if self.work.kind in (Kind.OPEN, Kind.CHECK, Kind.ADMIT):
            subject = await policies.admit(
                self.flow.trigger.policies, ctx, self.tools.in_thread, self.tools.policy_timeout
            )
        signature = self.flow.signature if self.work.kind is not Kind.ADMIT else None
        arguments = signature.connection_arguments(ctx) if signature is not None else {}
        if self.work.kind is not Kind.MESSAGE:
            self._say(envelope.accepted(subject_id(subject) or "", subject))
        elif signature is not None:
            arguments |= signature.message_argument(self._message(self.work))
        return arguments

    async def _execute(self, arguments: dict[str, Any]) -> None:
        function = self.flow.execute
        assert function is not None, "routes without a function are served by edges alone"
        self._heed()
        result = await calling.call(function, arguments, self.tools.in_thread)
        self._heed()
        items: AsyncIterator[Any] | None = None
        if type(result) not in calling.PLAIN and isinstance(result, AsyncIterable):
            items = aiter(result)
        elif type(result) not in calling.PLAIN and isinstance(result, Iterator):
            items = calling.in_threads(result, self.tools.in_thread)
        if items is not None:
            self._streams = True
            await calling.drive(items, self._emit, self._stopped)
            self._heed()
        elif self._is_plain_reply(result):
            await self._reply(result, Answer.RESULT)
            return
        else:
            await self._emit(result)
        if self.inbox is not None:
            self.inbox.finish()
        self._say(bytes([Answer.DONE]))

    def _stopped(self) -> bool:
        """Whether it was told to end before its end."""
        return self.cancelled is not None or self.leaving or self._stopping

    def _heed(self) -> None:
        """See that what swallowed its cancellation does not count as done.

        Raises:
            CancelledError: it was told to end.
        """
        if self._stopped():
            raise asyncio.CancelledError

    def _message(self, work: Work) -> Message[Any]:
        assert self._ctx is not None
        # Only policies find a subject: without them there is nothing to decode.
        subject = self._ctx.subject if self.flow.trigger.policies else None
        return Message(work.type, work.data, self.connection, work.id, subject)

    def _context(self) -> WS | SSE:
        common: dict[str, Any] = {
            "topic": self.topic if self.route.topic else "",
            "channel": Channel(self.channel, self._emit, self.inbox),
            "connection": self.connection,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "trace_id": self._recording.trace_id,
            "encoded": self.work.context,
        }
        if self.route.transport == "websocket":
            return WS(**common)
        return SSE(**common, body=self.work.data)

    @property
    def sender(self) -> str:
        """What others see as `from`: the subject's id, or else the connection's."""
        if self.flow.trigger.policies and self._ctx is not None:
            return subject_id(self._ctx.subject) or self.connection
        return self.connection

    # What the client says

    def received(self, number: int, work: Work) -> None:
        """The next message for a connection's run."""
        if self.inbox is not None and self._ctx is not None:
            self.inbox.put(number, self._message(work), work)

    def drop(self, number: int) -> None:
        """The client does not want a message read any more."""
        if self.inbox is not None and self.inbox.drop(number):
            self._say(envelope.counted(Answer.DROPPED, number))

    def _done_with(self, number: int) -> None:
        self._say(envelope.counted(Answer.READ, number))

    # Items

    def _is_plain_reply(self, result: Any) -> bool:
        """Whether the result is the only item and goes to the sender: one NATS message, not two."""
        if isinstance(result, Reply):
            return result.data is not None
        if result is None or isinstance(result, Broadcast | Direct | Event):
            return False
        return self.route.deliver == "sender"

    async def _emit(self, item: Any) -> None:
        """Send one item where it, or else the trigger's `deliver`, says."""
        if item is None:
            return
        match item:
            case Reply():
                await self._reply(item, Answer.ITEM)
            case Broadcast(data, exclude_self):
                await self._broadcast(data, self.connection if exclude_self else "")
            case Direct(to, data):
                await self._direct(to, data)
            case Event():
                await self._event(item)
            case _ if self.route.deliver == "sender":
                await self._reply(item, Answer.ITEM)
            case _:
                others = self.route.deliver == "others"
                await self._broadcast(item, self.connection if others else "")
        if self._streams and (processing := self._recording.processing) is not None:
            processing.said()

    async def _reply(self, item: Any, answer: Answer) -> None:
        data = item.data if isinstance(item, Reply) else item
        if data is None:
            return
        data_type, encoded = _encoded(data)
        said = envelope.item(answer, data_type, encoded)
        await self._say_in_turn(said, len(said))

    async def _event(self, item: Event) -> None:
        if self.route.transport != "sse":
            raise TypeError("Event is for SSE; on a websocket send its data")
        fields = {"event": item.event, "retry": item.retry, "comment": item.comment}
        meta: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        if item.data is None:
            meta["empty"] = True
        data_type, encoded = _encoded("" if item.data is None else item.data)
        # What the client is sent is never less; what `meta` takes here it may not take there.
        size = 1 + len(encoded) + len(item.comment or "")
        await self._say_in_turn(envelope.event(meta, data_type, encoded), size)

    async def _broadcast(self, data: Any, exclude: str) -> None:
        if data is None:
            return
        if not self.route.topic:
            raise TypeError(f"{self.route.label} has no topic to broadcast to")
        await self._before_a_word()
        data_type, encoded = _encoded(data)
        headers = {"Fl-Type": str(data_type), "Fl-From": self.sender}
        if exclude:
            headers["Fl-Exclude"] = exclude
        hop = self._recording.publishing(len(encoded))
        if hop is None:
            await self._publish(encoded, headers)
            return
        with hop.ending():
            await self._publish(encoded, {**headers, "traceparent": str(hop.parent)})

    async def _publish(self, encoded: bytes, headers: dict[str, str]) -> None:
        """Say an item in the room; returns when it is stored, in a room with history.

        Raises:
            NotStored: it is not.
        """
        bus = self.tools.bus
        self.tally.published += 1
        subject = bus.subjects.log(self.topic, self.channel)
        if self.tools.history.get(self.route.topic):
            ids = self._ids = self._ids or ItemIds(self)
            headers["Nats-Msg-Id"] = ids.next(subject, encoded)
            stored = await storing.store(bus, subject, encoded, headers)
            self.tools.tally.duplicates += stored.duplicate
        else:
            await bus.ready()
            bus.publish(subject, encoded, headers=headers)

    async def _direct(self, to: str, data: Any) -> None:
        if not self.route.topic:
            raise TypeError(f"{self.route.label} has no topic in which {to!r} could be reached")
        await self._before_a_word()
        data_type, encoded = _encoded(data)
        bus = self.tools.bus
        payload = envelope.direct(self.topic, self.sender, data_type, encoded)
        hop = self._recording.publishing(len(encoded), direct=True)
        if hop is None:
            await peers.reach(bus, self.topic, to, payload, None)
            return
        try:
            await peers.reach(bus, self.topic, to, payload, {"traceparent": str(hop.parent)})
        except NoSuchPeer:
            hop.refuse(peers.NO_PEER)
            raise
        finally:
            hop.end()

    # Words to the edge

    def refuse(self) -> None:
        """Say why it ends before its end: it was cancelled, or another worker is to run it."""
        if self.leaving:
            self._recording.handed_over()
            self._say(bytes([Answer.LEFT]))
        else:
            self._fail(problem(CANCELLED, "cancelled"), None)

    def cancel(self, silent: bool = False) -> None:
        """End it; `finally` blocks run, and then it answers, unless it is to be silent."""
        if self.cancelled is None:
            self.cancelled = asyncio.get_running_loop().time()
        self.silent = self.silent or silent
        if self.task is not None:
            self.task.cancel()

    def hand_over(self) -> None:
        """End it here, to be opened elsewhere: this worker stops."""
        self.leaving = True
        if self.task is not None:
            self.task.cancel()

    def stop(self) -> None:
        """This worker stops now: `finally` blocks run, and another worker has it next."""
        if self.inbox is not None:
            self.hand_over()
        elif self.task is not None:
            self._stopping = True
            self.task.cancel()

    def break_off(self) -> None:
        """An error of ours ended it without an answer: its edge would send it again, without end."""
        self._say(envelope.error(problem(500, "execute failed", trace=self._recording.trace_id)))

    async def give_up(self) -> None:
        """It does not stop: let another worker have it, and be silent from now on."""
        log.warning("a run does not stop, though it was cancelled; it is given up", **self.logged())
        self.given_up = True
        if self.leaving:
            self._say(bytes([Answer.LEFT]))
        self.silent = True

    def abandon(self) -> None:
        """Its edge is gone, and the client with it: go on only where that makes sense."""
        if self.inbox is not None or self._ends_with_its_client:
            self.cancel(silent=True)
        else:
            self.silent = self._abandoned = True
            self.pay(self._owed)

    @property
    def _ends_with_its_client(self) -> bool:
        return self.route.transport == "sse" and self.route.on_disconnect == "cancel"

    def adopt(self, attempt: int, reply: str) -> None:
        """A newer attempt is this one, which has said nothing yet. Args: reply: where it answers."""
        self.attempt, self.reply, self.doubted = attempt, reply, False
        hop, receive = self._recording.hop_now(), parent_of(self.work.trace)
        if hop is not None and receive is not None:
            hop.set("fairlead.attempt", attempt)
            hop.link(receive)

    def announce(self, worker: str) -> None:
        """Tell the edge who has it."""
        self.announced = True
        self._say(envelope.taken(worker))

    def pay(self, size: int) -> None:
        """The client has read so many bytes of what was sent to it."""
        self._owed = max(0, self._owed - size)
        if self._paid is not None:
            self._paid.set()

    async def _say_in_turn(self, answer: bytes, size: int) -> None:
        """Send an item to the client, when it has read enough of those before.

        Args:
            size: bytes that are owed for it; as many or more will be paid, or the run would
                stand still one day.
        """
        await self._before_a_word()
        self.tally.items += 1
        if self._abandoned:
            self._nobody_reads()
            return
        while self._owed >= CREDIT:
            # One for all tasks of the run that wait: who pays wakes each of them.
            self._paid = self._paid or asyncio.Event()
            self._paid.clear()
            await self._paid.wait()
        self._owed += size
        if not self.announced:
            # A client may cancel what it has heard of: its edge must know whom to tell.
            self.announce(self.tools.bus.options.process)
        self._say(answer)
        if self.tools.bus.congested:
            await self.tools.bus.drained()

    def _nobody_reads(self) -> None:
        """A message's answers for its sender alone end with the sender; a stream goes on."""
        if self.route.transport == "websocket":
            self.cancelled = asyncio.get_running_loop().time()
            raise asyncio.CancelledError

    async def _trusted(self) -> None:
        """Return if this attempt is still the one that counts, else end it."""
        if self.doubted and not await self._still_wanted():
            self.cancelled, self.silent = asyncio.get_running_loop().time(), True
            raise asyncio.CancelledError

    async def _before_a_word(self) -> None:
        await self._trusted()
        if self.given_up:
            await asyncio.Event().wait()  # not an error: it would swallow that, too, and go on
        if not self.tools.bus.connected:
            await self.tools.bus.ready()
        self.emitted = True

    async def _still_wanted(self) -> bool:
        """Ask the edge whether this attempt is the one it waits for.

        An edge that is gone asks nobody else, so the message is executed here.
        """
        for _ in range(3):
            asked = self.reply
            try:
                ask = bytes([Answer.ASK])
                wanted = await self.tools.bus.request(asked, ask, within=2.0) == b"1"
            except NoResponders:
                wanted = True
            except TimeoutError:
                continue
            if self.reply != asked:
                return (
                    True  # it was adopted meanwhile: the newer attempt is what its edge waits for
                )
            self.doubted = False
            self.silent = not wanted
            return wanted
        self.silent = True
        return False

    def _say(self, answer: bytes) -> None:
        if not self.silent:
            self.tools.bus.publish(self.reply, answer)

    def _fail(self, body: dict[str, Any], error: BaseException | None) -> None:
        self.outcome = "refused" if error is None else "failed"
        self._recording.failed(body["status"], error)
        if error is not None:
            errorfeed.report(error, self.route.label, self._recording.trace_id)
            _failed(exc_info=error, **self.logged())
        answer = envelope.error(body)
        if len(answer) > HEADROOM:  # deep places, all of them named
            answer = envelope.error({name: body[name] for name in body if name != "errors"})
        self._say(answer)


def _cancelled_itself() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _encoded(data: Any) -> tuple[DataType, bytes]:
    if isinstance(data, Message):
        return data.type, data.raw
    return values.encode(data)
