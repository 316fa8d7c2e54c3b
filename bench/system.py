"""The system under test: a real nats-server, an edge and a worker, each its own process."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import START_WITHIN, Child, Failed, program
from bench.wire import ECHO, KEPT, PLAIN
from fairlead.dev.nats_server import executable

WORKLOAD = "bench/workload.py"

_NATS_CONF = """\
listen: "127.0.0.1:-1"
max_payload: 2097152
ports_file_dir: {folder}
jetstream {{ store_dir: {store} }}
"""

_LOOK_EVERY = 0.02
"""Seconds between two looks whether something is ready."""

_apps = itertools.count(1)


@dataclass(frozen=True)
class Nats:
    """A nats-server; all systems of one run of the suite share it, each with an app of its own."""

    child: Child
    port: int

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


@contextmanager
def nats_server() -> Generator[Nats]:
    """A nats-server with an empty store, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as name:
        folder = Path(name)
        conf = folder / "nats.conf"
        store = json.dumps(str(folder / "jetstream"))
        conf.write_text(_NATS_CONF.format(folder=json.dumps(name), store=store))
        with program("nats", [executable(), "--config", str(conf)]) as child:
            yield Nats(child, _port_of(child, folder))


def _port_of(child: Child, folder: Path) -> int:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        for file in folder.glob("*.ports"):
            try:
                return int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])
            except ValueError:
                continue  # half written
        time.sleep(_LOOK_EVERY)
    raise child.failure("does not listen")


@dataclass(frozen=True)
class Setup:
    """How to start edge and worker.

    Attributes:
        env: for both; tracing is off unless it says otherwise.
        before: what python runs before `-m fairlead`, by role: a profiler, for example.
    """

    env: Mapping[str, str] = field(default_factory=lambda: {"OTEL_SDK_DISABLED": "true"})
    before: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """One edge and one worker that serve `workload.py`.

    Attributes:
        port: where clients connect. admin_ports: the edge's, and the worker's.
    """

    app: str
    nats: Nats
    edge: Child
    worker: Child
    port: int
    admin_ports: tuple[int, int]

    @property
    def processes(self) -> tuple[Child, ...]:
        return self.edge, self.worker, self.nats.child


@contextmanager
def system(nats: Nats, setup: Setup | None = None) -> Generator[System]:
    """A system that is ready: the worker takes messages, the edge serves its routes.

    Raises:
        Failed: it does not become ready.
    """
    setup = setup or Setup()
    app = f"bench{os.getpid()}-{next(_apps)}"
    common = ["--nats", nats.url, "--app", app, "--admin-port", "0"]
    with ExitStack() as stack:

        def start(role: str, *flags: str) -> Child:
            before = setup.before.get(role, ["-m", "fairlead"])
            argv = [sys.executable, *before, role, *flags, *common]
            return stack.enter_context(program(role, argv, setup.env))

        worker = start("worker", WORKLOAD)
        edge = start("edge", "--port", "0", "--drain-grace", "2")
        admin = edge.logs("admin port")["port"]
        port = edge.logs("listens on")["port"]
        worker_admin = worker.logs("admin port")["port"]
        until_status(worker, worker_admin, "/readyz", 200)
        until_status(edge, admin, "/readyz", 200)
        for path in (ECHO, PLAIN, KEPT):
            until_status(edge, port, path, 426)
        yield System(app, nats, edge, worker, port, (admin, worker_admin))


def until_status(child: Child, port: int, path: str, wanted: int) -> None:
    """Wait until a GET is answered with a status."""
    found: object = None
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_WITHIN)
        try:
            connection.request("GET", path)
            found = connection.getresponse().status
        except OSError as error:
            found = error
        finally:
            connection.close()
        if found == wanted:
            return
        if child.process.poll() is not None:
            raise child.failure("has ended")
        time.sleep(_LOOK_EVERY)
    raise Failed(f"{child.name} answers {path} with {found}, expected {wanted}")
