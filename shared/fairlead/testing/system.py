"""The real system for tests: nats-server, edges and workers as processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import websockets

from fairlead.dev import ports
from fairlead.dev.nats_server import MAX_PAYLOAD, executable
from fairlead.testing import clients
from fairlead.testing.clients import V1, Events
from fairlead.testing.program import Program, running
from fairlead.testing.waiting import request, until, until_ready

_apps = itertools.count(1)

# Whatever tracing the developer has set up is not the tests' business.
_QUIET = {"OTEL_SDK_DISABLED": "true"}


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
        """SIGSTOP: it is there and does nothing, until `thaw`."""
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
    """An edge, and clients of it.

    Attributes:
        port: where clients connect; admin_port: /readyz, /publish.
    """

    port: int
    admin_port: int

    def ws(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def admin(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin_port}{path}"

    def raw(self, path: str, **options: Any) -> websockets.connect:
        """A raw WebSocket client; `async with edge.raw("/…") as client`.

        Args:
            options: of `websockets.connect`, such as `additional_headers`.
        """
        return clients.raw(self.ws(path), **options)

    def v1(self, path: str, **options: Any) -> AbstractAsyncContextManager[V1]:
        """A `fairlead.v1` client; its welcome has been read. The options are those of `raw`."""
        return clients.v1(self.ws(path), **options)

    def events(self, path: str, **options: Any) -> AbstractAsyncContextManager[Events]:
        """An SSE stream, cut at the end of the block.

        Args:
            options: `method`, `body` (bytes) and `headers`.
        """
        return clients.events(self.port, path, **options)

    async def serves(self, path: str) -> None:
        """Wait until a GET of this path is no 404: the edge has read the worker's routes."""

        async def found() -> bool:
            return (await request(self.http(path), method="HEAD"))[0] != 404

        await until(found, f"{path} is served")

    async def readyz(self) -> tuple[int, dict[str, Any]]:
        status, _, body = await request(self.admin("/readyz"))
        return status, json.loads(body)


class Worker(Process):
    """A worker.

    Attributes:
        admin_port: /readyz, /publish.
    """

    admin_port: int


CONFIG = f"""
listen: 127.0.0.1:{{port}}
max_payload: {MAX_PAYLOAD}
jetstream {{{{ store_dir: "{{store}}" }}}}
"""


class NatsServer:
    """A real nats-server on a port of its own; it can be killed and started again.

    Args:
        folder: for its configuration and its store, which a restart finds again.
        config: a format string with `port` and `store`.
    """

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self._folder = folder
        self._config = config
        self.port = ports.free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: Process | None = None
        self._stack = ExitStack()

    async def start(self) -> None:
        """Start it; returns when it serves."""
        await asyncio.to_thread(self.launch)

    def launch(self) -> None:
        """`start`, for those who have no event loop."""
        self._folder.mkdir(parents=True, exist_ok=True)
        store = self._folder / "jetstream"
        path = self._folder / "nats.conf"
        path.write_text(self._config.format(port=self.port, store=store))
        program = self._stack.enter_context(running([executable(), "-c", str(path)], self._folder))
        self.process = Process(program)
        program.wait_for("Server is ready")

    async def stop(self) -> None:
        """SIGTERM; the store stays, a `start` serves it again on the same port."""
        assert self.process is not None
        await self.process.stop()

    def close(self) -> None:
        """Kill it if it still runs."""
        self._stack.close()


class System:
    """One app: start edges and workers of it; all of them end with the test.

    Attributes:
        nats: the server it runs on, maybe with other apps.
        app: its name there; `fairlead.connect(system.nats.url, app=system.app)`.
        edges, workers: those that were started, in order.
    """

    def __init__(self, stack: ExitStack, nats: NatsServer, app: str, cwd: Path) -> None:
        self._stack = stack
        self.nats = nats
        self.app = app
        self.cwd = cwd
        self.edges: list[Edge] = []
        self.workers: list[Worker] = []

    async def run(self, target: str, *, edges: int = 1, workers: int = 1) -> list[Edge]:
        """Start edges and workers of a project.

        Args:
            target: as `fairlead worker` takes it: module:attr or path/file.py[:attr], seen from
                the folder that pytest was started in.

        Returns:
            The edges, once each of them serves every route of the project.
        """
        made, started = await asyncio.gather(
            asyncio.gather(*(self.worker(target) for _ in range(workers))),
            asyncio.gather(*(self.edge() for _ in range(edges))),
        )
        for worker in made[:1]:  # they are of one build
            build = (await _said(worker, "worker serves"))["build"]
            for edge in started:
                await edge.says(f"routes are served.*{build}")
        return started

    async def edge(
        self, *flags: str, env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Edge:
        """Start an edge; returns when it is ready to serve, or (ready=False) when it listens."""
        edge = Edge(self.start("edge", "--port", "0", "--admin-port", "0", *flags, env=env).program)
        edge.admin_port = (await _said(edge, "admin port"))["port"]
        edge.port = (await _said(edge, "listens on"))["port"]
        if ready:
            await until_ready(edge.admin("/readyz"))
        self.edges.append(edge)
        return edge

    async def worker(
        self, target: str, *flags: str, env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Worker:
        """Start a worker of a project; returns when it takes work, or (ready=False) at once."""
        worker = Worker(self.start("worker", target, "--admin-port", "0", *flags, env=env).program)
        if ready:
            worker.admin_port = (await _said(worker, "admin port"))["port"]
            await until_ready(f"http://127.0.0.1:{worker.admin_port}/readyz")
        self.workers.append(worker)
        return worker

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        """Start any command of `fairlead` on this app; returns at once."""
        ours = {"FAIRLEAD_NATS": self.nats.url, "FAIRLEAD_APP": self.app}
        told = [sys.executable, "-m", "fairlead", *argv]
        whole = {**_QUIET, **ours, **(env or {})}
        return Process(self._stack.enter_context(running(told, self.cwd, whole)))


async def _said(process: Process, line: str) -> dict[str, Any]:
    """Wait for a line of its log; the fields."""
    return dict(json.loads(await process.says(f".*{line}.*")))


S = TypeVar("S", bound=System)


@contextmanager
def system(nats: NatsServer, cwd: Path, kind: type[S]) -> Generator[S]:
    """An app of its own on a nats-server; its processes end with the block.

    Args:
        kind: `System`, or a subclass with what your tests do again and again.
    """
    with ExitStack() as stack:
        yield kind(stack, nats, f"test{os.getpid()}-{next(_apps)}", cwd)
