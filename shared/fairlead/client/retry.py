"""When to come back, and when not to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

# RFC 6455: our frame was wrong, and it would be wrong again.
_OUR_FAULT = frozenset({1002, 1003, 1007, 1009, 1010})

# "Overloaded, reconnect later" counts as this many losses more.
_OVERLOADED = 2


def may_return(code: int) -> bool:
    """Whether to connect again after a close with this code."""
    return not (code in {1000, 1008} or code in _OUR_FAULT or 4500 <= code < 5000)


def is_final(status: int) -> bool:
    """Whether an HTTP status will be the same next time."""
    return 400 <= status < 500 and status not in {408, 426, 429}


@dataclass(frozen=True)
class Retry:
    """The pauses between attempts, in seconds.

    Attributes:
        first: bound of the first pause; each pause is drawn at random below a bound that doubles.
        longest: bound of any.
    """

    first: float = 0.5
    longest: float = 30.0


class Backoff:
    """Pauses in seconds, with full jitter: clients that were cut off together must not come back
    together.

    Attributes:
        within: what the server asked for, once: come back at some time within so many seconds.
        after: … or not before so many have passed.
    """

    def __init__(
        self, retry: Retry | None = None, dice: Callable[[], float] = random.random
    ) -> None:
        self.within: float | None = None
        self.after: float | None = None
        self._retry = retry or Retry()
        self._dice = dice
        self._losses = 0

    def settled(self) -> None:
        """All went well for a while: the next loss is a first one."""
        self._losses = 0

    def next(self, code: int | None = None) -> float:
        """The next pause; `code` is that of the close that it follows."""
        if code == 1013:
            self._losses += _OVERLOADED
        # Bounded, since 2.0 ** 1024 is no float.
        bound = min(self._retry.longest, self._retry.first * 2.0 ** min(self._losses, 60))
        most = bound if self.within is None else self.within
        pause = (self.after or 0.0) + self._dice() * most
        self.within = self.after = None
        self._losses += 1
        return pause
