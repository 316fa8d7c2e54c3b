"""What every process tells in its report, and who is answered: nobody asks, nothing is done."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import socket
from collections.abc import Callable
from typing import Any

from fairlead.bus import Bus
from fairlead.protocol import report
from fairlead.protocol.report import EdgeReport, WorkerReport
from fairlead.readiness import Readiness
from fairlead.vitals import resident

version = functools.cache(functools.partial(importlib.metadata.version, "fairlead"))


def answer(bus: Bus, made: Callable[[], EdgeReport | WorkerReport]) -> None:
    """Tell whoever asks from now on, also while draining."""

    def asked(subject: str, reply: str, data: bytes, headers: bytes) -> None:
        if reply:
            bus.publish(reply, report.encode(made()))

    bus.subscribe(bus.subjects.report, asked)


def vitals(id: str, readiness: Readiness, started: float) -> dict[str, Any]:
    """The members that edges and workers have in common. Args: started: seconds since the epoch."""
    ready, state = readiness.report()
    bus = readiness.bus
    return {
        "id": id,
        "version": version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": started,
        "ready": ready,
        "reasons": tuple(state.get("reason", ())),
        "draining": readiness.draining,
        "lag": round(readiness.lag.worst(), 4),
        "rtt": bus.rtt if bus is not None else None,
        "reconnects": bus.reconnects if bus is not None else 0,
        "memory": resident(),
    }
