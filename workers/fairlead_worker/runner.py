"""One run: call `execute`, and say on NATS what it returns or yields.

Nothing here knows how work arrives or when a worker stops; that is `hands.py` and
`serve.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import functools
import hashlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from fairlead import values
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
)
from fairlead.errors import BadName, NoSuchPeer, NotStored, Reject
from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, DataType, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, NO_WORKER, problem
from fairlead.telemetry import Hop, Tracing, new_trace_id, parent_of
from fairlead.workflow import Workflow

log = logging.getLogger("fairlead.worker")

CREDIT = 256 * 1024
"""Bytes that a run may have on their way to a client that has not read them."""

_PLAIN = frozenset({type(None), str, bytes, int, float, bool, dict, list, Message})
"""What is no iterator to be driven, known without asking an abstract class (1 µs)."""

PEER_WITHIN = 2.0
"""Seconds in which the edge of a `direct` peer must answer."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a worker uses."""

    bus: Bus
    threads: Executor
    tracing: Tracing | None
    history: dict[str, bool]  # topic template → whether its rooms are stored
    dev: bool


class Run:
    """One attempt at one message or open, in this worker's hands.

    Attributes:
        key: its name in beats and control messages.
        reply: NATS subject of its answers.
        announced: whether the edge was told who has it.
        doubted: the loop stood still meanwhile: ask the edge before the next word.
        cancelled: whether the client, or a newer attempt, ended it.
        emitted: whether anything was said to the client or the room.
    """

    def __init__(
        self, tools: Tools, route: Route, flow: Workflow, work: Work, subject: str, reply: str,
        answer: tuple[str, int, int],
    ) -> None:  # fmt: skip
        self.tools = tools
        self.route = route
        self.flow = flow
        self.work = work
        self.reply = reply
        self.connection, self.message, self.attempt = answer
        self.topic, self.channel = tools.bus.subjects.room_of_inbound(subject)
        self.born = asyncio.get_running_loop().time()
        self.announced = False
        self.doubted = False
        self.cancelled = False
        self.silent = False
        self.emitted = False
        self.task: asyncio.Task[None] | None = None
        self._room_items = 0
        self._owed = 0
        self._paid: asyncio.Event | None = None
        self._hop: Hop | None = None
        self._trace_id = ""

    @property
    def key(self) -> str:
        return envelope.key(self.connection, self.message, self.attempt)

    @property
    def run_id(self) -> str:
        """The same over all attempts."""
        return f"{self.connection}-{self.message}"

    @property
    def trace_id(self) -> str:
        """Of the trace, or of the log lines where there is none."""
        if not self._trace_id:
            parent = parent_of(self.work.trace)
            self._trace_id = parent.trace_id if parent else new_trace_id()
        return self._trace_id

    # The way through a run

    async def carry_out(self) -> None:
        """Execute and answer; returns when the last answer is on its way.

        A cancelled run answers with 499, unless it is `silent` (taken over elsewhere).
        """
        try:
            if self.doubted and not await self._still_wanted():
                return
            if self.work.kind is envelope.Kind.OPEN:
                self.announce(self.tools.bus.options.process)
            self._open_span()
            await self._execute()
        except asyncio.CancelledError:
            if not self.cancelled:
                raise  # the process ends: another worker takes it up
            self.refuse()
        except Reject as error:
            self._fail(problem(error.status, error.detail, trace=self.trace_id), None)
        except NoSuchPeer as error:
            self._fail(problem(404, str(error), trace=self.trace_id), None)
        except NotStored as error:
            self._fail(problem(NO_WORKER, str(error), trace=self.trace_id), error)
        except Exception as error:  # user code: the one place that guards the process from it
            told = f"{type(error).__name__}: {error}" if self.tools.dev else "execute failed"
            self._fail(problem(500, told, trace=self.trace_id), error)
        finally:
            if self._hop is not None:
                self._hop.end()

    def _open_span(self) -> None:
        parent = parent_of(self.work.trace)
        if self.tools.tracing is None or parent is None or not parent.sampled:
            return
        self._hop = self.tools.tracing.start(
            f"process {self.route.name}",
            "consumer",
            parent,
            {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.template": self.route.name,
                "messaging.message.body.size": len(self.work.data),
                "fairlead.workflow": self.route.label,
                "fairlead.attempt": self.attempt,
                "fairlead.queue.wait": max(0.0, time.time() - self.work.sent),
            },
        )
        self._hop.activate()

    async def _execute(self) -> None:
        result = await self._call()
        if type(result) not in _PLAIN and isinstance(result, AsyncIterable):
            await self._drive(aiter(result))
        elif type(result) not in _PLAIN and isinstance(result, Generator):
            await self._drive(_in_threads(result, self._in_thread))
        elif self._is_plain_reply(result):
            await self._reply(result, Answer.RESULT)
            return
        else:
            await self._emit(result)
        self._say(bytes([Answer.DONE]))

    async def _call(self) -> Any:
        """What `execute` returns; a plain function runs in a thread."""
        function = self.flow.execute
        assert function is not None, "routes without a function are served by edges alone"
        arguments = {name: self._argument(role) for name, role in self.flow.arguments}
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
        try:
            step = items.__anext__()
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    await self._emit(item)
                    step = items.__anext__()
                except NoSuchPeer as error:
                    if not isinstance(items, AsyncGenerator):
                        raise
                    step = items.athrow(error)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    def _argument(self, role: str) -> WS | SSE | Message:
        if role == "message":
            return Message(self.work.type, self.work.data, self.connection, self.work.id)
        common: dict[str, Any] = {
            "topic": self.topic if self.route.topic else "",
            "channel": Channel(self.channel, self._emit),
            "connection": self.connection,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "trace_id": self.trace_id,
            "encoded": self.work.context,
        }
        if self.route.transport == "websocket":
            return WS(**common)
        return SSE(**common, body=self.work.data)

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
        bus = self.tools.bus
        subject = bus.subjects.log(self.topic, self.channel)
        headers = {"Fl-Type": str(data_type), "Fl-From": self.connection}
        if exclude:
            headers["Fl-Exclude"] = exclude
        hop = self._publish_span()
        if hop is not None:
            headers["traceparent"] = str(hop.parent)
        try:
            self._room_items += 1
            if self.tools.history.get(self.route.topic):
                headers["Nats-Msg-Id"] = self._message_id(subject)
                await bus.store(subject, encoded, headers)
            else:
                await bus.ready()
                bus.publish(subject, encoded, headers=headers)
        finally:
            if hop is not None:
                hop.end()

    def _publish_span(self) -> Hop | None:
        if self._hop is None or self.tools.tracing is None:
            return None
        return self.tools.tracing.start(
            f"publish {self.route.topic}",
            "producer",
            self._hop.parent,
            {
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.template": self.route.topic,
                "fairlead.attempt": self.attempt,
            },
        )

    def _message_id(self, subject: str) -> str:
        """The same for each attempt at this item, so that the stream stores it once.

        The client's own id counts per room, whatever connection it comes through; without
        one the connection and its message's number stand for it. A hash, since ids are
        known per stream, which holds many rooms.
        """
        who = f"id {self.work.id}" if self.work.id else f"at {self.connection} {self.message}"
        name = f"{subject}\n{who}\n{self._room_items}"
        return base64.b85encode(hashlib.sha256(name.encode()).digest()[:15]).decode()

    async def _direct(self, to: str, data: Any) -> None:
        if not self.route.topic:
            raise TypeError(f"{self.route.label} has no topic in which {to!r} could be reached")
        await self._before_a_word()
        data_type, encoded = _encoded(data)
        payload = envelope.direct(self.topic, self.connection, data_type, encoded)
        try:
            subject = self.tools.bus.subjects.connection(to)
            answer = await self.tools.bus.request(subject, payload, within=PEER_WITHIN)
        except (BadName, NoResponders, TimeoutError) as error:
            raise NoSuchPeer(to) from error
        if answer != b"1":
            raise NoSuchPeer(to)

    # Words to the edge

    def refuse(self) -> None:
        """Answer that it was cancelled."""
        self._fail(problem(CANCELLED, "cancelled"), None)

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
        while self._owed >= CREDIT:
            self._paid = asyncio.Event()
            await self._paid.wait()
        self._owed += size
        self._say(answer)
        if self.tools.bus.congested:
            await self.tools.bus.drained()

    async def _before_a_word(self) -> None:
        if self.doubted and not await self._still_wanted():
            self.cancelled = self.silent = True
            raise asyncio.CancelledError
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
        if error is not None:
            fields = {"workflow": self.route.label, "connection": self.connection}
            fields |= {"run": self.run_id, "trace_id": self.trace_id}
            log.error("%s failed", self.route.label, exc_info=error, extra=fields)
            if self._hop is not None:
                self._hop.fail(error)
        self._say(envelope.error(body))


@functools.cache
def _runs_on_the_loop(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _encoded(data: Any) -> tuple[DataType, bytes]:
    if isinstance(data, Message):
        return data.type, data.raw
    return values.encode(data)


async def _in_threads(items: Generator[Any], in_thread: Any) -> AsyncGenerator[Any]:
    """A plain generator as an async one: each step runs in a thread."""
    ended = object()
    step = functools.partial(next, items, ended)
    try:
        while (item := await in_thread(step)) is not ended:
            step = functools.partial(next, items, ended)
            try:
                yield item
            except NoSuchPeer as error:
                step = functools.partial(_throw, items, error, ended)
    finally:
        await in_thread(items.close)


def _throw(items: Generator[Any], error: Exception, ended: object) -> Any:
    try:
        return items.throw(error)
    except StopIteration:
        return ended
