"""What nats-server tells of a message that passed it: its message tracing (ADR-41), as one passage.

An account with `msg_trace { dest, sampling }` publishes such an event for each message whose
header `traceparent` is sampled; each server of a cluster one of its own. ::

    in   it came from a client, or from another server         eg   it went to one
    js   a stream has stored it                                 sm, si, se   its subject was mapped
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from fairlead.errors import Malformed
from fairlead.protocol import traceparent
from fairlead.protocol.timestamps import nanoseconds
from fairlead.protocol.traceparent import Traceparent

STEPS = {
    "in": "ingress",
    "eg": "egress",
    "js": "stored",
    "sm": "mapped",
    "si": "imported",
    "se": "exported",
}
"""Type of a server's event → what it is called here."""

_PEERS = {0: "client", 1: "router", 2: "gateway", 3: "system", 4: "leafnode", 5: "jetstream", 6: "account"}  # fmt: skip


class Step(NamedTuple):
    """One thing that happened to it.

    Attributes:
        name: one of STEPS. at: ns since the epoch, by the server's clock.
        attributes: `fairlead.nats.…`; those that the server did not tell are left out.
    """

    name: str
    at: int
    attributes: dict[str, str]


class Passage(NamedTuple):
    """One message at one server.

    Attributes:
        server: its name. parent: as the message came with it.
        subject: that it came on. size: bytes, headers included.
        hop: "" at the server that its client is connected to, "1", "2", "1.1" at those after it.
        steps: in the order of their times, one at least.
        error: why it went no further, or "".
    """

    server: str
    parent: Traceparent
    subject: str
    size: int
    hop: str
    steps: list[Step]
    error: str


def decode(payload: bytes) -> Passage:
    """Read an event.

    Raises:
        Malformed: it is none, or of a message without a trace.
    """
    try:
        event = orjson.loads(payload)
        request, happened = event["request"], event["events"]
        headers = {name.lower(): values[0] for name, values in request["header"].items()}
        parent = traceparent.parse(headers["traceparent"])
        steps = sorted((_step(each) for each in happened), key=lambda step: step.at)
        if parent is None or not parent.sampled or not steps:
            raise Malformed("an event of message tracing without a trace, or without a step")
        errors = [str(each["error"]) for each in happened if each.get("error")]
        subject = next((str(each["subj"]) for each in happened if each["type"] == "in"), "")
        server, size = str(event["server"]["name"]), int(request.get("msgsize", 0))
        hop = str(headers.get("nats-trace-hop", ""))
        return Passage(server, parent, subject, size, hop, steps, errors[0] if errors else "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Malformed(f"not an event of message tracing: {error!r}") from error


def _step(event: dict[str, Any]) -> Step:
    kind = event.get("kind")
    told = {
        "peer": event.get("name"),
        "kind": None if kind is None else _PEERS.get(kind, str(kind)),
        "subscription": event.get("sub"),
        "queue": event.get("queue"),
        "stream": event.get("stream"),
        "subject": event.get("to") or event.get("subject"),
        "hop": event.get("hop"),
        "error": event.get("error"),
    }
    attributes = {f"fairlead.nats.{name}": str(value) for name, value in told.items() if value}
    return Step(STEPS.get(event["type"], str(event["type"])), nanoseconds(event["ts"]), attributes)
