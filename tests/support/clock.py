"""An event loop with a clock of its own, on which waiting takes no time.

What is a matter of seconds, and of nothing else, is then tried exactly: however busy the machine
is, the loop's time goes on only where all tasks wait, and to the next timer.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Skips(selectors.DefaultSelector):
    """Where nothing is ready, the time until the next timer has passed."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.passed += timeout
        return ready


class OwnClock(asyncio.SelectorEventLoop):
    """Begins at 0."""

    def __init__(self) -> None:
        self._skips = _Skips()
        super().__init__(self._skips)

    def time(self) -> float:
        return self._skips.passed

    def work(self, seconds: float) -> None:
        """As if the code that calls this had worked for so long."""
        self._skips.passed += seconds

    @classmethod
    def run(cls, main: Coroutine[Any, Any, T]) -> T:
        """As `asyncio.run`."""
        with asyncio.Runner(loop_factory=cls) as runner:
            return runner.run(main)
