"""Raw WebSocket clients that cost next to nothing: bytes compared with bytes, no objects a frame.

On two cores the generator shares the machine with what it measures. A member of a room
knows beforehand all bytes that it is going to receive, so receiving is one comparison a
read, however many messages are in it, and proves count, order and content at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from array import array
from collections.abc import Callable
from typing import TypeVar, cast

from bench import wire

OPENING_AT_ONCE = 64
"""Handshakes that are under way at a time."""

OPEN_WITHIN = 60.0
"""Seconds for one handshake; the edge may be busy with the others."""

now_ns = time.monotonic_ns


class RawClient(asyncio.Protocol):
    """A raw WebSocket: the handshake, pings, and whatever a subclass makes of the rest.

    Attributes:
        opened: done with None after the 101, else with the error.
        cut: whether the other side has closed it.
    """

    transport: asyncio.Transport

    def __init__(self, path: str) -> None:
        self._upgrade = wire.upgrade(path)
        self._head = b""
        self._open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        if self._open:
            self.received(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            self._refused(ConnectionError(head.partition(b"\r\n")[0].decode("latin-1")))
            return
        self._open, self._head = True, b""
        self.opened.set_result(None)
        if rest:
            self.received(rest)

    def received(self, data: bytes) -> None:
        """Bytes after the handshake."""
        raise NotImplementedError

    def control(self, frame: wire.Parsed) -> bool:
        """Handle a frame that is no message; False if it is one."""
        if frame.opcode == wire.PING:
            self.transport.write(wire.client_frame(frame.data, wire.PONG))
        elif frame.opcode == wire.CLOSE:
            self.cut = True
        return frame.opcode >= wire.CLOSE

    def connection_lost(self, exc: Exception | None) -> None:
        self.cut = True
        self._refused(exc or ConnectionError("closed in the handshake"))

    def _refused(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)


C = TypeVar("C", bound=RawClient)


async def open_all(port: int, make: Callable[[int], C], count: int) -> list[C]:
    """Open `count` connections to a port of 127.0.0.1.

    Raises:
        OSError: the first that was refused, by its status line.
    """
    places = asyncio.Semaphore(OPENING_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one(index: int) -> C:
        async with places, asyncio.timeout(OPEN_WITHIN):
            _, client = await loop.create_connection(lambda: make(index), "127.0.0.1", port)
            await client.opened
            return client

    return list(await asyncio.gather(*map(one, range(count))))


class Crowd:
    """The members of one room, and how far they have come.

    Args:
        total: messages that will be sent, in all phases.
        record: keep the time of each receipt.

    Attributes:
        arrivals: ns of the monotonic clock by message, None unless recorded.
        last: that of the last message that completed a member's phase.
        wrong: what was received and should not have been, a few examples.
    """

    def __init__(self, total: int, record: bool) -> None:
        self.stream = wire.stream(total)
        self.arrivals = [array("q") for _ in range(total)] if record else None
        self.members: list[Member] = []
        self.last = 0
        self.wrong: list[str] = []
        self.target = 0
        self._missing = 0
        self._done = asyncio.Event()

    def aim(self, count: int) -> None:
        """The phase that begins ends when each member has `count` messages in all."""
        self.target = count * wire.FRAME
        self._missing = sum(member.position < self.target for member in self.members)
        self._done.clear()
        if not self._missing:
            self._done.set()

    def reached(self) -> None:
        """A member has come to the target."""
        self.last = now_ns()
        self._missing -= 1
        if not self._missing:
            self._done.set()

    def failed(self, what: str | None) -> None:
        """A member was cut off or told something wrong: the phase can't succeed."""
        if what is not None and len(self.wrong) < 5:
            self.wrong.append(what)
        self._done.set()

    async def finish(self, within: float) -> bool:
        """Wait for the end of the phase; whether every member has every message."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._done.wait()
        return not self._missing and not self.wrong and not self.cut

    @property
    def cut(self) -> int:
        """How many members were cut off."""
        return sum(member.cut for member in self.members)

    def latencies(self, first: int, sent: list[int]) -> list[int]:
        """ns from each publish to each receipt; nothing if they were not recorded.

        Args:
            sent: when messages `first`, `first` + 1, … were published, on the same clock.
        """
        found: list[int] = []
        if self.arrivals is not None:
            for arrived, at in zip(self.arrivals[first:], sent, strict=False):
                found += [arrival - at for arrival in arrived]
        return found


class Member(RawClient):
    """A member of a room: it has received the first `position` bytes of the crowd's stream."""

    def __init__(self, path: str, crowd: Crowd) -> None:
        super().__init__(path)
        self._crowd = crowd
        self._rest = b""
        self.position = 0

    def received(self, data: bytes) -> None:
        crowd = self._crowd
        before = self.position
        if not self._rest and crowd.stream.startswith(data, before):
            self.position = before + len(data)
        else:
            self._take_apart(data)
        if crowd.arrivals is not None:
            at = now_ns()
            for number in range(before // wire.FRAME, self.position // wire.FRAME):
                crowd.arrivals[number].append(at)
        if before < crowd.target <= self.position:
            crowd.reached()

    def _take_apart(self, data: bytes) -> None:
        """Frame by frame, for there is something else between the messages: a ping, or a fault."""
        stream = self._crowd.stream
        boundary = self.position - self.position % wire.FRAME
        buffer = self._rest or stream[boundary : self.position]
        buffer += data
        while (frame := wire.parse(buffer)) is not None:
            raw, buffer = buffer[: frame.size], buffer[frame.size :]
            if self.control(frame):
                continue
            if stream[boundary : boundary + wire.FRAME] == raw:
                boundary += wire.FRAME
            else:
                number = boundary // wire.FRAME
                self._crowd.failed(f"instead of message {number}: {frame.data[:40]!r}")
        if stream.startswith(buffer, boundary):
            self.position, self._rest = boundary + len(buffer), b""
        else:
            self.position, self._rest = boundary, buffer

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._crowd.failed(None)


class Conversation:
    """What the callers of an echo share.

    Attributes:
        latencies: ns of each round trip since `measure`.
        wrong: answers that were not what was sent, a few examples.
        running: whether a caller goes on after an answer.
    """

    def __init__(self) -> None:
        self.latencies = array("q")
        self.wrong: list[str] = []
        self.running = True

    def measure(self) -> None:
        """Forget the warm-up."""
        del self.latencies[:]


class Caller(RawClient):
    """Sends a message, waits for exactly that one to come back, sends the next.

    Attributes:
        sent: messages so far.
        waiting: whether the last one has no answer yet.
    """

    _HEAD = wire.client_frame(wire.payload(0))[: -wire.SIZE]
    _ANSWER = wire.server_frame(wire.payload(0))[: -wire.SIZE]

    def __init__(self, path: str, conversation: Conversation, index: int) -> None:
        super().__init__(path)
        self._conversation = conversation
        self._first = index * 10_000_000
        self.sent = 0
        self._expected = b""
        self._rest = b""
        self._sent_at = 0
        self.waiting = False

    def call(self) -> None:
        """Send the next message."""
        self.sent += 1
        data = wire.payload(self._first + self.sent)
        self._expected = self._ANSWER + data
        self.waiting = True
        self._sent_at = now_ns()
        self.transport.write(self._HEAD + data)

    def received(self, data: bytes) -> None:
        if data == self._expected and not self._rest:
            self._answered()
            return
        self._rest += data
        while (frame := wire.parse(self._rest)) is not None:
            raw, self._rest = self._rest[: frame.size], self._rest[frame.size :]
            if self.control(frame):
                continue
            if raw == self._expected:
                self._answered()
            elif len(self._conversation.wrong) < 5:
                self._conversation.wrong.append(f"{self._expected[-128:-110]!r}: {raw[:60]!r}")

    def _answered(self) -> None:
        self._expected = b""
        self.waiting = False
        self._conversation.latencies.append(now_ns() - self._sent_at)
        if self._conversation.running:
            self.call()
