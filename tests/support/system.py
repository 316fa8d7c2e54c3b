"""The real system for tests: nats-server, edges and workers as processes, clients on sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from fairlead.dev import ports
from support.program import DEADLINE, Program, running

PROJECTS = Path(__file__).parents[1] / "system" / "projects"

MS = 0.001 * float(os.environ.get("FAIRLEAD_TESTS_SLOWER", "1"))

_apps = itertools.count(1)


def nats_executable() -> str:
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, "nats-server is missing; `make test` installs it"
    return found


class Process:
    """One process of the system.

    Attributes:
        program: its output, one JSON line per event.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def pid(self) -> int:
        return self.program.process.pid

    def kill(self) -> None:
        """SIGKILL: no farewell."""
        self.program.send(signal.SIGKILL)

    def freeze(self) -> None:
        self.program.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.program.send(signal.SIGCONT)

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.program.send(signal.SIGTERM)
        return await asyncio.to_thread(self.program.ended)

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        return await asyncio.to_thread(self.program.ended)

    async def says(self, pattern: str, after: int = 0) -> str:
        """Wait for a line of its log; the match."""
        return (await asyncio.to_thread(self.program.wait_for, pattern, after))[0]


class Edge(Process):
    port: int
    admin_port: int

    def ws(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def admin(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin_port}{path}"

    def raw(self, path: str, **options: Any) -> websockets.connect:
        """A raw WebSocket client; `async with edge.raw("/...") as client`."""
        return websockets.connect(self.ws(path), compression=None, **options)

    @asynccontextmanager
    async def v1(self, path: str, **options: Any) -> AsyncIterator[V1]:
        """A `fairlead.v1` client; its welcome has been read."""
        connecting = websockets.connect(
            self.ws(path), subprotocols=[websockets.Subprotocol("fairlead.v1")],
            compression=None, **options,
        )  # fmt: skip
        async with connecting as socket:
            client = V1(socket)
            client.welcome = await client.next()
            yield client

    async def serves(self, path: str) -> None:
        """Wait until a GET of this path is no 404: the edge has read the worker's routes."""

        async def found() -> bool:
            return (await request(self.http(path), method="HEAD"))[0] != 404

        await until(found, f"{path} is served")

    async def readyz(self) -> tuple[int, dict[str, Any]]:
        status, _, body = await request(self.admin("/readyz"))
        return status, json.loads(body)


class Worker(Process):
    admin_port: int


class V1:
    """A client of `fairlead.v1`, frame by frame.

    Attributes:
        welcome: the first frame.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}
        self._refs = itertools.count(1)

    @property
    def id(self) -> str:
        return str(self.welcome["connection"])

    async def next(self) -> dict[str, Any]:
        """The next frame, within the deadline."""
        async with asyncio.timeout(DEADLINE):
            frame = await self.socket.recv()
        assert isinstance(frame, str), "fairlead.v1 is text frames"
        found: dict[str, Any] = json.loads(frame)
        return found

    async def until(self, type: str, **members: Any) -> dict[str, Any]:
        """The next frame of a type that has these members; others are passed over."""
        while True:
            frame = await self.next()
            if frame["type"] == type and members.items() <= frame.items():
                return frame

    async def each(self, *types: str) -> list[dict[str, Any]]:
        """One frame of each of these types, in whatever order they come: the room's own copy
        of a message may be before or after its ack."""
        found: dict[str, dict[str, Any]] = {}
        while len(found) < len(types):
            frame = await self.next()
            if frame["type"] in types:
                found.setdefault(frame["type"], frame)
        return [found[type] for type in types]

    async def send(self, data: Any, **members: Any) -> int:
        """Send a message; its ref."""
        ref = next(self._refs)
        frame = {"type": "message", "ref": ref, "data": data, **members}
        await self.socket.send(json.dumps(frame))
        return ref

    async def say(self, **frame: Any) -> None:
        """Send any frame."""
        await self.socket.send(json.dumps(frame))


class System:
    """One app: start edges and workers of it; all of them end with the test."""

    def __init__(self, stack: AsyncExitStack, nats: NatsServer, app: str, cwd: Path) -> None:
        self._stack = stack
        self.nats = nats
        self.app = app
        self.cwd = cwd

    async def edge(
        self, *flags: str, env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Edge:
        """Start an edge; returns when it is ready to serve, or (ready=False) when it listens."""
        edge = Edge(self._start("edge", "--port", "0", "--admin-port", "0", *flags, env=env))
        edge.admin_port = await _port(edge, "admin port")
        edge.port = await _port(edge, "listens on")
        if ready:
            await until_ready(edge.admin("/readyz"))
        return edge

    async def worker(
        self,
        project: str = "everything.py",
        *flags: str,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> Worker:
        """Start a worker of a project in tests/system/projects, or of any TARGET with a slash."""
        target = project if "/" in project else str(PROJECTS / project)
        worker = Worker(self._start("worker", target, "--admin-port", "0", *flags, env=env))
        if ready:
            worker.admin_port = await _port(worker, "admin port")
            await until_ready(f"http://127.0.0.1:{worker.admin_port}/readyz")
        return worker

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        """Start any command of `fairlead` on this app; returns at once."""
        return Process(self._start(*argv, env=env))

    def _start(self, *argv: str, env: Mapping[str, str] | None) -> Program:
        told = [sys.executable, "-m", "fairlead", *argv, "--nats", self.nats.url, "--app", self.app]
        return self._stack.enter_context(running(told, self.cwd, {**_QUIET, **(env or {})}))


# Whatever tracing the developer has set up is not the tests' business.
_QUIET = {"OTEL_SDK_DISABLED": "true"}


class NatsServer:
    """A real nats-server on a port of its own; it can be killed and started again."""

    def __init__(self, folder: Path, config: str) -> None:
        self._folder = folder
        self._config = config
        self.port = ports.free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: Process | None = None
        self._stack = contextlib.ExitStack()

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        store = self._folder / "jetstream"
        path = self._folder / "nats.conf"
        path.write_text(self._config.format(port=self.port, store=store))
        program = self._stack.enter_context(
            running([nats_executable(), "-c", str(path)], self._folder)
        )
        self.process = Process(program)
        await self.process.says("Server is ready")

    async def stop(self) -> None:
        """SIGTERM; the store stays, a `start` serves it again on the same port."""
        assert self.process is not None
        await self.process.stop()

    def close(self) -> None:
        self._stack.close()


CONFIG = """
listen: 127.0.0.1:{port}
max_payload: 2097152
jetstream {{ store_dir: "{store}" }}
"""


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
    async with AsyncExitStack() as stack:
        yield System(stack, nats, f"test{os.getpid()}-{next(_apps)}", cwd)


@asynccontextmanager
async def edge_and_worker(nats: NatsServer, cwd: Path) -> AsyncIterator[tuple[Edge, Worker]]:
    """One edge and one worker of everything.py, for the tests of a whole module."""
    async with system(nats, cwd) as app:
        worker, edge = await asyncio.gather(app.worker(), app.edge())
        # The edge may have been ready, with no routes, before the worker was.
        await edge.serves("/support/stream/value")
        yield edge, worker


async def _port(process: Process, line: str) -> int:
    await process.says(line)
    found = next(json.loads(each) for each in process.program.lines if line in each)
    return int(found["port"])


async def request(
    url: str,
    data: bytes | None = None,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers in lower case, body) of a plain HTTP request."""

    def ask() -> tuple[int, dict[str, str], bytes]:
        asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(asked, timeout=DEADLINE) as answer:
                return answer.status, _lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), error.read()

    return await asyncio.to_thread(ask)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def until_ready(url: str) -> None:
    """Wait until a /readyz answers 200."""

    async def ready() -> bool:
        try:
            return (await request(url))[0] == 200
        except OSError:
            return False

    await until(ready, f"{url} is ready")


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a (maybe async) condition holds; the deadline names it."""
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                holds = condition()
                if asyncio.iscoroutine(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(10 * MS)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE:g} s: {what}") from None


class Events:
    """An SSE response, event by event, over a socket of its own.

    Attributes:
        status: of the answer; headers: in lower case.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = b""

    @classmethod
    async def open(
        cls, edge: Edge, path: str, *, method: str = "GET", body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Events:  # fmt: skip
        """Send the request and read the answer's head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        events = cls(reader, writer)
        async with asyncio.timeout(DEADLINE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.split("\r\n")
        events.status = int(first.split()[1])
        events.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in rest if line)
        }
        return events

    async def bytes(self) -> bytes:
        """The next event as it stands on the wire, up to its blank line; b"" at the end."""
        while b"\n\n" not in self._buffer:
            async with asyncio.timeout(DEADLINE):
                size = int((await self._reader.readline()).strip() or b"0", 16)
                if size == 0:
                    return b""
                self._buffer += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
        event, _, self._buffer = self._buffer.partition(b"\n\n")
        return event + b"\n\n"

    async def next(self) -> dict[str, str]:
        """The next event's fields; comments are under ""."""
        fields: dict[str, str] = {}
        for line in (await self.bytes()).decode().rstrip("\n").splitlines():
            name, _, value = line.partition(": ")
            fields[name] = fields[name] + "\n" + value if name in fields else value
        return fields

    async def close(self) -> None:
        """Cut the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def events(edge: Edge, path: str, **options: Any) -> AsyncIterator[Events]:
    """An SSE stream that is cut at the end of the block."""
    stream = await Events.open(edge, path, **options)
    try:
        yield stream
    finally:
        await stream.close()


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
