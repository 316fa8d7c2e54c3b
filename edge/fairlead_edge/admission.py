"""Asking a worker who may come in: the policies and inputs of a route, before anything is accepted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from fairlead.admin import problem_response
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import NO_WORKER
from fairlead.telemetry import Hop
from fairlead_edge.flight import Flight, Owner
from fairlead_edge.relay import Relay

RETRY_AFTER = {"Retry-After": "1"}

CHECK = 0
"""Number of a connection's check; its messages are numbered from 1."""

RUN = 1
"""Number of a connection's or a stream's run."""


CONTEXT = 48 * 1024
"""Bytes of a client's headers, query and subject, as they go with each of its messages: what NATS
takes beside 1 MiB of user data is 64 KiB, of which the rest is for what we say ourselves."""

_BECAUSE = {
    400: "request", 404: "unknown", 405: "method", 410: "gone", 413: "size", 426: "upgrade",
    431: "size", 500: "failed", NO_WORKER: "worker",
}  # fmt: skip
"""Why a request is refused with a status, in a word for metrics, where that says it."""


class Refused(Exception):
    """The request is answered with a problem.

    Attributes:
        status, detail: of the answer. because: one of a few words, for metrics.
    """

    def __init__(
        self, status: int, detail: str | None, headers: dict[str, str] | None = None, *,
        because: str = "", **members: Any,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.because = because or _BECAUSE.get(status, "policy")
        self.response = problem_response(status, detail, headers, **members)

    @classmethod
    def without_nats(cls, what: str, error: BaseException) -> Refused:
        """As NATS does not answer. Args: what: cannot be done, as the start of a sentence."""
        detail = f"{what}: {str(error) or 'NATS does not answer'}"
        return cls(503, detail, RETRY_AFTER, because="nats")

    @classmethod
    def by_worker(cls, failure: dict[str, Any]) -> Refused:
        """As a worker, or the relay, said."""
        members = {k: v for k, v in failure.items() if k not in ("type", "title")}
        status = int(members.pop("status", 500))
        headers = RETRY_AFTER if status == NO_WORKER else None
        return cls(status, members.pop("detail", None), headers, **members)


LEFT = 499
"""Stands for the status of those who left before they were answered."""


class Left(Exception):
    """The client has gone before it was answered."""


@dataclass(slots=True)
class Settled:
    """What the handshake settled.

    Attributes:
        subject: NATS subject of the client's messages.
        context: query, headers, path and subject, encoded once.
        who: the subject's id, or "".
    """

    route: Route
    subject: str
    context: bytes
    who: str = ""

    def admit(self, who: str, subject: Any) -> None:
        """Policies found who it is; `subject` is a JSON value.

        Raises:
            Refused: 500, it is too large to go with each message.
        """
        self.who = who
        self.context = admitted(self.context, subject)
        if len(self.context) > CONTEXT:
            raise Refused(500, f"headers and subject have {len(self.context)} bytes; {CONTEXT} fit")


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
    """One question; `verdict` is done when it is answered.

    The opening of a run with `resume` is one, too: what it says later is said by its log.
    """

    __slots__ = ("_flight", "_relay", "_seen", "id", "verdict")

    def __init__(self, relay: Relay, id: str) -> None:
        self.id = id
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._relay = relay
        self._seen = Verdict(None)
        self._flight: Flight | None = None

    def ask(
        self, settled: Settled, kind: Kind, sent: float, body: bytes = b"", key: str = "",
        trace: str = "", hop: Hop | None = None,
    ) -> None:  # fmt: skip
        """Args: sent: seconds since the epoch; key: token of the run that is opened."""
        work = Work(kind, DataType.BINARY, body, sent, trace, key, settled.context)
        number = RUN if kind is Kind.OPEN else CHECK
        self._flight = Flight(self, settled.route, number, settled.subject, work, hop=hop)
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


async def answered(verdict: asyncio.Future[Verdict], leaving: asyncio.Future[Any]) -> Verdict:
    """What a worker says of a client, if the client stays as long.

    Raises:
        Refused: it is not to come in. Left: it is gone.
    """
    either: set[asyncio.Future[Any]] = {verdict, leaving}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not verdict.done():
        raise Left
    if verdict.result().failure is not None:
        raise Refused.by_worker(verdict.result().failure or {})
    return verdict.result()


async def checked(
    relay: Relay, id: str, settled: Settled, leaving: asyncio.Future[Any], sent: float,
    body: bytes = b"", kind: Kind = Kind.CHECK, hop: Hop | None = None,
) -> Verdict:  # fmt: skip
    """Have a worker ask the policies and check the inputs; raises as `answered`."""
    check = Check(relay, id)
    trace = "" if hop is None else str(hop.parent)
    check.ask(settled, kind, sent, body, trace=trace, hop=hop)
    return await given(check, leaving)


async def given(check: Check, leaving: asyncio.Future[Any]) -> Verdict:
    """The answer to a question that was asked; raises as `answered`."""
    try:
        return await answered(check.verdict, leaving)
    except BaseException:
        check.give_up()
        raise
