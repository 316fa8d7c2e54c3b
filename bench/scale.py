"""How large the loads are: as the targets are meant, and for a test that all of it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of the loads; times are in seconds.

    Attributes:
        members: of the room in both fan-outs.
        burst, bursts: messages of a burst, and how many bursts are counted together.
        paced: how long each pace is kept up.
        callers: connections of echo-100.
        warm, seconds: of an echo, before the measured window and in it.
        idle, rooms: connections in one room, and those in a room each.
        settle: longest wait for an edge's memory to stay the same.
        slices: how often each tracing configuration has its turn in a run.
        rounds: the same, for each configuration of `observed.py`.
        slice: how long such a turn is.
    """

    members: int = 1000
    burst: int = 2000
    bursts: int = 5
    warm_messages: int = 100
    paced: float = 6.0
    callers: int = 100
    warm: float = 1.0
    seconds: float = 4.0
    idle: int = 9000
    rooms: int = 2000
    settle: float = 10.0
    slices: int = 2
    rounds: int = 4
    slice: float = 2.5


FULL = Scale()

QUICK = Scale(
    members=50,
    burst=200,
    bursts=2,
    warm_messages=10,
    paced=0.3,
    callers=20,
    warm=0.1,
    seconds=0.4,
    idle=100,
    rooms=20,
    settle=0.5,
    slices=1,
    rounds=1,
    slice=0.4,
)
