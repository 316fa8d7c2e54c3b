"""A TCP line to an edge or to NATS, to be cut, to be deaf, and to lead elsewhere: a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

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

    def __init__(self, edge: End) -> None:
        self.port = 0
        self.edge = edge
        self.deaf = False
        self.passing = asyncio.Event()
        self.passing.set()
        self._ends: list[asyncio.StreamWriter] = []

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.edge.port)
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
            await cut(writer)

    async def cut(self) -> None:
        """End what is open, at once; who comes after it is heard and hears."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.transport.abort()
        self.deaf = False
        for end in ends:
            await cut(end)


@asynccontextmanager
async def line_to(edge: End) -> AsyncIterator[Line]:
    async with served(Line(edge)) as line:
        yield line


@asynccontextmanager
async def served(line: Line) -> AsyncIterator[Line]:
    """A line that clients can call."""
    server = await asyncio.start_server(line.pass_on, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        await line.cut()
