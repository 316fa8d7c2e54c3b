"""What an edge exports: each figure, and where it is read. docs/metrics.md is this table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from fairlead.metrics import Metric, Reading
from fairlead.protocol.delivery import State
from fairlead_edge.host import Host
from fairlead_edge.tally import WorkflowTally

WORKFLOW = "fairlead.workflow"
TEMPLATE = "messaging.destination.template"
TRANSPORT = "fairlead.transport"
DIRECTION = "network.io.direction"
STATUS = "http.response.status_code"
REASON = "fairlead.reason"
OUTCOME = "fairlead.outcome"
POLICY = "fairlead.policy"

Read = Callable[[Host], Iterator[Reading]]


def _workflows(*numbers: tuple[str, dict[str, str]]) -> Read:
    """Numbers of each workflow: (attribute of its tally, further attributes of the series)."""

    def read(host: Host) -> Iterator[Reading]:
        for label, tally in list(host.tally.workflows.items()):
            for name, attributes in numbers:
                yield getattr(tally, name), {WORKFLOW: label, **attributes}

    return read


def _topics(*numbers: tuple[str, dict[str, str]]) -> Read:
    """Numbers of each topic, likewise."""

    def read(host: Host) -> Iterator[Reading]:
        for template, tally in list(host.tally.topics.items()):
            for name, attributes in numbers:
                yield getattr(tally, name), {TEMPLATE: template, **attributes}

    return read


def _connections(host: Host) -> Iterator[Reading]:
    # 0 from the start: to an autoscaler a pod without the figure is one that is full.
    transports = {route.label: route.transport for route in host.fleet.table}
    tallies = dict(host.tally.workflows)
    for label in transports.keys() | tallies.keys():
        tally = tallies.get(label) or WorkflowTally()
        # One of them, but for a workflow that another build has given the other one.
        for transport, count in (("websocket", tally.websockets), ("sse", tally.streams)):
            if count or transports.get(label) == transport:
                yield count, {WORKFLOW: label, TRANSPORT: transport}


def _handshakes(host: Host) -> Iterator[Reading]:
    for (transport, status, because), times in list(host.tally.handshakes.items()):
        yield times, {TRANSPORT: transport, STATUS: status, REASON: because}


_WAITS_FOR = {State.HELD: "nats", State.WAITING: "worker", State.BUSY: "worker"}


def _waiting(host: Host) -> Iterator[Reading]:
    found = Counter(
        (flight.route.label, _WAITS_FOR.get(flight.delivery.state)) for flight in host.relay.flights
    )
    for label in list(host.tally.workflows):
        for whom in ("nats", "worker"):
            yield found[label, whom], {WORKFLOW: label, REASON: whom}


def _slow(host: Host) -> Iterator[Reading]:
    found = host.buffers.slow()
    for policy in ("disconnect", "drop_oldest", "latest"):
        yield found[policy], {POLICY: policy}


def _slow_closed(host: Host) -> Iterator[Reading]:
    for policy in ("disconnect", "drop_oldest", "latest"):
        yield host.tally.slow_closed.get(policy, 0), {POLICY: policy}


def _dropped(host: Host) -> Iterator[Reading]:
    yield host.tally.dropped, {POLICY: "drop_oldest"}
    yield host.tally.superseded, {POLICY: "latest"}


_CLIENTS: tuple[Metric[Host], ...] = (
    Metric(
        "fairlead.edge.connections", "updown", "{connection}", "Clients that are connected.",
        _connections, (WORKFLOW, TRANSPORT),
    ),
    Metric(
        "fairlead.edge.handshakes", "counter", "{handshake}",
        "Clients that were answered: accepted (101, 200), refused, or gone before (499), and why.",
        _handshakes, (TRANSPORT, STATUS, REASON),
    ),
    Metric(
        "fairlead.edge.messages", "counter", "{message}",
        "Messages of clients and bodies of their requests (receive), and items of their runs (transmit).",
        _workflows(("received", {DIRECTION: "receive"}), ("sent", {DIRECTION: "transmit"})),
        (WORKFLOW, DIRECTION),
    ),
    Metric(
        "fairlead.edge.io", "counter", "By", "The user's bytes in those messages, without frames.",
        _workflows(
            ("received_bytes", {DIRECTION: "receive"}), ("sent_bytes", {DIRECTION: "transmit"})
        ), (WORKFLOW, DIRECTION),
    ),
)  # fmt: skip

_RELAY: tuple[Metric[Host], ...] = (
    Metric(
        "fairlead.edge.outstanding", "updown", "{message}",
        "Messages, opens and checks that are given to workers and not over; a run of a connection "
        "or a stream is over when its client leaves.",
        _workflows(("outstanding", {})), (WORKFLOW,),
    ),
    Metric(
        "fairlead.edge.waiting", "updown", "{message}",
        "Those of them that no worker has: none is free (worker), or NATS is away (nats).",
        _waiting, (WORKFLOW, REASON),
    ),
    Metric(
        "fairlead.edge.waited", "counter", "{message}",
        "Those that found no worker, or no NATS, and were told to wait.",
        _workflows(("waited", {})), (WORKFLOW,),
    ),
    Metric(
        "fairlead.edge.attempts", "counter", "{attempt}",
        "Times that something was given to a worker: at first, after one that did not answer or was "
        "lost, after one that stopped in order.",
        _workflows(
            ("begun", {REASON: "first"}), ("lost", {REASON: "lost"}),
            ("handed_over", {REASON: "handed_over"}),
        ), (WORKFLOW, REASON),
    ),
    Metric(
        "fairlead.edge.busy", "counter", "{answer}",
        "Answers of workers at their limit; each costs a message up to 100 ms.",
        _workflows(("busy", {})), (WORKFLOW,),
    ),
    Metric(
        "fairlead.edge.failed", "counter", "{message}", "What ended with a problem instead of an answer.",
        _workflows(("failed", {})), (WORKFLOW,),
    ),
)  # fmt: skip

_ROOMS: tuple[Metric[Host], ...] = (
    Metric(
        "fairlead.edge.rooms", "updown", "{room}", "Rooms that are listened to; of the topic "
        "`runs/{run}`, the logs of runs that are read.",
        _topics(("rooms", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.members", "updown", "{connection}", "Members of those rooms, on this edge.",
        _topics(("members", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.room.messages", "counter", "{message}", "Messages of rooms, heard from NATS.",
        _topics(("messages", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.room.deliveries", "counter", "{delivery}",
        "Those messages times the members that they were for.",
        _topics(("deliveries", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.room.io", "counter", "By", "The user's bytes in those deliveries.",
        _topics(("bytes", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.room.fanout.duration", "histogram", "s",
        "From hearing a message until it was written for all members that keep up.",
        _topics(("fanout", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.replays", "counter", "{replay}",
        "Clients that came back with a cursor, and got all that they missed (recovered) or were "
        "told that it is gone.",
        _topics(("recovered", {OUTCOME: "recovered"}), ("unrecovered", {OUTCOME: "unrecovered"})),
        (TEMPLATE, OUTCOME),
    ),
    Metric(
        "fairlead.edge.replay.messages", "counter", "{message}",
        "Messages that were sent to clients that came back, or began to read a log.",
        _topics(("replayed", {})), (TEMPLATE,),
    ),
    Metric(
        "fairlead.edge.ring.lookups", "counter", "{lookup}",
        "Clients that came back: the edge's memory had all that they missed (hit), or the room's "
        "stream was read (miss).",
        _topics(("ring_hits", {OUTCOME: "hit"}), ("ring_misses", {OUTCOME: "miss"})),
        (TEMPLATE, OUTCOME),
    ),
    Metric(
        "fairlead.edge.gaps", "counter", "{gap}",
        "Holes in what NATS sent: read from the stream (filled), or gone for good (lost), and the "
        "members closed with 4003.",
        _topics(("gaps_filled", {OUTCOME: "filled"}), ("gaps_lost", {OUTCOME: "lost"})),
        (TEMPLATE, OUTCOME),
    ),
)  # fmt: skip

_SLOW: tuple[Metric[Host], ...] = (
    Metric(
        "fairlead.edge.slow_consumers", "updown", "{connection}",
        "Clients for whom something waits, their sockets being full, by the trigger's `overflow`.",
        _slow, (POLICY,),
    ),
    Metric(
        "fairlead.edge.slow_closed", "counter", "{connection}",
        "Clients that were closed for reading too slowly.",
        _slow_closed, (POLICY,),
    ),
    Metric(
        "fairlead.edge.dropped", "counter", "{message}",
        "Messages that slow clients were not sent; they were told of a gap.",
        _dropped, (POLICY,),
    ),
    Metric(
        "fairlead.edge.buffer.usage", "updown", "By", "What waits for slow clients.",
        lambda host: [(host.buffers.used, {})],
    ),
    Metric(
        "fairlead.edge.buffer.limit", "updown", "By", "What may wait: `--buffer-limit`.",
        lambda host: [(host.buffers.limit, {})],
    ),
    Metric(
        "fairlead.edge.drained", "counter", "{connection}", "Clients that a drain sent elsewhere.",
        lambda host: [(host.tally.drained, {})],
    ),
    Metric(
        "fairlead.edge.unacknowledged", "counter", "{message}",
        "Messages that were not done when a drain had no more patience; their clients send them again.",
        lambda host: [(host.tally.unacknowledged, {})],
    ),
)  # fmt: skip

_FLEET: tuple[Metric[Host], ...] = (
    Metric(
        "fairlead.edge.routes", "gauge", "{route}", "Endpoints that are served.",
        lambda host: [(len(list(host.fleet.table)), {})],
    ),
    Metric(
        "fairlead.edge.workers", "gauge", "{worker}", "Workers that this edge hears.",
        lambda host: [(host.fleet.living, {})],
    ),
)  # fmt: skip

FIGURES = (*_CLIENTS, *_RELAY, *_ROOMS, *_SLOW, *_FLEET)
"""All of them."""
