"""What connections cost an edge that have nothing to say."""

from __future__ import annotations

import resource
import time

from bench import load
from bench.figures import Sample
from bench.processes import Child, resident_bytes
from bench.scale import Scale
from bench.system import Nats, system
from bench.wire import KEPT

WARM = 50
"""Connections before the first look: what an edge loads for its first ones is not per connection."""

SPARE_FILES = 200
"""Files that a process has open beside its connections."""

LOOK_EVERY = 0.25
"""Seconds between two looks at memory."""

SAME = 64 * 1024
"""Bytes within which memory counts as unchanged."""


def idle(nats: Nats, scale: Scale, run: int) -> Sample:
    """Resident memory of an edge per connection in one room, and per room with one connection.

    The room's topic has history, as by default. The ceiling is what the trivial peer needs:
    uvloop's transport and a protocol object.
    """
    sample = Sample()
    _allow_files(WARM + scale.idle + scale.rooms + SPARE_FILES)
    with system(nats) as it:
        sample.values = _grown(load.system_side(it, KEPT), it.edge, scale, sample)
    with load.peer_side(KEPT) as side:
        ceilings = _grown(side, side.processes[0], scale, sample)
    sample.ceilings = {"per connection": ceilings["per connection"]}
    return sample


def _grown(side: load.Side, holder: Child, scale: Scale, sample: Sample) -> dict[str, float]:
    """KB by figure of the process that holds the connections."""
    with load.idle(side, sample.problems) as connections:
        connections.open(WARM)
        before = _settled(holder, scale.settle)
        connections.open(scale.idle)
        one_room = _settled(holder, scale.settle)
        connections.open(scale.rooms, rooms=True)
        many_rooms = _settled(holder, scale.settle)
    each = (one_room - before) / scale.idle
    apart = (many_rooms - one_room) / scale.rooms
    return {"per connection": each / 1024, "per room, beyond": (apart - each) / 1024}


def _settled(child: Child, within: float) -> int:
    """Resident bytes once they have been the same for four looks, or after `within` seconds."""
    deadline = time.monotonic() + within
    seen = [resident_bytes(child.pid)]
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        seen.append(resident_bytes(child.pid))
        if len(seen) >= 4 and max(seen[-4:]) - min(seen[-4:]) <= SAME:
            break
    return seen[-1]


def _allow_files(needed: int) -> None:
    """Raise our limit of open files as far as needed and allowed; our children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
