"""What every run of a worker uses: its connection to NATS, its threads, and what holds for all."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from fairlead.bus import Bus
from fairlead.telemetry import Tracing
from fairlead_worker.tally import WorkerTally

STUBBORN = 10.0
"""Seconds that a cancelled run may take for its `finally`; then it is cancelled again."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a worker uses."""

    bus: Bus
    threads: Executor
    tracing: Tracing | None
    history: dict[str, bool]  # topic template → whether its rooms are stored
    dev: bool
    policy_timeout: float  # seconds
    tally: WorkerTally

    async def in_thread(self, call: Any) -> Any:
        """What something that may block returns, with the context variables of who asks for it."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: context.run(_called, call))


def _called(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:
        # No future can hold it, so whoever waits for this would wait for ever. As in a generator (PEP 479).
        raise RuntimeError("a function raised StopIteration") from error
