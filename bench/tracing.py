"""What tracing costs: an echo with tracing off, at 1 % and at 100 %; and the loop, while spans are exported."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from bench import load
from bench.figures import Sample
from bench.load import EchoResult
from bench.processes import Child, helper
from bench.scale import Scale
from bench.system import Nats, Setup, System, system
from bench.wire import ECHO

RATIOS: dict[str, str | None] = {"off": None, "at 1 %": "0.01", "at 100 %": "1"}
"""Name of a configuration, and the argument of its sampler."""


EXPORTED_WITHIN = 2.0
"""Seconds after a load in which exporters bring what they still have (they wait 1 s)."""


def tracing(nats: Nats, scale: Scale, run: int) -> Sample:
    """All three run at once and have their turns in an order that runs back as it ran forth,
    so that a machine that grows faster or slower does so for all three."""
    sample = Sample()
    with ExitStack() as stack:
        sink = stack.enter_context(helper("sink"))
        endpoint = f"http://127.0.0.1:{sink.hear('open')['port']}"
        systems = {
            name: stack.enter_context(system(nats, Setup(_env(endpoint, ratio))))
            for name, ratio in RATIOS.items()
        }
        rates, spans = _turns(systems, sink, scale, run, sample)
    for name, each in rates.items():
        sample.values[name] = statistics.mean(each)
    for name in ("1 %", "100 %"):
        part = sample.values[f"at {name}"] / sample.values["off"]
        sample.values[f"cost of {name}"] = (1 - part) * 100
    sample.values["spans a message at 100 %"] = spans["at 100 %"]
    _check(spans, sample)
    return sample


LOOPS = ("off", "ours", "defaults")
"""How spans are made and exported beside a loop; see lag.py."""


def export_lag(nats: Nats, scale: Scale, run: int) -> Sample:
    """How late a loop is while spans are exported: with none, with our settings, with the defaults.

    One after another, each with the whole machine.
    """
    sample = Sample()
    with ExitStack() as stack:
        sink = stack.enter_context(helper("sink"))
        port = sink.hear("open")["port"]
        for how in LOOPS:
            with helper("lag", port, how) as loop:
                loop.hear("ready")
                loop.tell(warm=scale.warm * 2, seconds=scale.seconds)
                found = loop.hear("lag")
            sample.values[f"{how} p99"] = found["p99"]
            sample.values[f"{how} max"] = found["max"]
        if not _counted(sink):
            sample.problems.append("nothing was exported")
    return sample


def _turns(
    systems: dict[str, System], sink: Child, scale: Scale, run: int, sample: Sample
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(round trips a second of each turn, spans per message) by configuration."""
    order = list(systems)
    order = order[run % len(order) :] + order[: run % len(order)]
    rates: dict[str, list[float]] = {name: [] for name in order}
    spans: dict[str, float] = {}
    for _ in range(scale.slices):
        for name in order:
            result = _turn(systems[name], scale, sample)
            rates[name].append(result.rate)
            spans[name] = _counted(sink) / max(1, result.sent)
        order.reverse()
    return rates, spans


def _turn(it: System, scale: Scale, sample: Sample) -> EchoResult:
    side = load.system_side(it, ECHO)
    return load.echo(side, scale.callers, scale.warm / 2, scale.slice, sample.problems)


def _counted(sink: Child) -> int:
    """Spans since the last call."""
    time.sleep(EXPORTED_WITHIN)
    sink.tell()
    return int(sink.hear("counted")["spans"])


def _check(spans: dict[str, float], sample: Sample) -> None:
    """What is to be traced is, and what isn't, isn't; else the comparison means nothing."""
    if spans["off"] or not spans["at 100 %"] > spans["at 1 %"]:
        sample.problems.append(f"spans per message: {spans}")


def _env(endpoint: str, ratio: str | None) -> dict[str, str]:
    if ratio is None:
        return {"OTEL_SDK_DISABLED": "true"}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }
