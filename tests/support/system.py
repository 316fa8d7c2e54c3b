"""The system of `fairlead.testing` as our own tests use it, and what is below its clients: bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fairlead.testing import system as kit
from fairlead.testing.clients import V1, Events
from fairlead.testing.program import DEADLINE, SLOWER
from fairlead.testing.system import CONFIG, Edge, NatsServer, Process, Worker
from fairlead.testing.waiting import request, until, until_ready

__all__ = [
    "CONFIG", "V1", "Edge", "Events", "NatsServer", "Process", "Worker",
    "request", "until", "until_ready",
]  # fmt: skip

PROJECTS = Path(__file__).parents[1] / "system" / "projects"

MS = 0.001 * SLOWER

LIMITED = f"""{CONFIG}
accounts {{{{ APP: {{{{
  jetstream: {{{{ max_file: 1GB }}}}, users: [ {{{{ user: app, password: app }}}} ]
}}}} }}}}
no_auth_user: app
"""
"""For `NatsServer`: the account has a limit of its own, as in production."""


class System(kit.System):
    """An app whose workers run what is in tests/system/projects."""

    async def worker(
        self,
        target: str = "everything.py",
        *flags: str,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> Worker:
        """Start a worker of one of them, or of any TARGET with a slash."""
        path = target if "/" in target else str(PROJECTS / target)
        return await super().worker(path, *flags, env=env, ready=ready)


@asynccontextmanager
async def nats_server(folder: Path, config: str = CONFIG) -> AsyncIterator[NatsServer]:
    """A nats-server of the test's own, to be killed, or configured wrongly."""
    server = NatsServer(folder, config)
    try:
        await server.start()
        yield server
    finally:
        server.close()


@asynccontextmanager
async def system(nats: NatsServer, cwd: Path) -> AsyncIterator[System]:
    """An app of its own on a nats-server."""
    with kit.system(nats, cwd, System) as made:
        yield made


@asynccontextmanager
async def everything(nats: NatsServer, cwd: Path) -> AsyncIterator[System]:
    """An app with one edge and one worker of everything.py, for the tests of a whole module."""
    async with system(nats, cwd) as app:
        _, edge = await asyncio.gather(app.worker(), app.edge())
        # The edge may have been ready, with no routes, before the worker was.
        await edge.serves("/support/stream/value")
        yield app


@asynccontextmanager
async def edge_and_worker(nats: NatsServer, cwd: Path) -> AsyncIterator[tuple[Edge, Worker]]:
    """The two of `everything`."""
    async with everything(nats, cwd) as app:
        yield app.edges[0], app.workers[0]


@asynccontextmanager
async def upgraded(
    edge: Edge, path: str, *, receive_buffer: int | None = None, subprotocol: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket on bare TCP, after the handshake: the test writes and reads the bytes.

    Args:
        receive_buffer: bytes that the kernel may take for a client that does not read.
    """
    reader, writer = await connected(edge, receive_buffer)
    try:
        lines = [f"GET {path} HTTP/1.1", "Host: test", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        lines += [f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(DEADLINE):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield reader, writer
    finally:
        await cut(writer)


async def connected(
    edge: Edge, receive_buffer: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection whose kernel takes no more than about so many bytes unread."""
    made = socket.socket()
    made.setblocking(False)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Segments as over Ethernet: with loopback's of 64 KiB the edge's kernel takes megabytes.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", edge.port))
    return await asyncio.open_connection(sock=made, limit=receive_buffer or 2**16)


async def cut(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection at once; what was not sent is dropped."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(first byte: FIN and opcode, payload) of the next frame of a server."""
    async with asyncio.timeout(DEADLINE):
        first, size = await reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2))
        elif size == 127:
            size = int.from_bytes(await reader.readexactly(8))
        return first, await reader.readexactly(size)


def resident(process: Process) -> int:
    """Bytes of memory that a process has in RAM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
