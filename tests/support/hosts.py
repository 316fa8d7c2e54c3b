"""Fairlead as it stands in production, on one machine: each process on a host of its own (network.py),
three nats-servers, HAProxy with the configuration of `deploy/` before the edges, and clients behind it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import nats

from fairlead.dev.nats_server import executable
from fairlead.testing.program import Program, running
from support.network import Host, Network, network
from support.system import PROJECTS, Edge, Process, Worker, request, until, until_ready

T = TypeVar("T")

NATS = ("nats-1", "nats-2", "nats-3")
HAPROXY = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
NAMES = str(Path(__file__).parent / "names.py")
MOST_EDGES = 4

CONFIG = """
server_name: {name}
port: 4222
max_payload: 2097152
jetstream {{ store_dir: "{store}", max_file_store: 1GB, max_memory_store: 64MB }}
cluster {{ name: hosts, port: 6222, routes: [ {routes} ], no_advertise: true }}
ping_interval: "2s"
"""

ENV = {
    "FAIRLEAD_APP": "hosts",
    # A host that is cut off takes its work with it for longer than a user would wait.
    "FAIRLEAD_WORKER_WAIT": "60s",
    "OTEL_SDK_DISABLED": "true",
}


class PlacedEdge(Edge):
    """An edge on a host of its own. Attributes: host."""

    host: Host
    port = 8000
    admin_port = 8001

    def ws(self, path: str) -> str:
        return f"ws://{self.host.address}:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://{self.host.address}:{self.port}{path}"

    def admin(self, path: str) -> str:
        return f"http://{self.host.address}:{self.admin_port}{path}"


class PlacedWorker(Worker):
    """A worker on a host of its own. Attributes: host."""

    host: Host
    admin_port = 8001


class Door(Protocol):
    """Where clients connect."""

    def ws(self, path: str) -> str: ...

    def http(self, path: str) -> str: ...


class Front:
    """The balancer, as clients see it."""

    port = 8000

    def __init__(self, host: Host) -> None:
        self.host = host

    def ws(self, path: str) -> str:
        return f"ws://{self.host.address}:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://{self.host.address}:{self.port}{path}"


class Hosts:
    """All of them.

    Attributes:
        edges, workers, nats: what runs, by the name of its host.
        front: where clients connect; app: as `support.proof` knows one.
    """

    app = "hosts"

    def __init__(self, net: Network, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._names = folder / "names"  # what `edge` stands for, as names.py tells it
        names = [f"edge-{n}" for n in range(1, MOST_EDGES + 1)]
        self.net = net
        for name in (*NATS, *names, *(f"worker-{n}" for n in range(1, 7)), "balancer", "client"):
            net.host(name)
        self.edges: dict[str, PlacedEdge] = {}
        self.workers: dict[str, PlacedWorker] = {}
        self.nats: dict[str, Process] = {}
        self.front = Front(net.hosts["balancer"])
        self._balancer: Program | None = None

    @property
    def url(self) -> str:
        """Of all NATS servers."""
        return ",".join(f"nats://{self.net.hosts[name].address}:4222" for name in NATS)

    def call(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the clients' host."""
        return self.net.hosts["client"].call(what)

    def _run(self, host: Host, *argv: str, env: dict[str, str] | None = None) -> Program:
        told = [*host.prefix, *argv]
        return self._stack.enter_context(running(told, self._folder, env))

    def _fairlead(self, host: Host, *argv: str, nats: str = "") -> Program:
        env = {**ENV, "FAIRLEAD_NATS": nats or self.url}
        return self._run(host, sys.executable, "-m", "fairlead", *argv, env=env)

    async def start(self, edges: int, workers: int) -> None:
        """Returns when clients are served."""
        await asyncio.gather(*(self.start_nats(name) for name in NATS))
        await until(self._has_a_leader, "JetStream has a leader")
        await self.scale(edges, workers)
        await self._start_balancer()

    def _has_a_leader(self) -> bool:
        said = (line for process in self.nats.values() for line in process.program.lines)
        return any("new metadata leader" in line for line in said)

    async def scale(self, edges: int, workers: int) -> None:
        """Have at least so many."""
        missing_edges = range(len(self.edges) + 1, edges + 1)
        missing_workers = range(len(self.workers) + 1, workers + 1)
        await asyncio.gather(
            *(self.start_edge(f"edge-{n}") for n in missing_edges),
            *(self.start_worker(f"worker-{n}") for n in missing_workers),
        )

    async def start_nats(self, name: str) -> None:
        host, folder = self.net.hosts[name], self._folder / name
        folder.mkdir(exist_ok=True)
        routes = ", ".join(f'"nats://{self.net.hosts[each].address}:6222"' for each in NATS)
        path = folder / "nats.conf"
        path.write_text(CONFIG.format(name=name, store=folder / "store", routes=routes))
        program = self._run(host, executable(), "-c", str(path))
        self.nats[name] = Process(program)
        await asyncio.to_thread(program.wait_for, "Server is ready")

    async def start_edge(self, name: str, nats: str = "") -> PlacedEdge:
        """Args: nats: where it finds NATS, if that is not where everybody does."""
        host = self.net.hosts[name]
        both = ("--host", host.address, "--admin-host", host.address)
        edge = PlacedEdge(self._fairlead(host, "edge", *both, nats=nats))
        edge.host = host
        await until_ready(edge.admin("/readyz"))
        await edge.serves("/logs/v1/large")
        self.edges[name] = edge
        self._names.write_text("\n".join(edge.host.address for edge in self.edges.values()))
        return edge

    async def start_worker(self, name: str) -> None:
        host = self.net.hosts[name]
        told = ("--admin-host", host.address, "--admin-port", "8001", "--replicas", "3")
        worker = PlacedWorker(self._fairlead(host, "worker", str(PROJECTS / "logs.py"), *told))
        worker.host = host
        await until_ready(f"http://{host.address}:8001/readyz")
        self.workers[name] = worker

    async def _start_balancer(self) -> None:
        """HAProxy as `deploy/` has it; it finds the edges by their name, as in a container."""
        host = self.front.host
        names = self._run(host, sys.executable, NAMES, host.address, str(self._names))
        await asyncio.to_thread(names.wait_for, "names are told")
        resolv = self._folder / "resolv.conf"
        resolv.write_text(f"nameserver {host.address}\n")
        path = self._folder / "haproxy.cfg"
        # This machine may let a process open fewer files than a container is given.
        path.write_text(HAPROXY.read_text().replace("maxconn 16000", "maxconn 4000"))
        # A mount of its own: the machine's name server stays what it is.
        script = f"mount --bind {resolv} /etc/resolv.conf && exec haproxy -db -f {path}"
        self._run(host, "unshare", "--mount", "sh", "-c", script)
        await until(self._serves, "the balancer has found an edge")

    async def _serves(self) -> bool:
        try:
            return (await request(self.front.http("/logs/v1/large")))[0] == 426
        except OSError:
            return False

    async def leader(self, stream: str) -> str:
        """Which server leads a stream."""
        client = await nats.connect(self.url.split(","))
        try:
            info = await client.jetstream().stream_info(stream)
            assert info.cluster is not None and info.cluster.leader is not None
            return info.cluster.leader
        finally:
            await client.close()


@contextmanager
def hosts(folder: Path) -> Generator[Hosts]:
    """The hosts, with nothing running yet."""
    with network() as net, ExitStack() as stack:
        yield Hosts(net, stack, folder)
