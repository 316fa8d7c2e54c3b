"""What one edge has counted since it began: plain integers, incremented where things happen.

They are kept by workflow and by the template of a topic, never by what has no bound: a channel, a
connection, a run. `fairlead_edge.metrics` exports them.
"""

from __future__ import annotations

from collections import defaultdict

from fairlead.protocol.manifest import Route
from fairlead.tally import Histogram

RUNS = "runs/{run}"
"""Stands for the template where a room is the log of a run. No topic has a slash."""


class WorkflowTally:
    """One workflow.

    Attributes:
        websockets, streams: clients that are connected now.
        received, received_bytes: messages of clients, and bodies of their requests.
        sent, sent_bytes: items of its runs, on their way to their clients.
        begun, ended: messages, opens and checks given to the relay, and those of them that are over.
        failed: those that ended with a problem.
        lost: attempts after one whose worker did not answer or was lost.
        handed_over: attempts after one whose worker stopped in order.
        busy: answers of workers that are at their limit.
        waited: those of `begun` that found no worker, or no NATS, for a while.
    """

    __slots__ = (
        "begun", "busy", "ended", "failed", "handed_over", "lost", "received", "received_bytes",
        "sent", "sent_bytes", "streams", "waited", "websockets",
    )  # fmt: skip

    def __init__(self) -> None:
        self.websockets = self.streams = 0
        self.received = self.received_bytes = 0
        self.sent = self.sent_bytes = 0
        self.begun = self.ended = self.failed = 0
        self.lost = self.handed_over = self.busy = self.waited = 0

    def connected(self, route: Route, change: int) -> None:
        """A client of this workflow has come (1), or gone (-1)."""
        if route.transport == "sse":
            self.streams += change
        else:
            self.websockets += change

    @property
    def outstanding(self) -> int:
        """Given to the relay and not over. Runs of connections and streams end with their clients."""
        return self.begun - self.ended


class TopicTally:
    """The rooms of one topic.

    Attributes:
        rooms, members: that are on this edge now.
        messages: heard from NATS.
        deliveries, bytes: messages times the members that they were for, and what those were sent.
        fanout: seconds from hearing a message until it was written for all members that keep up.
        recovered, unrecovered: clients that came back with a cursor, and got what they missed or not.
        replayed: messages that they were sent.
        ring_hits, ring_misses: of those that came back, whose gap the ring filled, or the stream had to.
        gaps_filled, gaps_lost: holes in what NATS sent that were read from the stream, or could not be.
    """

    __slots__ = (
        "bytes", "deliveries", "fanout", "gaps_filled", "gaps_lost", "members", "messages",
        "recovered", "replayed", "ring_hits", "ring_misses", "rooms", "unrecovered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rooms = self.members = 0
        self.messages = self.deliveries = self.bytes = 0
        self.fanout = Histogram()
        self.recovered = self.unrecovered = self.replayed = 0
        self.ring_hits = self.ring_misses = 0
        self.gaps_filled = self.gaps_lost = 0


class EdgeTally:
    """One edge.

    Attributes:
        workflows: by label, `Feature/Workflow`. topics: by template, and RUNS.
        handshakes: by (transport, status, reason), for clients that were answered in any way;
            101 is a WebSocket and 200 a stream that was accepted.
        slow_closed: clients that were closed for not reading, by the `overflow` of their trigger.
        dropped, superseded: messages that `overflow="drop_oldest"` has dropped, and `"latest"`.
        drained: clients that were sent elsewhere by a drain.
        unacknowledged: messages that were not done when a drain had no more patience.
    """

    __slots__ = (
        "drained", "dropped", "handshakes", "slow_closed", "superseded", "topics",
        "unacknowledged", "workflows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.workflows: defaultdict[str, WorkflowTally] = defaultdict(WorkflowTally)
        self.topics: defaultdict[str, TopicTally] = defaultdict(TopicTally)
        self.handshakes: defaultdict[tuple[str, int, str], int] = defaultdict(int)
        self.slow_closed: defaultdict[str, int] = defaultdict(int)
        self.dropped = self.superseded = 0
        self.drained = self.unacknowledged = 0

    def of(self, route: Route) -> WorkflowTally:
        return self.workflows[route.label]

    def total(self, name: str) -> int:
        """One number of all workflows, or else of all topics, together: `tally.total("received")`."""
        of = self.workflows if name in WorkflowTally.__slots__ else self.topics
        return sum(int(getattr(each, name)) for each in list(of.values()))
