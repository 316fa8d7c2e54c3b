"""A TCP line to an edge or to NATS, to be cut, to be deaf, and to lead elsewhere: a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from support.system import cut


class End(Protocol):
    """Where a line leads to."""

    @property
    def port(self) -> int: ...


class Nowhere:
    """Where nobody listens: a server that is away."""

    port = 1


class Line:
    """Passes bytes on, both ways.

    Attributes:
        port: where a client finds it.
        edge: where it leads to; a test may let it lead elsewhere, as a balancer does.
        deaf: the client hears nothing any more, though it is heard.
        passing: answers pass; while it is cleared they wait here, for a client that may go meanwhile.
    """

    host = "127.0.0.1"

    def __init__(self, edge: End) -> None:
        self.port = 0
        self.edge = edge
        self.deaf = False
        self.passing = asyncio.Event()
        self.passing.set()
        self._ends: list[asyncio.StreamWriter] = []

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ws(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.edge.port)
        except OSError:
            await cut(writer)
            return
        self._ends += [writer, far_writer]
        await asyncio.gather(
            self._copy(reader, far_writer, answers=False),
            self._copy(far_reader, writer, answers=True),
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if answers:
                    await self.passing.wait()
                if not (answers and self.deaf):
                    writer.write(data)
        await cut(writer)  # also where one end was reset, as that of a killed process is

    async def cut(self) -> None:
        """End what is open, at once; who comes after it is heard and hears."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.transport.abort()
        self.deaf = False
        for end in ends:
            await cut(end)


class LongLine(Line):
    """A line to another host, over a long way: what is said takes `delay` seconds to be heard, each way.

    While `passing` is cleared nothing arrives at either end; it arrives later, in its order.
    """

    AHEAD = 256
    """Pieces under way, at most; then the sender is not read, as by a line whose buffers are full."""

    def __init__(self, end: End, host: str, delay: float) -> None:
        super().__init__(end)
        self.host = host
        self._delay = delay

    async def stall(self, seconds: float) -> None:
        """Let nothing arrive for a while."""
        self.passing.clear()
        await asyncio.sleep(seconds)
        self.passing.set()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(self.AHEAD)

        async def leave() -> None:
            data = b"-"
            while data:
                data = await reader.read(65536)
                await way.put((loop.time() + self._delay, data))

        async def arrive() -> None:
            data = b"-"
            while data:
                due, data = await way.get()
                await asyncio.sleep(due - loop.time())
                await self.passing.wait()
                writer.write(data)
                await writer.drain()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(leave())
                group.create_task(arrive())
        except* OSError:  # one end is gone, and so the other is cut
            pass
        await cut(writer)


@asynccontextmanager
async def line_to(edge: End) -> AsyncIterator[Line]:
    async with served(Line(edge)) as line:
        yield line


SomeLine = TypeVar("SomeLine", bound=Line)


@asynccontextmanager
async def served(line: SomeLine, host: str = "127.0.0.1") -> AsyncIterator[SomeLine]:
    """A line that clients can call, at this address of ours."""
    server = await asyncio.start_server(line.pass_on, host, 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        await line.cut()
