"""`python -m bench.scaling`: what a message and a delivery cost with more edges, more workers, more members.

On a machine whose cores the load uses up, more processes cannot be faster; what can be seen is whether each
message and each delivery still costs the same, and how many messages NATS passes on for one of a room. The
table is that of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from bench.processes import START_WITHIN, Child, Failed, Meter, helper, program
from bench.system import WORKLOAD, until_status
from bench.wire import ECHO, KEPT, PLAIN
from fairlead.dev import ports
from fairlead.dev.nats_server import executable

_NATS = """\
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{http}"
max_payload: 2097152
jetstream {{ store_dir: {store} }}
"""

_MEMBER = """\
server_name: n{number}
cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: [ {routes} ] }}
"""

EDGES, WORKERS, MEMBERS = (1, 2, 3, 4), (1, 2, 4, 6), (10, 100, 1000)


@dataclass(frozen=True)
class Load:
    """Sizes. Attributes: callers: of an echo; seconds: it lasts; messages: to a room, at `pace` a second;
    acked: to a stream."""

    callers: int = 96
    seconds: float = 4.0
    messages: int = 400
    pace: float = 100.0
    acked: int = 10_000


FULL = Load()
QUICK = Load(callers=12, seconds=0.5, messages=20, acked=200)


@dataclass(frozen=True)
class Servers:
    """nats-servers. Attributes: port, http: of the first one."""

    children: tuple[Child, ...]
    port: int
    http: int

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def out(self) -> int:
        """Messages that the first one has given to its clients."""
        with urlopen(f"http://127.0.0.1:{self.http}/varz") as answer:
            return int(json.load(answer)["out_msgs"])


@contextmanager
def servers(count: int = 1) -> Generator[Servers]:
    """One, or a cluster with JetStream."""
    found = [(ports.free_port(), ports.free_port(), ports.free_port()) for _ in range(count)]
    routes = ", ".join(f'"nats://127.0.0.1:{route}"' for _, _, route in found)
    with tempfile.TemporaryDirectory(prefix="fairlead-scaling-") as name, ExitStack() as stack:
        children = []
        for number, (port, http, route) in enumerate(found, 1):
            conf = Path(name, f"nats-{number}.conf")
            store = json.dumps(str(Path(name, f"store-{number}")))
            text = _NATS.format(port=port, http=http, store=store)
            if count > 1:
                text += _MEMBER.format(number=number, route=route, routes=routes)
            conf.write_text(text)
            argv = [executable(), "--config", str(conf)]
            children.append(stack.enter_context(program(f"nats {number}", argv)))
        for _, http, _ in found:
            _until_healthy(http)
        yield Servers(tuple(children), *found[0][:2])


def _until_healthy(http: int) -> None:
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{http}/healthz") as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failed(f"a nats-server is not healthy: {error}") from None
        time.sleep(0.05)


@dataclass(frozen=True)
class Fleet:
    """Edges and workers of one app. Attributes: ports: of the edges."""

    app: str
    nats: Servers
    edges: tuple[Child, ...]
    workers: tuple[Child, ...]
    ports: tuple[int, ...]

    def meter(self) -> Meter:
        return Meter((*self.edges, *self.workers, *self.nats.children))


def _sum(cpu: dict[str, float], role: str) -> float:
    return sum(seconds for name, seconds in cpu.items() if name.startswith(role))


@contextmanager
def fleet(nats: Servers, edges: int, workers: int, replicas: int = 1) -> Generator[Fleet]:
    app = f"scaling{os.getpid()}-{time.monotonic_ns()}"
    common = ["--nats", nats.url, "--app", app, "--admin-port", "0"]
    env = {"OTEL_SDK_DISABLED": "true"}
    with ExitStack() as stack:

        def start(name: str, *argv: str) -> Child:
            told = [sys.executable, "-m", "fairlead", *argv, *common]
            return stack.enter_context(program(name, told, env))

        made = [
            start(f"worker {n}", "worker", WORKLOAD, "--replicas", str(replicas))
            for n in range(workers)
        ]
        fronts = [
            start(f"edge {n}", "edge", "--port", "0", "--drain-grace", "2") for n in range(edges)
        ]
        found = [edge.logs("listens on")["port"] for edge in fronts]
        for worker in made:
            worker.logs("worker serves")
        for edge, port in zip(fronts, found, strict=True):
            for path in (ECHO, PLAIN, KEPT):
                until_status(edge, port, path, 426)
        yield Fleet(app, nats, tuple(fronts), tuple(made), tuple(found))


def echoed(it: Fleet, load: Load) -> dict[str, float]:
    """Callers on all edges; microseconds of CPU a round trip, and how many there were a second."""
    each = load.callers // len(it.ports)
    with ExitStack() as stack:
        generators = [
            stack.enter_context(
                helper(
                    "generator", "callers", "--port", port, "--path", ECHO, "--count", each,
                    "--warm", 1.0, "--seconds", load.seconds,
                )
            )
            for port in it.ports
        ]  # fmt: skip
        for generator in generators:
            generator.hear("open")
        for generator in generators:
            generator.hear("measuring")
        meter = it.meter()
        measured = [generator.hear("measured") for generator in generators]
        cpu = meter.read()
        for generator in generators:
            generator.hear("end")
    trips = sum(each["round_trips"] for each in measured)
    seconds = max(each["seconds"] for each in measured)
    return {
        "a second": trips / seconds,
        **{role: _sum(cpu, role) / trips * 1e6 for role in ("edge", "worker", "nats")},
    }


def fanned_out(it: Fleet, members: int, load: Load) -> dict[str, float]:
    """A room over all edges: CPU a delivery in microseconds, a message in NATS, and what NATS passed on."""
    each = max(1, members // len(it.ports))
    subject = f"fl.{it.app}.log.plain.-"
    with ExitStack() as stack:
        publisher = stack.enter_context(
            helper("publisher", "--port", it.nats.port, "--subject", subject, "--sampled", 0)
        )
        publisher.hear("open")
        generators = [
            stack.enter_context(
                helper(
                    "generator", "members", "--port", port, "--path", PLAIN, "--count", each,
                    "--phases", load.messages,
                )
            )
            for port in it.ports
        ]  # fmt: skip
        for generator in generators:
            generator.hear("open")
        meter, before = it.meter(), it.nats.out
        publisher.tell(first=0, count=load.messages, rate=load.pace, acked=False)
        publisher.hear("published")
        for generator in generators:
            ended = generator.hear("phase")
            if not ended["complete"]:
                raise Failed(f"not all was delivered: {ended}")
        cpu, passed = meter.read(), it.nats.out - before
        for generator in generators:
            generator.tell(sent=[])
            generator.hear("latency")
    deliveries = each * len(it.ports) * load.messages
    return {
        "edge": _sum(cpu, "edge") / deliveries * 1e6,
        "nats": _sum(cpu, "nats") / load.messages * 1e6,
        "passed on": passed / load.messages,
    }


def acknowledged(it: Fleet, load: Load) -> float:
    """Messages a second that one stream acknowledges, up to 512 of them on their way."""
    subject = f"fl.{it.app}.log.kept.-"
    with helper(
        "publisher", "--port", it.nats.port, "--subject", subject, "--sampled", 0
    ) as publisher:
        publisher.hear("open")
        publisher.tell(first=0, count=load.acked // 10, rate=None, acked=True)
        publisher.hear("published")
        began = time.monotonic()
        publisher.tell(first=load.acked, count=load.acked, rate=None, acked=True)
        publisher.hear("published")
        return load.acked / (time.monotonic() - began)


Rows = Iterator[Sequence[str]]


def _echo_rows(load: Load) -> Rows:
    shapes = [(edges, 1) for edges in EDGES] + [(1, workers) for workers in WORKERS[1:]] + [(4, 6)]
    with servers() as nats:
        for edges, workers in shapes:
            with fleet(nats, edges, workers) as it:
                found = echoed(it, load)
            yield (
                str(edges), str(workers), f"{found['a second']:,.0f}",
                *(f"{found[role]:.0f}" for role in ("edge", "worker", "nats")),
                f"{sum(found[role] for role in ('edge', 'worker', 'nats')):.0f}",
            )  # fmt: skip


def _room_rows(load: Load) -> Rows:
    with servers() as nats:
        for edges in EDGES:
            with fleet(nats, edges, 1) as it:
                for members in MEMBERS:
                    found = fanned_out(it, members, load)
                    yield (
                        str(edges), f"{members:,}", f"{found['edge']:.1f}", f"{found['nats']:.0f}",
                        f"{found['passed on']:.2f}",
                    )  # fmt: skip


def _acked_rows(load: Load) -> Rows:
    for replicas in (1, 3):
        with servers(replicas) as nats, fleet(nats, 1, 1, replicas) as it:
            yield str(replicas), f"{acknowledged(it, load):,.0f}"


TABLES = {
    "echo, callers on all edges": (
        ("edges", "workers", "round trips/s", "edge µs", "worker µs", "NATS µs", "all µs"),
        _echo_rows,
    ),
    "a room over all edges, 100 messages/s": (
        ("edges", "members", "edge µs a delivery", "NATS µs a message", "NATS messages each"),
        _room_rows,
    ),
    "acknowledged by one stream": (("replicas", "messages/s"), _acked_rows),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads: does it all work?")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for title, (headings, rows) in TABLES.items():
        table = Table(title=title, title_justify="left", box=None)
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows(QUICK if args.quick else FULL):
            table.add_row(*row)
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
