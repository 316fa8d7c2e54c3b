"""How late a loop is, by the clock of the test and by a loop that is really held up."""

from __future__ import annotations

import threading
import time

from fairlead.looplag import REMEMBERED, TICK, LoopLag
from fairlead.testing.waiting import until


class Clock:
    """A clock that goes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_loop_that_stood_still_is_late() -> None:
    lag = LoopLag()
    lag.start()
    stood = 0.2
    time.sleep(TICK + stood)  # noqa: ASYNC251 - what the test is about
    ticked = lag.ticked
    await until(lambda: lag.ticked != ticked, "the loop has run on")
    lag.stop()
    assert lag.worst() >= stood * 0.9
    assert lag.seen.count >= 1


async def test_another_thread_sees_the_standstill_while_it_lasts() -> None:
    lag = LoopLag()
    lag.start()
    seen: list[float] = []
    threading.Timer(0.3, lambda: seen.append(lag.still())).start()
    time.sleep(0.5)  # noqa: ASYNC251 - what the test is about
    lag.stop()
    assert seen and seen[0] > 0.1
    assert lag.still() == 0


async def test_the_worst_is_forgotten_after_a_while() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    lag.start()
    clock.now += TICK + 3.0
    lag.tick(clock.now)
    lag.stop()
    assert lag.worst() == 3.0
    clock.now += REMEMBERED - 1
    lag.tick(clock.now)
    assert lag.worst() >= 3.0
    clock.now += REMEMBERED + 1
    assert lag.worst() == 0.0


async def test_a_tick_in_time_is_not_late() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    lag.start()
    clock.now += TICK
    lag.tick(clock.now)
    lag.stop()
    assert lag.worst() == 0.0
    assert lag.seen.counts[0] == 1
