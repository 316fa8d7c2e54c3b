"""How late an event loop is: the one figure that says whether a process is well.

A timer of the loop measures its own lateness, twenty times a second. Whoever else asks, from
whatever thread, also hears of a loop that stands still right now.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable

from fairlead.tally import Histogram

TICK = 0.05
"""Seconds between two looks. A standstill that is shorter may fall between them."""

REMEMBERED = 10
"""Seconds for which the worst is remembered."""

STUCK_AFTER = 5.0
"""Seconds of standstill after which a process counts as stuck: it is not alive, and leaves NATS."""


def stack_of(thread: int) -> list[str]:
    """Where a thread is right now, the innermost call last. Args: thread: its `threading.get_ident()`."""
    frame = sys._current_frames().get(thread)
    return [] if frame is None else traceback.format_stack(frame)


class LoopLag:
    """The lateness of the loop that `start` is called on.

    Args:
        clock: seconds; not the loop's own, which uvloop looks at once a turn.

    Attributes:
        ticked: when the loop last ran, by the clock. seen: all lateness so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._worst: dict[int, float] = {}  # by second
        self._thread = threading.get_ident()
        self.ticked = clock()
        self.seen = Histogram()

    def start(self) -> None:
        """Measure from now on, until `stop`."""
        self._thread = threading.get_ident()
        self._due = self._clock() + TICK
        self._timer = asyncio.get_running_loop().call_later(TICK, self._ticked)
        self.ticked = self._clock()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ticked(self) -> None:
        self.tick(self._clock())
        self._due = self._clock() + TICK
        self._timer = asyncio.get_running_loop().call_later(TICK, self._ticked)

    def tick(self, now: float) -> None:
        """The loop runs, at last."""
        late = max(0.0, now - self._due)
        self.ticked = now
        self.seen.add(late)
        second = int(now)
        if second not in self._worst:
            oldest = second - REMEMBERED
            self._worst = {s: w for s, w in self._worst.items() if s > oldest}
        self._worst[second] = max(late, self._worst.get(second, 0.0))

    def still(self) -> float:
        """Seconds for which the loop is overdue right now; 0 if it runs, or was not started."""
        return max(0.0, self._clock() - self._due) if self._timer is not None else 0.0

    def where(self) -> list[str]:
        """The stack of the loop's thread, the innermost call last."""
        return stack_of(self._thread)

    def worst(self) -> float:
        """The longest lateness of the last 10 s, in seconds, with the one that lasts."""
        oldest = int(self._clock()) - REMEMBERED
        known = [late for second, late in list(self._worst.items()) if second > oldest]
        return max([self.still(), *known])
