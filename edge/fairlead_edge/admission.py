"""Asking a worker who may come in: the policies and inputs of a route, before anything is accepted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead_edge.relay import Flight, Owner, Relay

CHECK = 0
"""Number of a connection's check; its messages are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker said of a client.

    Attributes:
        failure: the problem to refuse it with, or None.
        who: the subject's id, or "".
        subject: what is known of it, as JSON; None without one.
    """

    failure: dict[str, Any] | None
    who: str = ""
    subject: Any = None


class Check(Owner):
    """One question; `verdict` is done when it is answered."""

    __slots__ = ("_flight", "_relay", "_seen", "id", "verdict")

    def __init__(self, relay: Relay, id: str) -> None:
        self.id = id
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._relay = relay
        self._seen = Verdict(None)
        self._flight: Flight | None = None

    def ask(self, route: Route, subject: str, context: bytes, body: bytes, sent: float) -> None:
        """Args: subject: NATS subject of the route's work; sent: seconds since the epoch."""
        work = Work(Kind.CHECK, DataType.BINARY, body, sent, "", "", context)
        self._flight = Flight(self, route, CHECK, subject, work)
        self._relay.submit(self._flight)

    def give_up(self) -> None:
        """The client is gone."""
        if self._flight is not None:
            self._relay.cancel(self._flight)

    def accepted(self, flight: Flight, who: str, subject: Any) -> None:
        self._seen = Verdict(None, who, subject)

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        self._flight = None
        if not self.verdict.done():
            self.verdict.set_result(Verdict(failure) if failure is not None else self._seen)


def admitted(context: bytes, subject: Any) -> bytes:
    """An encoded context with the subject in it, so that every later run has it."""
    if subject is None:
        return context
    return envelope.encode_context(replace(envelope.decode_context(context), subject=subject))
