"""What every process of ours says of itself: its loop, its NATS, its memory."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.metrics import Metric, Reading

if TYPE_CHECKING:
    from fairlead.readiness import Readiness

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has in RAM; 0 where the system does not say (Linux does)."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return 0


def _memory(_: Readiness) -> Iterator[Reading]:
    if found := resident():
        yield found, {}


def _descriptors(_: Readiness) -> Iterator[Reading]:
    with contextlib.suppress(OSError):
        yield len(os.listdir("/proc/self/fd")), {}


def _round_trip(it: Readiness) -> Iterator[Reading]:
    if it.bus is not None and it.bus.rtt is not None:
        yield it.bus.rtt, {}


def _storage(it: Readiness) -> Iterator[Reading]:
    if it.bus is not None and it.bus.storage is not None:
        yield it.bus.storage.used, {}


def _storage_limit(it: Readiness) -> Iterator[Reading]:
    if it.bus is not None and it.bus.storage is not None and it.bus.storage.limit >= 0:
        yield it.bus.storage.limit, {}


VITALS: tuple[Metric[Readiness], ...] = (
    Metric(
        "fairlead.ready", "gauge", "1", "1 if /readyz answers 200, else 0.",
        lambda it: [(int(it.report()[0]), {})],
    ),
    Metric(
        "fairlead.draining", "gauge", "1", "1 from SIGTERM until the end, else 0.",
        lambda it: [(int(it.draining), {})],
    ),
    Metric(
        "fairlead.loop.lag", "histogram", "s",
        "How late the event loop was, measured twenty times a second.",
        lambda it: [(it.lag.seen, {})],
    ),
    Metric(
        "fairlead.loop.lag_max", "gauge", "s",
        "The longest lateness of the event loop in the last 10 s, a standstill that lasts included.",
        lambda it: [(it.lag.worst(), {})],
    ),
    Metric(
        "fairlead.nats.connected", "gauge", "1", "1 if NATS answers, else 0.",
        lambda it: [(int(it.bus is not None and it.bus.connected), {})],
    ),
    Metric(
        "fairlead.nats.reconnects", "counter", "{reconnect}", "Times that NATS came back.",
        lambda it: [(0 if it.bus is None else it.bus.reconnects, {})],
    ),
    Metric(
        "fairlead.nats.rtt", "gauge", "s",
        "The last round trip to NATS, with the loop's own delay; asked for each 5 s.",
        _round_trip,
    ),
    Metric(
        "fairlead.jetstream.storage.usage", "updown", "By",
        "What the NATS account's streams take on disk, each replica counted; asked for each 30 s.",
        _storage,
    ),
    Metric(
        "fairlead.jetstream.storage.limit", "updown", "By",
        "What they may take; not there where the account has no limit of its own.", _storage_limit,
    ),
    Metric(
        "process.cpu.time", "counter", "s", "CPU time of the process, of all its threads.",
        lambda _: [(time.process_time(), {})],
    ),
    Metric("process.memory.usage", "updown", "By", "Memory that the process has in RAM.", _memory),
    Metric(
        "process.unix.file_descriptor.count", "updown", "{file_descriptor}",
        "Open files; each client is one.", _descriptors,
    ),
    Metric(
        "fairlead.file_descriptor.limit", "updown", "{file_descriptor}",
        "Open files that the process may have (`ulimit -n`).",
        lambda _: [(resource.getrlimit(resource.RLIMIT_NOFILE)[0], {})],
    ),
)  # fmt: skip
"""Of edges and workers, and whatever else has a `Readiness`."""
