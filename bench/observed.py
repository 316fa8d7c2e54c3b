"""What it costs to be observed: the same load with everything off, with everything on and 1 % of
the messages traced, and with all of them traced.

Everything is: spans, exported to a collector; and metrics, scraped every 2.5 s, which is six times
as often as is usual.
"""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from bench import load
from bench.figures import Sample
from bench.load import Phase
from bench.processes import Child, Failed, Meter, helper
from bench.scale import Scale
from bench.system import Nats, Setup, System, system
from bench.wire import ECHO, PLAIN

RATIOS: dict[str, float | None] = {"off": None, "at 1 %": 0.01, "at 100 %": 1.0}
"""Name of a configuration, and the part of the messages that is traced; None is everything off."""

EXPORTED_WITHIN = 2.0
"""Seconds after a load in which exporters bring what they still have (they wait 1 s)."""

SCRAPE_EVERY = 2.5
"""Seconds between two scrapes of each process."""

SCRAPES = 40
"""Of which the cost of one is the mean."""

FANOUT_RATE = 100.0
"""Messages a second to the room."""

Turn = Callable[[System, float | None, Scale, Sample], tuple[dict[str, float], int]]
"""One load on one system, of whose messages a part is traced: (its figures, messages)."""


def echo(nats: Nats, scale: Scale, run: int) -> Sample:
    """Round trips a second of many connections that talk to an echo, and the CPU time of one."""
    sample, figures, spans = _compared(nats, scale, run, _echo)
    for name in ("1 %", "100 %"):
        kept = _median_ratio(figures[f"at {name}"], figures["off"])
        sample.values[f"cost of {name}"] = (1 - kept) * 100
        spent = _median_ratio(figures[f"at {name}, CPU"], figures["off, CPU"])
        sample.values[f"cost of {name}, CPU"] = (spent - 1) * 100
    sample.values["spans a message at 100 %"] = spans["at 100 %"]
    return sample


def fanout(nats: Nats, scale: Scale, run: int) -> Sample:
    """CPU time of the edge for a million deliveries, at an even pace, to a room of many members."""
    sample, figures, _ = _compared(nats, scale, run, _fanout)
    for name in ("1 %", "100 %"):
        spent = _median_ratio(figures[f"at {name}, CPU"], figures["off, CPU"])
        sample.values[f"cost of {name}, CPU"] = (spent - 1) * 100
    return sample


def _median_ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Of figures that were measured one right after the other."""
    return statistics.median(a / max(b, 1e-9) for a, b in zip(of, to, strict=True))


def scraped(nats: Nats, scale: Scale, run: int) -> Sample:
    """What one connection's echo feels of scrapes, ten a second, and what a scrape costs."""
    sample = Sample()
    found: dict[str, list[float]] = {}
    setup = Setup({"OTEL_TRACES_EXPORTER": "none"})
    with system(nats, setup) as it:
        side = load.system_side(it, ECHO)
        meter = Meter((it.edge,))
        sizes = [_scrape(it.admin_ports[0]) for _ in range(SCRAPES)]
        sample.values["CPU of a scrape"] = meter.read()["edge"] / SCRAPES * 1000
        sample.values["size of a scrape"] = sizes[-1] / 1000
        for _ in range(scale.slices):
            for name, ratio in (("quiet", None), ("scraped", 0.0)):
                with _scraped(it, ratio, sample, every=0.1):
                    result = load.echo(side, 1, scale.warm / 2, scale.slice, sample.problems)
                for key in ("p50", "p99", "max"):
                    found.setdefault(f"{name} {key}", []).append(result.latency[key])
    sample.values.update({name: statistics.mean(each) for name, each in found.items()})
    return sample


def _echo(
    it: System, ratio: float | None, scale: Scale, sample: Sample
) -> tuple[dict[str, float], int]:
    side = load.system_side(it, ECHO)
    found = load.echo(side, scale.callers, scale.warm / 2, scale.slice, sample.problems)
    spent = found.cpu["edge"] + found.cpu["worker"]
    return {"": found.rate, ", CPU": spent / max(1, found.round_trips) * 1e6}, found.sent


def _fanout(
    it: System, ratio: float | None, scale: Scale, sample: Sample
) -> tuple[dict[str, float], int]:
    messages = int(FANOUT_RATE * scale.slice)
    phases = [Phase(scale.warm_messages, rate=FANOUT_RATE), Phase(messages, rate=FANOUT_RATE)]
    with load.room_side(it, PLAIN, ratio or 0.0) as side:
        results = load.fan_out(side, scale.members, phases, sample.problems)
    if len(results) < len(phases):
        raise Failed(f"not everything was delivered: {sample.problems[-1:]}")
    return {", CPU": results[-1].cpu_per_million("edge")}, messages + scale.warm_messages


def _compared(
    nats: Nats, scale: Scale, run: int, turn: Turn
) -> tuple[Sample, dict[str, list[float]], dict[str, float]]:
    """All three run at once and have their turns in an order that runs back as it ran forth,
    so that a machine that grows faster or slower does so for all three.

    Returns:
        The median figures, those of each round, and the spans that each made of a message.
    """
    sample = Sample()
    with ExitStack() as stack:
        sink = stack.enter_context(helper("sink"))
        endpoint = f"http://127.0.0.1:{sink.hear('open')['port']}"
        systems = {
            name: stack.enter_context(system(nats, Setup(_env(endpoint, ratio))))
            for name, ratio in RATIOS.items()
        }
        order = list(systems)
        order = order[run % len(order) :] + order[: run % len(order)]
        figures: dict[str, list[float]] = {}
        spans: dict[str, float] = {}
        for _ in range(scale.rounds):
            for name in order:
                with _scraped(systems[name], RATIOS[name], sample):
                    found, messages = turn(systems[name], RATIOS[name], scale, sample)
                for figure, value in found.items():
                    figures.setdefault(name + figure, []).append(value)
                spans[name] = _counted(sink) / max(1, messages)
            order.reverse()
    for name, each in figures.items():
        sample.values[name] = statistics.median(each)
    _check(spans, sample)
    return sample, figures, spans


@contextmanager
def _scraped(
    it: System, ratio: float | None, sample: Sample, every: float = SCRAPE_EVERY
) -> Generator[None]:
    """Ask edge and worker for their metrics now and then, until the end of the block.

    Args:
        ratio: None asks nobody.
    """
    if ratio is None:
        yield
        return
    done = threading.Event()
    sizes: list[int] = []

    def scrape() -> None:
        while True:
            sizes.extend(_scrape(port) for port in it.admin_ports)
            if done.wait(every):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if not sizes or not all(sizes):
        sample.problems.append(f"scrapes of {sizes} bytes")


def _scrape(port: int) -> int:
    """Bytes of the answer; 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return len(answer.read()) if answer.status == 200 else 0
    except OSError:
        return 0
    finally:
        connection.close()


def _counted(sink: Child) -> int:
    """Spans since the last call."""
    time.sleep(EXPORTED_WITHIN)
    sink.tell()
    return int(sink.hear("counted")["spans"])


def _check(spans: Mapping[str, float], sample: Sample) -> None:
    """What is to be traced is, and what isn't, isn't; else the comparison means nothing."""
    if spans["off"] or not spans["at 100 %"] > spans["at 1 %"]:
        sample.problems.append(f"spans per message: {spans}")


def _env(endpoint: str, ratio: float | None) -> dict[str, str]:
    if ratio is None:
        return {"OTEL_SDK_DISABLED": "true"}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(ratio),
    }
