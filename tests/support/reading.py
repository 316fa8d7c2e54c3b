"""Readers of runs that are kept, and the account of how they came to the end of them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from support.proof import Times
from support.system import Events


@dataclass
class Read:
    """One run of runs.py's `count`, read to its end.

    Attributes:
        items: of its last attempt, which is whole. attempts: how many that took.
        silence: the longest time between two of them, in seconds.
    """

    items: int
    attempts: int
    silence: float


async def read_to_end(stream: Events) -> Read:
    """Each attempt counts from 0 on, without a hole and nothing twice, and none speaks after the next."""
    attempt, expected = 1, 0
    last, silence = time.monotonic(), 0.0
    while (event := await stream.next()).get("event") != "end":
        assert event.get("event") in (None, "run", "restart"), event
        if event.get("event") == "restart":
            attempt, expected = json.loads(event["data"])["attempt"], 0
        elif "event" not in event and "data" in event:
            assert json.loads(event["data"]) == f"{attempt}:{expected}"
            expected += 1
            silence, last = max(silence, time.monotonic() - last), time.monotonic()
    return Read(expected, attempt, silence)


def show(name: str, runs: list[Read], items: int) -> None:
    """One line for whoever reads the output (`make soak`, or pytest -s)."""
    sent, delivered = items * len(runs), sum(run.items for run in runs)
    attempts = [run.attempts for run in runs]
    sys.stdout.write(
        f"\n{name}: {len(runs)} runs; sent {sent}, delivered {delivered} "
        f"({100 * delivered / sent:.3f} %), duplicates 0, out of order 0; attempts {sum(attempts)}, at "
        f"most {max(attempts)}; longest silence of each {Times.of(run.silence for run in runs)}\n"
    )
