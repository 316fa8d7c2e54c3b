"""Where the time went: each moment of a trace belongs to one part."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

PARTS: tuple[str, ...] = ("edge", "broker", "queue", "user", "slow", "other")
"""In the order in which they are told."""

OTHER = "other"


class Layer(IntEnum):
    """What covers what; within a layer the deeper row does, then the one that began later."""

    WAITS = 0
    SLOW = 1
    WORKS = 2


class Stretch(NamedTuple):
    """A part from `start` to `end`; both in ns."""

    start: int
    end: int
    part: str
    layer: Layer
    depth: int


def shares(stretches: Sequence[Stretch], start: int, end: int) -> dict[str, int]:
    """ns of each part; their sum is `end - start`, within which all stretches are."""
    made = dict.fromkeys(PARTS, 0)
    bounds = sorted({start, end, *(s.start for s in stretches), *(s.end for s in stretches)})
    coming = sorted(stretches, reverse=True)  # the next one is the last
    on_top: list[tuple[int, int, int, int, str]] = []
    for since, until in itertools.pairwise(bounds):
        while coming and coming[-1].start <= since:
            one = coming.pop()
            heapq.heappush(on_top, (-one.layer, -one.depth, -one.start, one.end, one.part))
        while on_top and on_top[0][3] <= since:
            heapq.heappop(on_top)
        made[on_top[0][4] if on_top else OTHER] += until - since
    return made
