"""Who may say and hear what: each NATS subject of `subjects.py`, with the roles at its two ends.

`fairlead nats-config` makes a server's configuration of it and `fairlead doctor` tries it, so that
neither can drift from the code; tests/shared/protocol/test_permissions.py holds each subject that
`Subjects` makes against exactly one row.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fairlead.protocol.subjects import EDGES, WORKERS, Subjects


class Role(StrEnum):
    """A kind of process, with credentials of its own."""

    EDGE = "edge"
    WORKER = "worker"
    PUBLISHER = "publisher"
    CONSOLE = "console"


class Lane(NamedTuple):
    """One row of the map.

    Attributes:
        pattern: below `fl.<app>`, with NATS wildcards.
        said_by, heard_by: the roles at its ends; nats-server itself is none of them.
        queue: the queue group in which alone it may be heard; "" is any way.
    """

    pattern: str
    said_by: frozenset[Role]
    heard_by: frozenset[Role]
    queue: str = ""


class Permissions(NamedTuple):
    """What a role is allowed; all else is denied. A subject may be followed by a queue group."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


_E, _W, _P, _C = (frozenset({role}) for role in Role)
_NOBODY: frozenset[Role] = frozenset()

LANES = (
    Lane("in.>", _E, _W, WORKERS),
    # Edges ask each other for a run that a client of theirs wants to read or to end.
    Lane("edge.>", _E | _W, _E),
    Lane("peer.>", _W, _E),
    Lane("worker.>", _E | _C, _W),
    # Edges and the console have POST /publish on their admin ports.
    Lane("log.>", _E | _W | _P | _C, _E),
    Lane("live.>", _NOBODY, _E),
    Lane("run.*.open", _W, _NOBODY),
    Lane("run.*.log", _W, _NOBODY),
    Lane("run.*.end", _W, _NOBODY),
    # A run without `resume` is passed on by the edge that has its client.
    Lane("run.*.live", _E, _E),
    Lane("run.*.control", _E | _W | _C, _W),
    Lane("beat.*", _W, _E | _C),
    Lane("roll", _E | _C, _W),
    Lane("seek.>", _E, _W, WORKERS),
    Lane("want.>", _E, _W),
    Lane("stand.>", _W, _E),
    Lane("errors", _W, _W),
    Lane("broker", _NOBODY, _E, EDGES),
    Lane("report", _C, _E | _W),
    # Replies: to whom one may be asked by, and to oneself (a round trip).
    Lane("inbox.edge.>", _E | _W, _E),
    Lane("inbox.worker.>", _E | _W, _W),
    Lane("inbox.publisher.>", _P, _P),
    Lane("inbox.console.>", _E | _W | _C, _C),
)


OPERATOR = Permissions(
    (
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.UPDATE.*",
        "$JS.API.STREAM.DELETE.*",
        "$JS.API.STREAM.SNAPSHOT.*",
        "$JS.API.STREAM.RESTORE.*",
        # The pieces of the two, which the server asks for and acknowledges.
        "$JS.SNAPSHOT.>",
    ),
    ("_INBOX.>",),  # where NATS's own tools wait for replies; no role may hear it
)
"""What the operator's user in the app's account may, with NATS's own tools: see, change, back up, restore
and delete streams. It is in no process.

It can publish to no process, nor make a stream or a consumer that would do it in its stead. But what it
restores, or has a stream republish, is heard as if a worker had said it: its key is worth a worker's.
"""


def permissions(subjects: Subjects, role: Role) -> Permissions:
    """All that a role needs, and nothing else.

    JetStream's API names a stream as one token, so what is allowed for the streams of topics is
    allowed for each stream of the account: give each app an account of its own, or trust its
    neighbours. No role may delete a stream or make a consumer.
    """
    publish = [f"{subjects.root}.{lane.pattern}" for lane in LANES if role in lane.said_by]
    subscribe = [
        f"{subjects.root}.{lane.pattern}{' ' if lane.queue else ''}{lane.queue}"
        for lane in LANES
        if role in lane.heard_by
    ]
    return Permissions((*publish, *_jetstream(subjects, role)), tuple(subscribe))


def _jetstream(subjects: Subjects, role: Role) -> list[str]:
    """What of JetStream's API a role asks, and which buckets it writes to."""
    reads = ["$JS.API.INFO", "$JS.API.STREAM.INFO.*"]
    match role:
        case Role.PUBLISHER | Role.CONSOLE:
            return [*reads, f"$JS.API.STREAM.MSG.GET.KV_{subjects.manifests}"]
        case Role.EDGE:
            return [*reads, "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.*"]
        case Role.WORKER:
            return [
                *reads,
                "$JS.API.STREAM.MSG.GET.*",
                "$JS.API.STREAM.CREATE.*",
                "$JS.API.STREAM.UPDATE.*",
                f"$JS.API.STREAM.PURGE.{subjects.runs}",
                f"$KV.{subjects.manifests}.>",
                f"$KV.{subjects.leases}.>",
            ]
