"""How this worker stands, told to consoles that ask."""

from __future__ import annotations

import asyncio
import itertools
import time

from fairlead import reporting
from fairlead.protocol import report
from fairlead.protocol.report import RUNS, WorkerReport
from fairlead.readiness import Readiness
from fairlead_worker.hands import Hands
from fairlead_worker.logged import LoggedRun
from fairlead_worker.runner import Run
from fairlead_worker.tally import OUTCOMES

COUNTED = ("items", "published", "again", "taken_over", *OUTCOMES)
"""Of the tally: what is told, all workflows together."""


class Reporter:
    """Answers with how the worker stands."""

    def __init__(self, hands: Hands, readiness: Readiness, worker: str, build: str) -> None:
        self._hands = hands
        self._readiness = readiness
        self._worker = worker
        self._build = build
        self._started = time.time()
        assert readiness.bus is not None, "there is nobody to tell before NATS is there"
        reporting.answer(readiness.bus, self.report)

    def report(self) -> WorkerReport:
        hands, now = self._hands, asyncio.get_running_loop().time()
        rooms = hands.rooms
        oldest = itertools.islice(itertools.chain(rooms, hands.runs.values()), RUNS)
        return WorkerReport(
            **reporting.vitals(self._worker, self._readiness, self._started),
            counters={name: hands.tally.total(name) for name in COUNTED},
            build=self._build,
            limits=hands.limits,
            in_hand=hands.in_hand,
            runs=tuple(_run(run, now) for run in oldest),
            runs_in_all=len(hands.runs) + len(rooms),
        )


def _run(run: Run, now: float) -> report.Run:
    return report.Run(
        run=run.run_id,
        key=run.inbound if run.route.run == "topic" else run.key,
        kind=_kind(run),
        workflow=run.route.label,
        connection=run.connection,
        attempt=run.attempt,
        age=round(max(0.0, now - run.born), 3),
        cancelled=run.cancelled is not None,
    )


def _kind(run: Run) -> report.Kind:
    if isinstance(run, LoggedRun) and run.begun:
        return "kept"
    if run.route.run == "topic":
        return "room"
    if run.route.transport == "sse":
        return "stream"
    return "connection" if run.inbox is not None else "message"
