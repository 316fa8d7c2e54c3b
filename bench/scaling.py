"""`python -m bench.scaling`: what a message and a delivery cost with more edges, workers, members, rooms, connections.

On a machine whose cores the load uses up, more processes cannot be faster; what can be seen is whether each
message and each delivery still costs the same, and how many messages NATS passes on for one of a room. The
tables are those of docs/scaling.md; each is measured alone by its name, `python -m bench.scaling rooms`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import uvloop
from rich.console import Console
from rich.table import Table

from bench import wire
from bench.clients import Crowd, Member, open_all
from bench.processes import START_WITHIN, Child, Failed, Meter, helper, program, resident_bytes
from bench.publisher import Publisher
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

WITHIN = 60.0
"""Seconds until everything is delivered."""

CALM, CALM_WITHIN = 0.15, 60.0
"""CPU seconds a second that others may use when a row begins, and seconds that it waits for that."""

EDGES, WORKERS, MEMBERS = (1, 2, 3, 4), (1, 2, 4, 6), (10, 100, 1000)


@dataclass(frozen=True)
class Load:
    """Sizes; times are in seconds.

    Attributes:
        callers, seconds: of an echo, and how long it lasts.
        messages: to a room, at `pace` a second.
        acked: to a stream.
        idle: connections. settle, watched: how long they are left alone before they are looked at, so that
            pings and questions about rooms have begun, and meanwhile: two rounds of pings.
        alone: rooms with one member on each edge. brisk: deliveries a second to all of them, for `lasting`.
        spread: rooms that `members` are in. slow: messages to them, at `pace` a second.
    """

    callers: int = 96
    seconds: float = 4.0
    messages: int = 400
    pace: float = 100.0
    acked: int = 10_000
    idle: tuple[int, ...] = (1000, 4000, 16_000)
    settle: float = 35.0
    watched: float = 50.0
    alone: tuple[int, ...] = (1, 10, 100, 1000, 10_000, 16_000)
    brisk: float = 1600.0
    lasting: float = 10.0
    spread: tuple[int, ...] = (1, 10, 100, 1000)
    members: int = 1000
    slow: int = 1000


FULL = Load()
QUICK = Load(
    callers=12, seconds=0.5, messages=20, acked=200, idle=(20,), settle=0.1, watched=0.5,
    alone=(1, 10), brisk=100.0, lasting=0.2, spread=(1, 10), members=20, slow=20,
)  # fmt: skip


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


def fanned_out(
    it: Fleet, path: str, rooms: int, members: int, messages: int, pace: float
) -> dict[str, float]:
    """Rooms whose members are over all edges: CPU in microseconds of the edges, a message and a delivery, and
    of NATS, a message; and what NATS passed on for one.

    Args:
        path: of the rooms' topic. members, messages: in all; each room gets one message at least.
        pace: a second, to one room after the other.
    """
    return uvloop.run(_fanned_out(it, path, rooms, members, messages, pace))


async def _fanned_out(
    it: Fleet, path: str, rooms: int, members: int, messages: int, pace: float
) -> dict[str, float]:
    turns = max(1, messages // rooms)
    crowd = Crowd(turns, record=False)
    for edge, port in enumerate(it.ports):
        turned = (divmod(member, rooms) for member in range(members))
        mine = [room for turn, room in turned if (turn + room) % len(it.ports) == edge]

        def make(index: int, mine: list[int] = mine) -> Member:
            return Member(f"{path}?channel={_room(mine[index])}", crowd)

        crowd.members += await open_all(port, make, len(mine))
    crowd.aim(turns)
    publisher = Rounds(it, path.rpartition("/")[2], rooms)
    sent = rooms * turns
    meter, before = it.meter(), it.nats.out
    await asyncio.to_thread(publisher.paced, 0, sent, pace)
    if not await crowd.finish(WITHIN):
        raise Failed(f"not all was delivered: {crowd.cut} members are cut off, {crowd.wrong}")
    cpu, passed = meter.read(), it.nats.out - before
    for member in crowd.members:
        member.transport.close()
    return {
        "edge": _sum(cpu, "edge") / sent * 1e6,
        "delivery": _sum(cpu, "edge") / (members * turns) * 1e6,
        "nats": _sum(cpu, "nats") / sent * 1e6,
        "passed on": passed / sent,
    }


class Rounds(Publisher):
    """Publishes to one room of a topic after the other; each of them gets messages 0, 1, 2, …"""

    def __init__(self, it: Fleet, topic: str, rooms: int) -> None:
        super().__init__(it.nats.port, f"fl.{it.app}.log.{topic}", 0)
        self._rooms = rooms

    def _line(self, number: int, reply: bytes) -> bytes:
        turn, room = divmod(number, self._rooms)
        to = b"%b.%b" % (self._subject, _room(room).encode())
        return b"PUB %b %b%d\r\n%b\r\n" % (to, reply, wire.SIZE, wire.payload(turn))


def _room(number: int) -> str:
    return f"room-{number}"


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


def watched(it: Fleet, load: Load) -> dict[str, float]:
    """What nobody asked for: ms of CPU a second of edge and NATS, and MB that each of them has."""
    time.sleep(load.settle)
    meter, began = it.meter(), time.monotonic()
    time.sleep(load.watched)
    cpu, seconds = meter.read(), time.monotonic() - began
    return {
        **{role: _sum(cpu, role) / seconds * 1e3 for role in ("edge", "nats")},
        "edge MB": resident_bytes(it.edges[0].pid) / 2**20,
        "nats MB": resident_bytes(it.nats.children[0].pid) / 2**20,
    }


Rows = Iterator[Sequence[str]]


def _echo_rows(load: Load) -> Rows:
    with servers() as nats:
        for edges, workers in itertools.product(EDGES, WORKERS):
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
                    found = fanned_out(it, PLAIN, 1, members, load.messages, load.pace)
                    yield (
                        str(edges), f"{members:,}", f"{found['delivery']:.1f}",
                        f"{found['nats']:.0f}", f"{found['passed on']:.2f}",
                    )  # fmt: skip


def _acked_rows(load: Load) -> Rows:
    for replicas in (1, 3):
        with servers(replicas) as nats, fleet(nats, 1, 1, replicas) as it:
            yield str(replicas), f"{acknowledged(it, load):,.0f}"


def _connection_rows(load: Load) -> Rows:
    shapes = [(0, False), *((count, apart) for apart in (False, True) for count in load.idle)]
    for connections, apart in shapes:
        with servers() as nats, fleet(nats, 1, 1) as it:
            idle = ("idle", "--port", it.ports[0], "--path", KEPT)
            with helper("generator", *idle) as holder:
                holder.tell(count=connections, rooms=apart)
                holder.hear("open")
                found = watched(it, load)
                beside = echoed(it, load)
        yield (
            f"{connections:,}", f"{connections if apart else 1:,}", f"{found['edge MB']:.1f}",
            f"{found['nats MB']:.1f}", f"{found['edge']:.1f}", f"{found['nats']:.1f}",
            f"{beside['edge']:.0f}",
        )  # fmt: skip


def _alone_rows(load: Load) -> Rows:
    shapes = [*((EDGES[0], rooms) for rooms in load.alone), (EDGES[-1], load.spread[-1])]
    deliveries = int(load.brisk * load.lasting)
    with servers() as nats:
        for path, (edges, rooms) in itertools.product((PLAIN, KEPT), shapes):
            with fleet(nats, edges, 1) as it:
                found = fanned_out(
                    it, path, rooms, rooms * edges, deliveries // edges, load.brisk / edges
                )
            yield (
                str(edges), f"{rooms:,}", "no" if path == PLAIN else "yes",
                f"{found['delivery']:.0f}", f"{found['nats']:.0f}", f"{found['passed on']:.2f}",
            )  # fmt: skip


def _spread_rows(load: Load) -> Rows:
    with servers() as nats:
        for edges, rooms in itertools.product((EDGES[0], EDGES[-1]), load.spread):
            with fleet(nats, edges, 1) as it:
                found = fanned_out(it, PLAIN, rooms, load.members, load.slow, load.pace)
            yield (
                str(edges), f"{rooms:,}", f"{load.members // rooms:,}", f"{found['edge']:.0f}",
                f"{found['delivery']:.1f}", f"{found['nats']:.0f}", f"{found['passed on']:.2f}",
            )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A table of the page."""

    title: str
    headings: tuple[str, ...]
    rows: Callable[[Load], Rows]


TABLES = {
    "echo": Part(
        "echo, callers on all edges",
        ("edges", "workers", "round trips/s", "edge µs", "worker µs", "NATS µs", "all µs"),
        _echo_rows,
    ),
    "room": Part(
        "a room over all edges, 100 messages/s",
        ("edges", "members", "edge µs a delivery", "NATS µs a message", "NATS messages each"),
        _room_rows,
    ),
    "spread": Part(
        "1,000 members in rooms over all edges, 100 messages/s in all",
        (
            "edges", "rooms", "members of each", "edge µs a message", "edge µs a delivery",
            "NATS µs a message", "NATS messages each",
        ),
        _spread_rows,
    ),
    "rooms": Part(
        "rooms with one member on each edge, 1,600 deliveries/s in all",
        (
            "edges", "rooms", "history", "edge µs a delivery", "NATS µs a message",
            "NATS messages each",
        ),
        _alone_rows,
    ),
    "connections": Part(
        "connections that say nothing, on one edge, and an echo beside them",
        (
            "connections", "rooms", "edge MB", "NATS MB", "edge ms a s", "NATS ms a s",
            "edge µs an echo",
        ),
        _connection_rows,
    ),
    "acked": Part("acknowledged by one stream", ("replicas", "messages/s"), _acked_rows),
}  # fmt: skip


def until_calm() -> None:
    """Wait, for a minute at most, until the machine does nothing else."""
    deadline = time.monotonic() + CALM_WITHIN
    while time.monotonic() < deadline:
        before = _busy()
        time.sleep(1.0)
        if _busy() - before < CALM:
            return


def _busy() -> float:
    """Seconds that all cores together have worked (`/proc/stat`: all but idle and iowait)."""
    ticks = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    return (sum(map(int, ticks)) - int(ticks[3]) - int(ticks[4])) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads: does it all work?")
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all without any")
    args = parser.parse_args(argv)
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no table {unknown.pop()!r}; there are {', '.join(TABLES)}")
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # our children inherit it
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for name in args.tables or TABLES:
        console.print(_measured(TABLES[name], args.quick))
    return 0


def _measured(part: Part, quick: bool) -> Table:
    table = Table(title=part.title, title_justify="left", box=None)
    for heading in part.headings:
        table.add_column(heading, justify="right")
    rows = part.rows(QUICK if quick else FULL)
    while True:
        if not quick:
            until_calm()
        row = next(rows, None)
        if row is None:
            return table
        table.add_row(*row)


if __name__ == "__main__":
    sys.exit(main())
