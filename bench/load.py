"""The loads: what a generator does to a system or to the trivial peer, and what came of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.processes import Child, Meter, helper
from bench.system import System


@dataclass(frozen=True)
class Side:
    """What a generator talks to: a system, or the trivial peer.

    Attributes:
        processes: whose CPU time counts.
        publisher: who publishes to its room; takes the commands of `bench.publisher`.
    """

    port: int
    path: str
    processes: tuple[Child, ...]
    publisher: Child | None = None


@contextmanager
def peer_side(path: str) -> Generator[Side]:
    """The trivial peer; it publishes to its clients itself."""
    with helper("peer") as peer:
        port = peer.hear("open")["port"]
        yield Side(port, path, (peer,), peer)


def system_side(system: System, path: str) -> Side:
    """A system, without anybody who publishes."""
    return Side(system.port, path, system.processes)


@contextmanager
def room_side(system: System, path: str, sampled: float = 0.0) -> Generator[Side]:
    """A system with a publisher to the room behind a path of the workload.

    Args:
        sampled: the part of its messages that are traced.
    """
    topic = path.rpartition("/")[2]
    subject = f"fl.{system.app}.log.{topic}.-"
    argv = ("--port", system.nats.port, "--subject", subject, "--sampled", sampled)
    with helper("publisher", *argv) as publisher:
        publisher.hear("open")
        yield Side(system.port, path, system.processes, publisher)


@dataclass(frozen=True)
class Phase:
    """Some messages to a room.

    Attributes:
        rate: messages a second; None is as fast as possible.
        acked: published to a stream, acknowledged.
    """

    messages: int
    rate: float | None = None
    acked: bool = False


@dataclass(frozen=True)
class PhaseResult:
    """What came of a phase.

    Attributes:
        seconds: from the first publication to the last delivery.
        cpu: seconds by process.
        latency: p50, p99 and max of publish to receipt in ms; zeros unless recorded.
    """

    phase: Phase
    members: int
    seconds: float
    cpu: dict[str, float]
    latency: dict[str, float]

    def __add__(self, other: PhaseResult) -> PhaseResult:
        """Both phases as one; the latency is the worse one's."""
        return PhaseResult(
            Phase(self.phase.messages + other.phase.messages, self.phase.rate, self.phase.acked),
            self.members,
            self.seconds + other.seconds,
            {name: seconds + other.cpu[name] for name, seconds in self.cpu.items()},
            max(self.latency, other.latency, key=lambda each: each["p99"]),
        )

    @property
    def deliveries(self) -> int:
        return self.members * self.phase.messages

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    def cpu_per_million(self, name: str) -> float:
        """CPU seconds of a process for a million deliveries."""
        return self.cpu[name] / self.deliveries * 1e6


def fan_out(
    side: Side, members: int, phases: Sequence[Phase], problems: list[str], record: bool = False
) -> list[PhaseResult]:
    """Publish to a room of `members`, phase by phase; a phase that fails is the last.

    Args:
        problems: what was not delivered as it should be is added here.
        record: measure the latency of each delivery.
    """
    assert side.publisher is not None
    argv: list[str | int] = ["--port", side.port, "--path", side.path, "--count", members]
    argv += ["--phases", *(phase.messages for phase in phases)]
    argv += ["--record"] if record else []
    results: list[PhaseResult] = []
    with helper("generator", "members", *argv) as generator:
        generator.hear("open")
        first = 0
        for phase in phases:
            meter = Meter((*side.processes, generator))
            side.publisher.tell(
                first=first, count=phase.messages, rate=phase.rate, acked=phase.acked
            )
            sent: list[int] = side.publisher.hear("published")["sent"]
            ended = generator.hear("phase")
            cpu = meter.read()
            if not ended["complete"]:
                problems.append(f"{side.path}: {ended}, {side.processes[0].last_words[-2:]}")
                return results
            generator.tell(sent=sent if record else [])
            latency = generator.hear("latency")
            seconds = (ended["last"] - sent[0]) / 1e9
            results.append(PhaseResult(phase, members, seconds, cpu, latency))
            first += phase.messages
        problems += _faults(side, generator.hear("end"))
    return results


@dataclass(frozen=True)
class EchoResult:
    """What came of an echo.

    Attributes:
        seconds: of the window that was measured.
        cpu: seconds by process, in the window.
        latency: p50, p99 and max of a round trip in ms.
        sent: messages in all, with those before and after the window.
    """

    round_trips: int
    seconds: float
    cpu: dict[str, float]
    latency: dict[str, float]
    sent: int

    @property
    def rate(self) -> float:
        """Round trips a second."""
        return self.round_trips / self.seconds


def echo(
    side: Side, connections: int, warm: float, seconds: float, problems: list[str]
) -> EchoResult:
    """Let connections talk to an echo, each waiting for its answer before it goes on.

    Args:
        warm, seconds: how long before the window, and in it.
        problems: what was not answered as it should be is added here.
    """
    argv: list[str | float] = ["--port", side.port, "--path", side.path, "--count", connections]
    argv += ["--warm", warm, "--seconds", seconds]
    with helper("generator", "callers", *argv) as generator:
        generator.hear("open")
        generator.hear("measuring")
        meter = Meter((*side.processes, generator))
        found = generator.hear("measured")
        cpu = meter.read()
        ended = generator.hear("end")
        problems += _faults(side, ended)
    if not found["round_trips"]:
        problems.append(f"{side.path}: no answer in {seconds:g} s")
    return EchoResult(found["round_trips"], found["seconds"], cpu, found, ended["sent"])


class IdleLoad:
    """Connections that only exist."""

    def __init__(self, generator: Child, side: Side, problems: list[str]) -> None:
        self._generator = generator
        self._side = side
        self._problems = problems

    def open(self, count: int, rooms: bool = False) -> None:
        """Open more of them, in one room or in a room each."""
        self._generator.tell(count=count, rooms=rooms)
        self._problems += _faults(self._side, self._generator.hear("open"))


@contextmanager
def idle(side: Side, problems: list[str]) -> Generator[IdleLoad]:
    with ExitStack() as stack:
        argv = ("idle", "--port", side.port, "--path", side.path)
        yield IdleLoad(stack.enter_context(helper("generator", *argv)), side, problems)


def _faults(side: Side, event: dict[str, Any]) -> list[str]:
    """What a generator found wrong; it names only what it looks for."""
    found = {name: event[name] for name in ("unanswered", "cut", "wrong") if event.get(name)}
    return [f"{side.path}: {found}"] if found else []
