"""The benchmarks. Each is called once a run, with the system's nats-server, and gives a sample."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import load, observed
from bench.figures import Sample, Spec, Target
from bench.load import EchoResult, Phase, PhaseResult
from bench.memory import idle
from bench.scale import Scale
from bench.system import Nats, system
from bench.tracing import LOOPS, export_lag, tracing
from bench.wire import ECHO, KEPT, PLAIN

WANTED_RATE = Target(">=", 500_000)
"""Deliveries a second in a burst."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        specs: the figures that `run` gives.
        run: called with the number of the run, from 0.
    """

    specs: tuple[Spec, ...]
    run: Callable[[Nats, Scale, int], Sample]


def fanout_burst(nats: Nats, scale: Scale, run: int) -> Sample:
    """A room gets messages as fast as they can be published, without and with history."""
    sample = Sample()
    with system(nats) as it:
        for path, name, acked in ((PLAIN, "plain", False), (KEPT, "history", True)):
            with load.room_side(it, path) as side:
                result = _burst(side, scale, acked, sample)
            if result is not None:
                sample.values[f"{name} rate"] = result.rate
                sample.values[f"{name} edge CPU"] = result.cpu_per_million("edge")
                sample.values[f"{name} generator CPU"] = result.cpu_per_million("generator")
    with load.peer_side(PLAIN) as side:
        result = _burst(side, scale, False, sample)
    for name in ("plain", "history") if result is not None else ():
        assert result is not None
        sample.ceilings[f"{name} rate"] = result.rate
        sample.ceilings[f"{name} edge CPU"] = result.cpu_per_million("peer")
        sample.ceilings[f"{name} generator CPU"] = result.cpu_per_million("generator")
    return sample


def _burst(side: load.Side, scale: Scale, acked: bool, sample: Sample) -> PhaseResult | None:
    """All bursts but the first, as one; None if not everything was delivered."""
    bursts = [Phase(scale.burst, acked=acked)] * scale.bursts
    phases = [Phase(scale.warm_messages, acked=acked), *bursts]
    results = load.fan_out(side, scale.members, phases, sample.problems)
    if len(results) < len(phases):
        return None
    return functools.reduce(operator.add, results[1:])


PACES = (50, 100, 500)
"""Messages a second. At the last one an edge can't write each message by itself any more."""

PEER_PACES = PACES[:2]
"""Those that the trivial peer, which does not coalesce, keeps up."""


def fanout_paced(nats: Nats, scale: Scale, run: int) -> Sample:
    """A room gets messages at an even pace: how long each takes to each member."""
    sample = Sample()
    with system(nats) as it, load.room_side(it, PLAIN) as side:
        for result in _paced(side, PACES, scale, sample):
            sample.values.update(_paced_figures(result, "edge"))
    with load.peer_side(PLAIN) as side:
        for result in _paced(side, PEER_PACES, scale, sample):
            sample.ceilings.update(_paced_figures(result, "peer"))
    return sample


def _paced(
    side: load.Side, paces: Sequence[int], scale: Scale, sample: Sample
) -> list[PhaseResult]:
    measured = [Phase(int(min(pace, 250) * scale.paced), rate=pace) for pace in paces]
    phases = [Phase(scale.warm_messages, rate=100), *measured]
    return load.fan_out(side, scale.members, phases, sample.problems, record=True)[1:]


def _paced_figures(result: PhaseResult, writer: str) -> dict[str, float]:
    pace = f"{result.phase.rate:g}/s"
    return {
        f"{pace} p50": result.latency["p50"],
        f"{pace} p99": result.latency["p99"],
        f"{pace} edge CPU": result.cpu_per_million(writer),
    }


def echo_1(nats: Nats, scale: Scale, run: int) -> Sample:
    """One connection talks to an echo."""
    return _echo(nats, scale, 1)


def echo_100(nats: Nats, scale: Scale, run: int) -> Sample:
    """Many connections talk to an echo at once."""
    return _echo(nats, scale, scale.callers)


def _echo(nats: Nats, scale: Scale, connections: int) -> Sample:
    sample = Sample()
    with system(nats) as it:
        side = load.system_side(it, ECHO)
        result = load.echo(side, connections, scale.warm, scale.seconds, sample.problems)
    sample.values = _echo_figures(result)
    with load.peer_side(ECHO) as side:
        result = load.echo(side, connections, scale.warm / 2, scale.seconds / 2, sample.problems)
    sample.ceilings = _echo_figures(result)
    return sample


def _echo_figures(result: EchoResult) -> dict[str, float]:
    figures = {"rate": result.rate, **{key: result.latency[key] for key in ("p50", "p99", "max")}}
    for name, seconds in result.cpu.items():
        figures[f"{name} CPU"] = seconds / result.seconds
    return figures


_CPU = tuple(Spec(f"{name} CPU", "cores") for name in ("edge", "worker", "nats", "generator"))

_BURST_SPECS = tuple(
    spec
    for name in ("plain", "history")
    for spec in (
        Spec(f"{name} rate", "deliveries/s", WANTED_RATE),
        Spec(f"{name} edge CPU", "s/million"),
        Spec(f"{name} generator CPU", "s/million"),
    )
)

_PACED_SPECS = tuple(
    spec
    for pace in PACES
    for spec in (
        Spec(f"{pace}/s p50", "ms"),
        Spec(f"{pace}/s p99", "ms", Target("<=", 25) if pace == 50 else None),
        Spec(f"{pace}/s edge CPU", "s/million"),
    )
)

_OBSERVED_CPU = (
    *(Spec(f"{name}, CPU", "µs") for name in observed.RATIOS),
    *(Spec(f"cost of {name}, CPU", "%") for name in ("1 %", "100 %")),
)
"""Of edge and worker, for a round trip."""

_OBSERVED_FANOUT = (
    *(Spec(f"{name}, CPU", "s/million") for name in observed.RATIOS),
    Spec("cost of 1 %, CPU", "%", Target("<=", 2)),
    Spec("cost of 100 %, CPU", "%"),
)
"""Of the edge, for deliveries."""

BENCHMARKS: dict[str, Benchmark] = {
    "fanout-burst": Benchmark(_BURST_SPECS, fanout_burst),
    "fanout-paced": Benchmark(_PACED_SPECS, fanout_paced),
    "echo-1": Benchmark(
        (
            Spec("p50", "ms", Target("<=", 0.9)),
            Spec("p99", "ms"),
            Spec("max", "ms"),
            Spec("rate", "round trips/s"),
        ),
        echo_1,
    ),
    "echo-100": Benchmark(
        (
            Spec("rate", "round trips/s", Target(">=", 15_000)),
            Spec("p50", "ms"),
            Spec("p99", "ms", Target("<=", 25)),
            Spec("max", "ms"),
            *_CPU,
        ),
        echo_100,
    ),
    "idle": Benchmark(
        (
            Spec("per connection", "KB", Target("<=", 12)),
            Spec("per room, beyond", "KB", Target("<=", 5)),
        ),
        idle,
    ),
    "tracing": Benchmark(
        (
            Spec("off", "round trips/s"),
            Spec("at 1 %", "round trips/s"),
            Spec("at 100 %", "round trips/s", Target(">=", 3_000)),
            Spec("cost of 1 %", "%", Target("<=", 5)),
            Spec("cost of 100 %", "%"),
            Spec("spans a message at 100 %", "spans"),
        ),
        tracing,
    ),
    "observed-echo": Benchmark(
        (
            *(Spec(name, "round trips/s") for name in ("off", "at 1 %")),
            Spec("at 100 %", "round trips/s", Target(">=", 3_000)),
            Spec("cost of 1 %", "%", Target("<=", 5)),
            Spec("cost of 100 %", "%"),
            *_OBSERVED_CPU,
            Spec("spans a message at 100 %", "spans"),
        ),
        observed.echo,
    ),
    "observed-fanout": Benchmark(_OBSERVED_FANOUT, observed.fanout),
    "scraped": Benchmark(
        (
            Spec("CPU of a scrape", "ms"),
            Spec("size of a scrape", "KB"),
            *(
                Spec(f"{name} {key}", "ms")
                for key in ("p50", "p99", "max")
                for name in ("quiet", "scraped")
            ),
        ),
        observed.scraped,
    ),
    "export-lag": Benchmark(
        tuple(Spec(f"{how} {part}", "ms") for how in LOOPS for part in ("p99", "max")), export_lag
    ),
}
