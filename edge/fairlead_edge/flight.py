"""A message or an open on its way to a worker, and whom its answers are for.

`relay.py` moves it.
"""

from __future__ import annotations

from typing import Any

from fairlead.protocol import envelope
from fairlead.protocol.delivery import Delivery
from fairlead.protocol.envelope import DataType, Wish, Work
from fairlead.protocol.manifest import Route
from fairlead.telemetry import Hop
from fairlead_edge.tally import WorkflowTally

ATTEMPT_LOST = "attempt lost"
"""Name of the event in a span."""


class Owner:
    """A client, or a part of one, that waits for answers.

    All are called on the loop and must not block. What an owner has no use for does nothing.
    """

    __slots__ = ()

    id: str

    def accepted(self, flight: Flight, who: str, subject: Any) -> None:
        """An open or a check has passed: who it is, and what is known of that (JSON)."""

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        """One thing that `execute` said to this client; `meta` has SSE fields."""

    def read(self, flight: Flight, number: int) -> None:
        """The run has done with what was sent to it with `tell_input`, up to this number."""

    def dropped(self, flight: Flight, number: int) -> None:
        """This input was cancelled before the run read it."""

    def waiting(self, flight: Flight) -> None:
        """Nobody takes it yet; it is still being tried. Called once."""

    def attempt_lost(self, flight: Flight, why: dict[str, str | int]) -> None:
        """Another attempt follows, or it is given up; `why` is for those who trace it."""
        if flight.hop is not None:
            flight.hop.event(ATTEMPT_LOST, why)

    def worker_lost(self, flight: Flight) -> bool:
        """The worker that had it is gone. Returns whether another is to start it anew."""
        return True

    def restarted(self, flight: Flight) -> None:
        """A later attempt begins to speak: what came from earlier ones is to be forgotten."""

    def nats_came(self, flight: Flight) -> None:
        """What was sent to its worker in the last seconds may be lost."""

    def wanted(self, flight: Flight, key: str, who: str, wish: Wish) -> bool:
        """A client elsewhere wants something of this run; False if it may not, or cannot be."""
        return False

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        """Executed, or failed for good with a problem. Called exactly once."""


class Flight:
    """One message or open between here and a worker.

    Attributes:
        ref: the number that a `fairlead.v1` client gave it, or None.
        items: how many items have come back in this attempt.
        stale: whether items of an earlier attempt have gone to the client.
        hop: the span that it is part of, or None if that is not sampled. It ends with a message;
            an open's ends when its client is answered.
        tally: what is counted of its workflow; set by `submit`.
    """

    __slots__ = (
        "born",
        "delivery",
        "hop",
        "items",
        "owner",
        "ref",
        "route",
        "stale",
        "subject",
        "tally",
        "told_waiting",
        "uncredited",
        "work",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, route: Route, number: int, subject: str, work: Work,
        ref: int | None = None, hop: Hop | None = None,
    ) -> None:  # fmt: skip
        self.owner = owner
        self.route = route
        self.subject = subject
        self.work = work
        self.ref = ref
        self.hop = hop
        self.delivery = Delivery(number)
        self.items = 0
        self.stale = False
        self.uncredited = 0
        self.told_waiting = False
        self.born = 0.0
        self.tally: WorkflowTally

    @property
    def name(self) -> tuple[str, int]:
        return self.owner.id, self.delivery.number

    @property
    def run_id(self) -> str:
        """As the worker calls it: the same over all attempts."""
        return f"{self.owner.id}-{self.delivery.number}"

    @property
    def key(self) -> str:
        return envelope.key(self.owner.id, self.delivery.number, self.delivery.attempt)

    @property
    def trace(self) -> str:
        """Its traceparent for the client, or "" if it is not sampled."""
        return "" if self.hop is None else str(self.hop.parent)
