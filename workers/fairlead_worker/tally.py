"""What one worker has counted since it began: plain integers, incremented where things happen.

They are kept by workflow and by the template of a topic, never by what has no bound: a channel, a
connection, a run. `fairlead_worker.metrics` exports them.
"""

from __future__ import annotations

import time
from typing import Literal, get_args

from fairlead.protocol.envelope import Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.tally import Histogram

Scope = Literal["message", "connection", "topic", "stream"]


Outcome = Literal["done", "failed", "refused", "cancelled", "left"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_QUESTIONS = (Kind.CHECK, Kind.ADMIT)


def scope_of(route: Route) -> Scope:
    """What one run of a workflow is for: a message, a connection, a room, or an event stream."""
    return "stream" if route.transport == "sse" else route.run


class WorkflowTally:
    """One workflow.

    Attributes:
        scope: what one run is for.
        running: runs in hand now; checking: questions about who may come in.
        done, failed, refused, cancelled, left: runs and questions that are over, by how they ended:
            well; with what `execute` raised; with a status that it, a policy or the inputs chose;
            by the client, or since nobody wants them any more; handed over to another worker.
        again: those of them that were not the first attempt.
        taken_over: runs that other workers had before.
        items: said to clients; published: said in rooms.
        queue_wait: seconds from the edge's sending to the start; by two clocks, if the hosts differ.
        execute: seconds from the start to the end.
    """

    __slots__ = (
        "again", "cancelled", "checking", "done", "execute", "failed", "items", "left",
        "published", "queue_wait", "refused", "running", "scope", "taken_over",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope
        self.running = self.checking = 0
        self.done = self.failed = self.refused = self.cancelled = self.left = 0
        self.again = self.taken_over = 0
        self.items = self.published = 0
        self.queue_wait = Histogram()
        self.execute = Histogram()

    def begun(self, work: Work, attempt: int) -> float:
        """A run, or a question, begins; returns when, for `ended`."""
        if work.kind in _QUESTIONS:
            self.checking += 1
        else:
            self.running += 1
        if attempt > 1:
            self.again += 1
        if work.sent and work.kind is not Kind.REOPEN:  # that was sent when its client came
            waited = time.time() - work.sent
            self.queue_wait.add(waited if waited > 0 else 0.0)
        return time.perf_counter()

    def ended(self, work: Work, outcome: Outcome, began: float) -> None:
        if work.kind in _QUESTIONS:
            self.checking -= 1
        else:
            self.running -= 1
            self.execute.add(time.perf_counter() - began)
        if outcome == "done":  # most of them, and without a look-up
            self.done += 1
        else:
            setattr(self, outcome, getattr(self, outcome) + 1)


class WorkerTally:
    """One worker.

    Attributes:
        workflows: by label, `Feature/Workflow`.
        busy: work that was declined, this worker being at its limit.
        duplicates: room messages that their stream had already, from an earlier attempt.
        standstills: times that the loop stood still for more than a second.
    """

    __slots__ = ("busy", "duplicates", "standstills", "workflows")

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowTally] = {}
        self.busy = self.duplicates = self.standstills = 0

    def of(self, route: Route) -> WorkflowTally:
        found = self.workflows.get(route.label)
        if found is None:
            found = self.workflows[route.label] = WorkflowTally(scope_of(route))
        return found

    def total(self, name: str) -> int:
        """One number of all workflows together: `tally.total("done")`."""
        return sum(int(getattr(each, name)) for each in list(self.workflows.values()))
