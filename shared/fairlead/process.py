"""What every process of ours does alike: being told to stop, once and twice."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fairlead import logs

log = logs.get("fairlead.process")

GC_THRESHOLDS = (10_000, 20, 50)
"""Allocations, and collections of each generation, before the next. Python's own 700 would look
at every connection's objects many times a second under load: tens of ms at 10,000 of them."""


def settle() -> None:
    """Start-up is over: what it made lives as long as the process, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def signals(
    heard: Callable[[int], None] = lambda number: None,
) -> tuple[asyncio.Event, asyncio.Event]:
    """(stop in order, stop now): set by the first and the second SIGTERM or SIGINT.

    Args:
        heard: told 1, 2, … at each, in a thread of its own: also where something blocks the loop.
    """
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = itertools.count(1)

    def told() -> None:
        number = next(numbers)
        heard(number)
        try:
            loop.call_soon_threadsafe((stop if number == 1 else now).set)
        except RuntimeError:  # the loop has ended, and something holds the process all the same
            os._exit(0)

    _listen(told)
    return stop, now


TOLD = signal.SIGTERM, signal.SIGINT


def _listen(told: Callable[[], None]) -> None:
    """Have a thread hear the signals.

    A handler in Python runs in the main thread between two of its instructions. The kernel may give
    a signal to any thread, so a main thread that waits in C (`time.sleep`, a query) is not woken by
    it and may run the handler in an hour. What Python writes to the wake-up descriptor it writes at
    once, in whichever thread the signal came to.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while heard := os.read(reading, 64):
            for number in heard:
                if number in TOLD:
                    told()
            if before != -1:
                with suppress(OSError):  # the loop's own, and that has ended
                    os.write(before, heard)

    def handle(*_: object) -> None:
        if signal.set_wakeup_fd(writing, warn_on_full_buffer=False) != writing:
            told()  # the loop has ended, and has taken the descriptor away

    threading.Thread(target=listen, name="signals", daemon=True).start()
    for each in TOLD:
        signal.signal(each, handle)
    os.register_at_fork(after_in_child=_hear_nothing)


def _hear_nothing() -> None:
    """A process that was forked from this one is told for itself: what it hears is not for its parent."""
    signal.set_wakeup_fd(-1)
    for each in TOLD:
        signal.signal(each, signal.SIG_DFL)


async def unless(work: asyncio.Future[Any], event: asyncio.Event) -> bool:
    """Wait for `work`, unless `event` is set first; then it is cancelled, until it has ended.

    Returns:
        Whether it ended by itself; what it raised is raised here.
    """
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        work.result()
        return True
    await end(work)
    return False


async def end(*tasks: asyncio.Future[Any]) -> None:
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


class LastResort:
    """Ends the process when its time is over, whatever still runs in it.

    Python waits for a task that swallows its cancellation, and for a thread that does not return,
    for ever; and while something blocks the loop nothing else on it has its turn. So this is a
    thread. `finally` blocks that still wait, and functions given to `atexit`, do not run.

    Attributes:
        code: exit code: 1 until the owner says that all was handed over.
    """

    LOOK = 0.05
    """Seconds between two looks at the time."""

    def __init__(self) -> None:
        self.code = 1
        self._at = math.inf
        threading.Thread(target=self._wait, name="last resort", daemon=True).start()

    def within(self, seconds: float) -> None:
        """So much time is left, or less."""
        self._at = min(self._at, time.monotonic() + seconds)

    def _wait(self) -> None:
        while (left := self._at - time.monotonic()) > 0:
            time.sleep(min(left, self.LOOK))
        try:
            log.warning("the process is ended, though something still runs", threads=_running())
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            os._exit(self.code)


def _running() -> str:
    """The threads that Python would wait for, and where they are."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and not thread.daemon:
            code = frame.f_code
            found.append(f"{thread.name} in {code.co_filename}:{frame.f_lineno} {code.co_name}")
    return ", ".join(found)
