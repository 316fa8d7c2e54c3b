"""How late an event loop is while spans are exported beside it: `python -m bench.lag PORT HOW`.

A loop of a process of its own wakes each millisecond, notes how late that was, and meanwhile makes
spans as an edge does. HOW is `off` (no spans), `ours` (as fairlead.telemetry sets it up) or
`defaults` (the batches and the switch interval that OpenTelemetry and Python have by themselves).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time

import uvloop

from bench.lines import Commands, say
from fairlead import process, telemetry
from fairlead.telemetry import Tracing

EVERY = 0.001
"""Seconds between two looks."""

DEFAULTS = {"OTEL_BSP_SCHEDULE_DELAY": "5000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}
"""OpenTelemetry's own."""

SWITCH = 0.005
"""Python's own: seconds after which a thread that wants the interpreter gets it."""


def _set_up(port: str, how: str) -> Tracing | None:
    if how == "off":
        return None
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    if how == "defaults":
        os.environ.update(DEFAULTS)
    made = telemetry.setup("edge", "bench", os.environ)
    if how == "defaults":
        sys.setswitchinterval(SWITCH)
    return made


async def _measure(tracing: Tracing | None, seconds: float) -> list[float]:
    """How late each look was, in seconds. A span is made at each: as of 150 to 300 messages a second."""
    late: list[float] = []
    end = time.perf_counter() + seconds
    due = time.perf_counter() + EVERY
    while due < end:
        await asyncio.sleep(due - time.perf_counter())
        now = time.perf_counter()
        late.append(max(0.0, now - due))
        due = max(due, now) + EVERY
        if tracing is not None:
            tracing.start("receive bench", "server", None, {"fairlead.attempt": 1}).end()
    return late


async def _serve(port: str, how: str) -> None:
    tracing = _set_up(port, how)
    commands = await Commands.open()
    say("ready")
    while (command := await commands.next()) is not None:
        await _measure(tracing, command["warm"])  # the first export loads half of its libraries
        process.settle()
        late = sorted(await _measure(tracing, command["seconds"]))
        p99 = statistics.quantiles(late, n=100)[98]
        say("lag", p99=p99 * 1000, max=late[-1] * 1000)
    if tracing is not None:
        tracing.shutdown()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2]))
