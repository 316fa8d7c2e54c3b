"""What every process of ours does alike: being told to stop, once and twice."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import os
import signal
import time
from typing import Any

GC_THRESHOLDS = (10_000, 20, 50)
"""Allocations, and collections of each generation, before the next. Python's own 700 would look
at every connection's objects many times a second under load: tens of ms at 10,000 of them."""

NOW = 0.8
"""Seconds after the second signal in which a process says its last words."""


def settle() -> None:
    """Start-up is over: what it made lives as long as the process, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def signals() -> tuple[asyncio.Event, asyncio.Event]:
    """(stop in order, stop now): set by the first and the second SIGTERM or SIGINT.

    After the second the process ends within NOW seconds, whatever it waits for then.
    """
    stop, now = asyncio.Event(), asyncio.Event()
    events = iter((stop, now))
    loop = asyncio.get_running_loop()

    # Not by the loop's own handlers: user code may have it stuck, and this runs all the same.
    def told(number: int, frame: Any) -> None:
        event = next(events, None)
        if event is now:
            ends_within(NOW)
        if event is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(event.set)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, told)
    return stop, now


def ends_within(seconds: float) -> None:
    """End the process, stopped as asked, if it has not ended by then: also one that waits for a
    thread, or for a task, of user code that does not end."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(0)

    # A daemon, and without a lock of `threading` that an interrupted caller may hold.
    _thread.start_new_thread(end, ())


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
