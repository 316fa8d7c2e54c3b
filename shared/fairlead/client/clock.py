"""How much time has passed."""

from __future__ import annotations

import time
from typing import NamedTuple


class Moment(NamedTuple):
    """When something was, in seconds of two clocks.

    Neither is enough: a monotonic clock may stand still while a laptop sleeps, and the time of
    day may be set back.
    """

    monotonic: float
    time_of_day: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.monotonic(), time.time())

    def since(self, earlier: Moment) -> float:
        """Seconds from then to this: rather too many than too few."""
        return max(self.monotonic - earlier.monotonic, self.time_of_day - earlier.time_of_day)
