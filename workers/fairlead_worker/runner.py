"""One run: call `execute`, and say on NATS what it returns or yields.

Nothing here knows how work arrives or when a worker stops; that is `hands.py` and
`serve.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import functools
import hashlib
import inspect
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
)
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from fairlead import errorfeed, logs, storing, telemetry, values
from fairlead.bus import Bus, NoResponders
from fairlead.context import (
    SSE,
    WS,
    Broadcast,
    Channel,
    Direct,
    Event,
    Message,
    Reply,
    subject_id,
)
from fairlead.errors import BadName, Invalid, NoSuchPeer, NotStored, Reject
from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, NO_WORKER, problem
from fairlead.protocol.subjects import CONNECTION_SEPARATOR
from fairlead.telemetry import Hop, Tracing, new_trace_id, parent_of
from fairlead.workflow import Workflow
from fairlead_worker import policies, spans
from fairlead_worker.inbox import Inbox
from fairlead_worker.spans import Processing
from fairlead_worker.tally import Outcome, WorkerTally

log = logs.get("fairlead.worker")
_failed = logs.Seldom(log.error, "execute failed", ["workflow"], burst=100)

CREDIT = 256 * 1024
"""Bytes that a run may have on their way to a client that has not read them."""

_PLAIN = frozenset({type(None), str, bytes, int, float, bool, dict, list, Message})
"""What is no iterator to be driven, known without asking an abstract class (1 µs)."""

NO_PEER = 404
"""Status of the error that a `NoSuchPeer` is to a client."""

PEER_WITHIN = 2.0
"""Seconds in which the edge of a `direct` peer must answer."""

STUBBORN = 10.0
"""Seconds that a cancelled run may take for its `finally`; then it is cancelled again."""

TURN = 64
"""Items after which others on the loop have their turn, whatever a generator does."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a worker uses."""

    bus: Bus
    threads: Executor
    tracing: Tracing | None
    history: dict[str, bool]  # topic template → whether its rooms are stored
    dev: bool
    policy_timeout: float  # seconds
    tally: WorkerTally


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
        self.given_up = False
        self.task: asyncio.Task[None] | None = None
        self.inbox: Inbox | None = None
        if route.run == "connection" and work.kind not in (Kind.CHECK, Kind.ADMIT):
            self.inbox = Inbox(self._trusted, self._done_with)
        self._ctx: WS | SSE | None = None
        self._abandoned = False
        self._room_items = 0
        self._items_of = 0  # the message of which `_room_items` counts
        self._items = 0
        self._owed = 0
        self._paid: asyncio.Event | None = None
        self._processing: Processing | None = None  # what is traced of what is worked on now
        self._streams = route.transport == "sse"  # whether it says items, one by one
        self._trace_id = ""

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

    @property
    def trace_id(self) -> str:
        """Of the trace, or of the log lines where there is none."""
        if self.inbox is not None and self._processing is not None:
            return self._processing.hop.parent.trace_id  # of the message in hand
        if not self._trace_id:
            parent = parent_of(self.work.trace)
            self._trace_id = parent.trace_id if parent else new_trace_id()
        return self._trace_id

    def logged(self) -> dict[str, Any]:
        """What stands on each line of the log that is about this run."""
        return {
            "workflow": self.route.label,
            "connection": self.connection,
            "run": self.run_id,
            "attempt": self.attempt,
            "trace_id": self.trace_id,
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
            self._trace()
            arguments = await self._admitted()
            if self.inbox is not None:
                self._processed()  # it is open; no span lasts as long as a connection
            if self.work.kind in (Kind.CHECK, Kind.ADMIT):
                self._say(bytes([Answer.DONE]))
            else:
                await self._execute(arguments)
        except asyncio.CancelledError:
            if self.cancelled is None and not self.leaving:
                self._left_open()
                raise  # the process ends: another worker takes it up
            self.refuse()
        except Invalid as error:
            self._fail(
                problem(error.status, error.detail, errors=error.errors, trace=self.trace_id), None
            )
        except Reject as error:
            self._fail(problem(error.status, error.detail, trace=self.trace_id), None)
        except NoSuchPeer as error:
            self._fail(problem(NO_PEER, str(error), trace=self.trace_id), None)
        except NotStored as error:
            self._fail(problem(NO_WORKER, str(error), trace=self.trace_id), error)
        except Exception as error:  # user code: the one place that guards the process from it
            told = f"{type(error).__name__}: {error}" if self.tools.dev else "execute failed"
            self._fail(problem(500, told, trace=self.trace_id), error)
        finally:
            if self._processing is not None:
                self._processed()

    # What is recorded

    def _trace(self, previous: str = "") -> None:
        """Record it from here on, if it is sampled. Args: previous: trace of the attempt before."""
        tracing, inbox = self.tools.tracing, self.inbox
        if tracing is None or self._processing is not None:
            return
        self._processing = spans.process(tracing, self, self.work, previous)
        if inbox is not None:
            inbox.on_taken, inbox.on_done = self._took, self._processed
            telemetry.follow(self._hop_now)
        elif self._processing is not None:
            self._processing.hop.activate()

    def _hop_now(self) -> Hop | None:
        return None if self._processing is None else self._processing.hop

    def _took(self, work: Work) -> None:
        """The run of a connection reads a message: a trace that ends when it asks for the next."""
        assert self.tools.tracing is not None
        self._processed()  # two may read at once; then the one before is done with
        self._processing = spans.process(self.tools.tracing, self, work)

    def _processed(self) -> None:
        processing, self._processing = self._processing, None
        if processing is not None:
            processing.end()

    def _left_open(self) -> None:
        """It ends here before its end, and goes on elsewhere."""
        if self._processing is not None:
            self._processing.hop.event("handed over")

    def _publishing(self, size: int, direct: bool = False) -> Hop | None:
        """The span of something that goes to others, if that is sampled.

        What a run of a connection says by itself, and not of a message, begins a trace.
        """
        tracing = self.tools.tracing
        if self._processing is not None:
            return self._processing.publish(self, size, direct)
        if tracing is None or not self._speaks_by_itself or not tracing.sampled(None):
            return None
        return spans.publish(tracing, self, None, size, direct)

    @property
    def _speaks_by_itself(self) -> bool:
        return self.inbox is not None and not self.inbox.in_hand

    def _broken(self) -> Processing | None:
        """Where it is recorded that the run of a connection has raised, outside of any message."""
        if self.tools.tracing is None or self.inbox is None:
            return None
        return spans.process(self.tools.tracing, self, self.work, kind="run")

    # On with it

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
                self.flow.trigger.policies, ctx, self._in_thread, self.tools.policy_timeout
            )
        signature = self.flow.signature if self.work.kind is not Kind.ADMIT else None
        arguments = signature.connection_arguments(ctx) if signature is not None else {}
        if self.work.kind is not Kind.MESSAGE:
            self._say(envelope.accepted(subject_id(subject) or "", subject))
        elif signature is not None:
            arguments |= signature.message_argument(self._message(self.work))
        return arguments

    async def _execute(self, arguments: dict[str, Any]) -> None:
        result = await self._call(arguments)
        if type(result) not in _PLAIN and isinstance(result, AsyncIterable):
            await self._drive(aiter(result))
        elif type(result) not in _PLAIN and isinstance(result, Iterator):
            await self._drive(_in_threads(result, self._in_thread))
        elif self._is_plain_reply(result):
            await self._reply(result, Answer.RESULT)
            return
        else:
            await self._emit(result)
        if self.inbox is not None:
            self.inbox.finish()
        self._say(bytes([Answer.DONE]))

    async def _call(self, arguments: dict[str, Any]) -> Any:
        """What `execute` returns; a plain function runs in a thread."""
        function = self.flow.execute
        assert function is not None, "routes without a function are served by edges alone"
        if _runs_on_the_loop(function):
            result = function(**arguments)
        else:
            result = await self._in_thread(functools.partial(function, **arguments))
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, call: Any) -> Any:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.tools.threads, context.run, call)

    async def _drive(self, items: AsyncIterator[Any]) -> None:
        """Send what an iterator yields; a `NoSuchPeer` is raised where it was yielded."""
        self._streams = True
        try:
            step = items.__anext__()
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                if self.cancelled is not None or self.leaving:
                    raise asyncio.CancelledError  # it was told once, and took no notice
                try:
                    await self._emit(item)
                    await self._others_turn()
                    step = items.__anext__()
                except NoSuchPeer as error:
                    if not isinstance(items, AsyncGenerator):
                        raise
                    step = items.athrow(error)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _others_turn(self) -> None:
        """A generator that never waits must not hold the loop."""
        self._items += 1
        if self._items % TURN == 0:
            await asyncio.sleep(0)

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
            "trace_id": self.trace_id,
            "encoded": self.work.context,
        }
        if self.route.transport == "websocket":
            return WS(**common)
        return SSE(**common, body=self.work.data)

    @property
    def _sender(self) -> str:
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
        if self._streams and self._processing is not None:
            self._processing.said()

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
        headers = {"Fl-Type": str(data_type), "Fl-From": self._sender}
        if exclude:
            headers["Fl-Exclude"] = exclude
        hop = self._publishing(len(encoded))
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
            headers["Nats-Msg-Id"] = self._message_id(subject, encoded)
            stored = await storing.store(bus, subject, encoded, headers)
            self.tools.tally.duplicates += stored.duplicate
        else:
            await bus.ready()
            bus.publish(subject, encoded, headers=headers)

    def _message_id(self, subject: str, data: bytes) -> str:
        """The same for each attempt at this item, so that the stream stores it once.

        A hash, since ids are known per stream, which holds many rooms.
        """
        self._room_items += 1
        name = f"{subject}\n{self._cause()}\n{self._room_items}"
        digest = hashlib.sha256(name.encode())
        if self.inbox is not None:
            # Another attempt may say something else here, from another source: that is no repeat.
            digest.update(data)
        return base64.b85encode(digest.digest()[:15]).decode()

    def _cause(self) -> str:
        """What an item of a room comes of: of that, the item's number counts.

        The client's own id counts per room and subject, whatever connection it comes through;
        without one the connection and its message's number stand for it.
        """
        if self.inbox is None:
            return self._said(self.work.id) or f"at {self.connection} {self.message}"
        read = self.inbox.in_hand
        if read != self._items_of:
            self._items_of, self._room_items = read, 1
        if read and self.inbox.message is not None and self.inbox.message.id:
            return self._said(self.inbox.message.id)
        return f"in {self.connection} {read or f'attempt {self.attempt}'}"

    def _said(self, id: str) -> str:
        """A client's message by its own id; "" without one."""
        who = self._sender if self._sender != self.connection else ""
        return f"id {who} {id}" if id else ""

    async def _direct(self, to: str, data: Any) -> None:
        if not self.route.topic:
            raise TypeError(f"{self.route.label} has no topic in which {to!r} could be reached")
        await self._before_a_word()
        data_type, encoded = _encoded(data)
        payload = envelope.direct(self.topic, self._sender, data_type, encoded)
        hop = self._publishing(len(encoded), direct=True)
        if hop is None:
            await self._reach(to, payload, None)
            return
        try:
            await self._reach(to, payload, {"traceparent": str(hop.parent)})
        except NoSuchPeer:
            hop.refuse(NO_PEER)
            raise
        finally:
            hop.end()

    async def _reach(self, to: str, payload: bytes, headers: dict[str, str] | None) -> None:
        """Give a peer what is for it alone.

        Raises:
            NoSuchPeer: nobody has it.
        """
        bus = self.tools.bus
        ways = [bus.subjects.peer(self.topic, to)]
        with contextlib.suppress(BadName):
            ways.insert(0, bus.subjects.connection(to))
        for way in ways:
            try:
                if await bus.request(way, payload, within=PEER_WITHIN, headers=headers) == b"1":
                    return
            except (NoResponders, TimeoutError):
                continue
        raise NoSuchPeer(to)

    # Words to the edge

    def refuse(self) -> None:
        """Say why it ends before its end: it was cancelled, or another worker is to run it."""
        if self.leaving:
            self._left_open()
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
            self.task.cancel()

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
        hop, receive = self._hop_now(), parent_of(self.work.trace)
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
            self._paid = asyncio.Event()
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
            try:
                ask = bytes([Answer.ASK])
                wanted = await self.tools.bus.request(self.reply, ask, within=2.0) == b"1"
            except NoResponders:
                wanted = True
            except TimeoutError:
                continue
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
        processing = self._processing
        if processing is None and error is not None:
            processing = self._processing = self._broken()
        if processing is not None:
            processing.failed(body["status"], error)
        if error is not None:
            errorfeed.report(error, self.route.label, self.trace_id)
            _failed(exc_info=error, **self.logged())
        self._say(envelope.error(body))


@functools.cache
def _runs_on_the_loop(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _encoded(data: Any) -> tuple[DataType, bytes]:
    if isinstance(data, Message):
        return data.type, data.raw
    return values.encode(data)


async def _in_threads(items: Iterator[Any], in_thread: Any) -> AsyncGenerator[Any]:
    """A plain iterator as an async one: each step runs in a thread.

    Nothing can cancel a step, so what is cancelled meanwhile is closed when that is over.
    """
    ended, turn = object(), threading.Lock()

    def in_turn(call: Callable[[], Any]) -> Any:
        with turn:
            return call()

    step = functools.partial(next, items, ended)
    try:
        while (item := await in_thread(functools.partial(in_turn, step))) is not ended:
            step = functools.partial(next, items, ended)
            try:
                yield item
            except NoSuchPeer as error:
                if not isinstance(items, Generator):
                    raise
                step = functools.partial(_throw, items, error, ended)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await in_thread(functools.partial(in_turn, close))


def _throw(items: Generator[Any], error: Exception, ended: object) -> Any:
    try:
        return items.throw(error)
    except StopIteration:
        return ended
