"""What every process of ours does alike: being told to stop, once and twice."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Any

GC_THRESHOLDS = (10_000, 20, 50)
"""Allocations, and collections of each generation, before the next. Python's own 700 would look
at every connection's objects many times a second under load: tens of ms at 10,000 of them."""


def settle() -> None:
    """Start-up is over: what it made lives as long as the process, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def signals() -> tuple[asyncio.Event, asyncio.Event]:
    """(stop in order, stop now): set by the first and the second SIGTERM or SIGINT."""
    stop, now = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, told)
    return stop, now


async def unless(work: asyncio.Future[Any], event: asyncio.Event) -> bool:
    """Wait for `work`, unless `event` is set first; then it is cancelled.

    Returns:
        Whether it ended by itself; what it raised is raised here.
    """
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        work.result()
        return True
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended.

    Once may not do: `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes in the
    same turn as its result (gh-86296), and nats-py waits for each reply with it.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
    # What one of them raised is nobody's any more; it is only to be looked at.
    await asyncio.gather(*tasks, return_exceptions=True)
