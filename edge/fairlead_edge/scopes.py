"""What a WebSocket client says, on its way to be run: once per message, or once per connection.

::

    Connection ──take──▶ MessageScope     each message a flight of its own, `window` at a time
                    └──▶ ConnectionScope  one flight; messages are sent to it, INPUT_WINDOW ahead
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from fairlead.protocol.envelope import DataType, Kind, Wish, Work
from fairlead.protocol.problems import CANCELLED, problem
from fairlead_edge.admission import RUN, Verdict
from fairlead_edge.flight import ATTEMPT_LOST, Flight, Owner

if TYPE_CHECKING:
    from fairlead.telemetry import Hop
    from fairlead_edge.connection import Connection

INPUT_WINDOW = 16
"""Messages that are sent to the run of a connection ahead of what it has read."""

INPUT_BYTES = 256 * 1024
"""Bytes of those; one message is always sent."""


class Scope(Protocol):
    """How the messages of one client are run."""

    waiting_bytes: int

    @property
    def busy(self) -> bool:
        """Whether messages of this client are not done."""
        ...

    def take(self, work: Work, ref: int | None, hop: Hop | None) -> None:
        """A message came; its answer goes to the connection."""
        ...

    def cancel(self, ref: int) -> None:
        """The client does not want this message any more."""
        ...

    def cancel_run(self, run: str) -> bool:
        """End the connection's run; False if it has none of this id."""
        ...

    def closed(self) -> None:
        """The client is gone."""
        ...


class MessageScope(Owner):
    """Each message is executed by itself, on any worker, `window` of them at a time."""

    # Most connections are idle: what they need only when busy is made then.
    __slots__ = ("_connection", "_count", "_flights", "_waiting", "id", "waiting_bytes")

    def __init__(self, connection: Connection) -> None:
        self.id = connection.id
        self.waiting_bytes = 0
        self._connection = connection
        self._count = 0
        self._waiting: deque[Flight] | None = None
        self._flights: dict[int, Flight] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._flights or self._waiting)

    def take(self, work: Work, ref: int | None, hop: Hop | None) -> None:
        connection = self._connection
        self._count += 1
        flight = Flight(
            self, connection.route, self._count, connection.settled.subject, work, ref, hop
        )
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(flight)
        self.waiting_bytes += len(work.data)
        self._next()

    def _next(self) -> None:
        """Send as many messages as the trigger's window lets through."""
        if self._flights is None:
            self._flights = {}
        connection = self._connection
        while self._waiting and len(self._flights) < connection.route.window:
            flight = self._waiting.popleft()
            self.waiting_bytes -= len(flight.work.data)
            self._flights[flight.delivery.number] = flight
            connection.host.relay.submit(flight)
        connection.took()

    def cancel(self, ref: int) -> None:
        for flight in (self._flights or {}).values():
            if flight.ref == ref:
                self._connection.host.relay.cancel(flight)
                return
        for flight in self._waiting or ():
            if flight.ref == ref:
                assert self._waiting is not None
                self._waiting.remove(flight)
                self.waiting_bytes -= len(flight.work.data)
                if flight.hop is not None:
                    flight.hop.refuse(CANCELLED)
                    flight.hop.end()
                self._connection.answer(ref, problem(CANCELLED, "cancelled"), flight.trace)
                return

    def cancel_run(self, run: str) -> bool:
        return False

    def closed(self) -> None:
        pass  # what the client sent is executed all the same

    # What the relay tells

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        connection = self._connection
        if not connection.gone:
            connection.item(flight, data_type, data)
        # Executed, as every message is. But if it is all for the sender, it has no reader.
        elif connection.route.deliver == "sender":
            connection.host.relay.cancel(flight)
        else:
            connection.host.relay.credit(flight, len(data))

    def waiting(self, flight: Flight) -> None:
        self._connection.waiting(flight.ref)

    def restarted(self, flight: Flight) -> None:
        if flight.ref is not None:
            self._connection.restarted(flight)

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        if self._flights is not None:
            self._flights.pop(flight.delivery.number, None)
        self._connection.answer(flight.ref, failure, flight.trace)
        self._next()
        if not self.busy:
            self._connection.host.settled(self._connection)


class _Input:
    """One message of the client for its run."""

    __slots__ = ("hop", "number", "ref", "work")

    def __init__(self, number: int, work: Work, ref: int | None, hop: Hop | None) -> None:
        self.number = number
        self.work = work
        self.ref = ref
        self.hop = hop

    @property
    def trace(self) -> str:
        return "" if self.hop is None else str(self.hop.parent)


class ConnectionScope(Owner):
    """One run for the connection; it outlives the workers that it runs on, one after the other.

    What the run has not done with is kept here, and sent again to the worker that opens it anew.

    Attributes:
        verdict: done when the run was accepted, or refused.
    """

    __slots__ = (
        "_connection", "_count", "_flight", "_running", "_sent", "_sent_bytes", "_waiting", "id",
        "verdict", "waiting_bytes",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self.id = connection.id
        self.waiting_bytes = 0
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._count = 0
        self._sent: deque[_Input] = deque()
        self._sent_bytes = 0
        self._waiting: deque[_Input] = deque()
        self._running = False  # whether a worker has accepted the current attempt
        self._flight: Flight | None = None

    @property
    def busy(self) -> bool:
        return bool(self._sent or self._waiting)

    def open(self, hop: Hop | None) -> None:
        """Ask a worker to run it. Args: hop: of the handshake."""
        connection = self._connection
        settled, trace = connection.settled, "" if hop is None else str(hop.parent)
        work = Work(
            Kind.OPEN, DataType.BINARY, b"", connection.host.now(), trace, "", settled.context
        )
        self._flight = Flight(self, connection.route, RUN, settled.subject, work, hop=hop)
        connection.host.relay.submit(self._flight)

    def take(self, work: Work, ref: int | None, hop: Hop | None) -> None:
        self._count += 1
        work.context = b""  # its run has it
        if hop is not None and self._flight is not None:
            hop.set("fairlead.run", self._flight.run_id)
        self._waiting.append(_Input(self._count, work, ref, hop))
        self.waiting_bytes += len(work.data)
        self._next()

    def _next(self) -> None:
        """Send what the run's window lets through."""
        while self._running and self._waiting and self._room_for(self._waiting[0]):
            entry = self._waiting.popleft()
            self._sent.append(entry)
            self._sent_bytes += len(entry.work.data)
            assert self._flight is not None
            self._connection.host.relay.tell_input(self._flight, entry.number, entry.work)

    def _room_for(self, entry: _Input) -> bool:
        if not self._sent:
            return True
        size = self._sent_bytes + len(entry.work.data)
        return len(self._sent) < INPUT_WINDOW and size <= INPUT_BYTES

    def _again(self) -> None:
        """All that was sent and not read goes out again, in its order."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_bytes = 0
        self._next()

    def _done(self, entry: _Input, failure: dict[str, Any] | None) -> None:
        self.waiting_bytes -= len(entry.work.data)
        if entry.hop is not None:
            if failure is not None:
                entry.hop.refuse(failure["status"])
            entry.hop.end()
        self._connection.answer(entry.ref, failure, entry.trace)

    def cancel(self, ref: int) -> None:
        for entry in self._waiting:
            if entry.ref == ref:
                self._waiting.remove(entry)
                self._done(entry, problem(CANCELLED, "cancelled"))
                return
        for entry in self._sent:
            if entry.ref == ref and self._flight is not None:
                # If the run reads it already, it goes on; to end that, the run is cancelled.
                self._connection.host.relay.drop_input(self._flight, entry.number)
                return

    def cancel_run(self, run: str) -> bool:
        if self._flight is None or self._flight.run_id != run:
            return False
        self._connection.host.relay.cancel(self._flight)
        return True

    def closed(self) -> None:
        if self._flight is not None:
            self._connection.host.relay.cancel(self._flight)
        for entry in (*self._sent, *self._waiting):
            if entry.hop is not None:
                entry.hop.refuse(CANCELLED)
                entry.hop.end()
        self._sent.clear()
        self._waiting.clear()

    # What the relay tells

    def accepted(self, flight: Flight, who: str, subject: Any) -> None:
        self._running = True
        flight.hop = None  # no span is open as long as a connection
        if not self.verdict.done():
            self.verdict.set_result(Verdict(None, who, subject))
            self._connection.settled.admit(who, subject)
            flight.work.kind = Kind.REOPEN
            flight.work.context = self._connection.settled.context
        self._again()

    def item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        if self._connection.gone:
            self._connection.host.relay.credit(flight, len(data))
        else:
            self._connection.item(flight, data_type, data)

    def read(self, flight: Flight, number: int) -> None:
        while self._sent and self._sent[0].number <= number:
            entry = self._sent.popleft()
            self._sent_bytes -= len(entry.work.data)
            self._done(entry, None)
        self._next()
        self._connection.took()
        if not self.busy:
            self._connection.host.settled(self._connection)

    def dropped(self, flight: Flight, number: int) -> None:
        for entry in self._sent:
            if entry.number == number:
                self._sent.remove(entry)
                self._sent_bytes -= len(entry.work.data)
                self._done(entry, problem(CANCELLED, "cancelled"))
                self._next()
                return

    def waiting(self, flight: Flight) -> None:
        for entry in (*self._sent, *self._waiting):
            self._connection.waiting(entry.ref)

    def attempt_lost(self, flight: Flight, why: dict[str, str | int]) -> None:
        super().attempt_lost(flight, why)
        for entry in self._sent:
            if entry.hop is not None:
                entry.hop.event(ATTEMPT_LOST, why)

    def worker_lost(self, flight: Flight) -> bool:
        self._running = False
        flight.told_waiting = False
        return True

    def restarted(self, flight: Flight) -> None:
        self._connection.restarted(flight)

    def wanted(self, flight: Flight, key: str, who: str, wish: Wish) -> bool:
        if wish is not Wish.CANCEL or not who or who != self._connection.who:
            return False
        self._connection.host.relay.cancel(flight)
        return True

    def nats_came(self, flight: Flight) -> None:
        if self._running:
            self._again()

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        self._flight = None
        self._running = False
        if not self.verdict.done():
            self.verdict.set_result(Verdict(failure or problem(503, "it ended before it began")))
            return
        unread, self._sent, self._waiting = (*self._sent, *self._waiting), deque(), deque()
        for entry in unread:
            if failure is None:
                self._done(entry, problem(409, "the run ended before it read this"))
            elif entry.hop is not None:
                entry.hop.refuse(failure["status"])
                entry.hop.end()
        self._connection.run_ended(flight.run_id, failure)
