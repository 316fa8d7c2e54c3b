"""What a worker exports: each figure, and where it is read. docs/metrics.md is this table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead.metrics import Metric, Reading
from fairlead_worker.hands import Hands
from fairlead_worker.tally import OUTCOMES

WORKFLOW = "fairlead.workflow"
SCOPE = "fairlead.scope"
OUTCOME = "fairlead.outcome"

Read = Callable[[Hands], Iterator[Reading]]


def _workflows(name: str) -> Read:
    """A number of each workflow, by the attribute of its tally."""

    def read(hands: Hands) -> Iterator[Reading]:
        for label, tally in list(hands.tally.workflows.items()):
            yield getattr(tally, name), {WORKFLOW: label}

    return read


def _running(hands: Hands) -> Iterator[Reading]:
    for label, tally in list(hands.tally.workflows.items()):
        yield tally.running, {WORKFLOW: label, SCOPE: tally.scope}
        yield tally.checking, {WORKFLOW: label, SCOPE: "check"}


def _ended(hands: Hands) -> Iterator[Reading]:
    for label, tally in list(hands.tally.workflows.items()):
        for outcome in OUTCOMES:
            yield getattr(tally, outcome), {
                WORKFLOW: label, SCOPE: tally.scope, OUTCOME: outcome
            }  # fmt: skip


def _taken_over(hands: Hands) -> Iterator[Reading]:
    for label, tally in list(hands.tally.workflows.items()):
        if tally.scope != "message":  # those begin anew
            yield tally.taken_over, {WORKFLOW: label, SCOPE: tally.scope}


def _shares(name: str) -> Read:
    def read(hands: Hands) -> Iterator[Reading]:
        for share in hands.shares:
            yield getattr(share, name), {SCOPE: share.name}

    return read


FIGURES: tuple[Metric[Hands], ...] = (
    Metric(
        "fairlead.worker.runs", "updown", "{run}",
        "Runs in hand, by what one is for: a message, a connection, a room (topic), an event "
        "stream, or a question who may come in (check).",
        _running, (WORKFLOW, SCOPE),
    ),
    Metric(
        "fairlead.worker.ended", "counter", "{run}",
        "Runs and questions that are over: done, failed (`execute` raised), refused (with a status), "
        "cancelled (by the client), left (handed over to another worker).",
        _ended, (WORKFLOW, SCOPE, OUTCOME),
    ),
    Metric(
        "fairlead.worker.execute.duration", "histogram", "s",
        "From the start of a run to its end; a connection's and a stream's lasts as its client stays.",
        _workflows("execute"), (WORKFLOW,),
    ),
    Metric(
        "fairlead.worker.queue.wait", "histogram", "s",
        "From the edge's sending to the start; by the clocks of both hosts.",
        _workflows("queue_wait"), (WORKFLOW,),
    ),
    Metric(
        "fairlead.worker.repeats", "counter", "{run}", "Runs that were not the first attempt.",
        _workflows("again"), (WORKFLOW,),
    ),
    Metric(
        "fairlead.worker.takeovers", "counter", "{run}", "Runs that another worker had before.",
        _taken_over, (WORKFLOW, SCOPE),
    ),
    Metric(
        "fairlead.worker.items", "counter", "{item}", "Items that were said to clients.",
        _workflows("items"), (WORKFLOW,),
    ),
    Metric(
        "fairlead.worker.published", "counter", "{message}", "Items that were said in rooms.",
        _workflows("published"), (WORKFLOW,),
    ),
    Metric(
        "fairlead.worker.duplicates", "counter", "{message}",
        "Room messages that an earlier attempt had stored; they were stored once.",
        lambda hands: [(hands.tally.duplicates, {})],
    ),
    Metric(
        "fairlead.worker.in_flight", "updown", "{run}",
        "What counts against each limit: messages (`--concurrency`), connections and streams (`--streams`).",
        _shares("runs"), (SCOPE,),
    ),
    Metric(
        "fairlead.worker.limit", "updown", "{run}", "Those limits.", _shares("limit"), (SCOPE,)
    ),
    Metric(
        "fairlead.worker.busy", "counter", "{answer}", "Work that was declined at the limit.",
        lambda hands: [(hands.tally.busy, {})],
    ),
    Metric(
        "fairlead.worker.standstills", "counter", "{standstill}",
        "Times that the event loop stood still for more than a second.",
        lambda hands: [(hands.tally.standstills, {})],
    ),
)  # fmt: skip
"""All of them."""
