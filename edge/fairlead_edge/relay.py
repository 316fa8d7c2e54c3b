"""The way of a message: from an edge to some worker, and its answers back.

The rules are those of `fairlead.protocol.delivery`; this is the shell that has the clock,
the dice and NATS. A message is kept here until a worker says that it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import orjson

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.natsheaders import no_responders
from fairlead.protocol import envelope
from fairlead.protocol.delivery import State
from fairlead.protocol.envelope import Answer, Control, DataType, Kind, Wanted, Wish, Work
from fairlead.protocol.manifest import Beat, Route
from fairlead.protocol.problems import CANCELLED, NO_WORKER, problem
from fairlead.protocol.subjects import CENSUS, parse_answer
from fairlead.telemetry import BROKEN
from fairlead_edge.flight import Flight
from fairlead_edge.peers import Peers
from fairlead_edge.tally import EdgeTally

log = logs.get("fairlead.edge")
_deadly = logs.Seldom(log.error, "a message that kills workers is given up", ["workflow"], burst=5)

TICK = 0.1
"""Seconds between two looks at what is overdue."""

STILL = 1.0
"""Seconds without a tick after which this edge's own loop stood still (SIGSTOP, a laptop's lid)."""

CREDIT_STEP = 64 * 1024
"""Bytes read by a client after which its run is told."""

SAY_WAITING_AFTER = 1.0
"""Seconds without NATS after which a client is told that its message waits."""


class Relay:
    """All messages of this edge that are not done.

    Args:
        edge: this edge's id.
        patience: seconds that a message waits for a worker to be there.
        choose: names a worker that lives and serves a route; "" if none is known.
        show: have NATS see the trace of what is sampled, for spans of its own (broker.py).
    """

    def __init__(
        self, bus: Bus, edge: str, peers: Peers, patience: float, choose: Callable[[Route], str],
        tally: EdgeTally, show: bool = False,
    ) -> None:  # fmt: skip
        self._bus = bus
        self._edge = edge
        self._peers = peers
        self._patience = patience
        self._choose = choose
        self._tally = tally
        self._show = show
        self._loop = asyncio.get_running_loop()
        self._flights: dict[tuple[str, int], Flight] = {}
        bus.subscribe(bus.subjects.edge_all(edge), self._answered)
        bus.on_down.append(self._nats_went)
        bus.on_up.append(self._nats_came)

    @property
    def outstanding(self) -> int:
        """Messages that are not done. Runs of connections and streams end with their clients."""
        return sum(1 for f in self._flights.values() if f.work.kind is Kind.MESSAGE)

    @property
    def flights(self) -> list[Flight]:
        """All that is not done. Called from any thread."""
        return list(self._flights.values())

    # Out

    def submit(self, flight: Flight) -> None:
        """Send a message on its way; its owner hears the rest."""
        flight.born = self._loop.time()
        flight.tally = self._tally.workflows[flight.route.label]
        flight.tally.begun += 1
        self._flights[flight.name] = flight
        if flight.hop is not None and flight.work.kind in (Kind.MESSAGE, Kind.OPEN):
            flight.hop.set("fairlead.run", flight.run_id)
        if self._bus.connected:
            flight.delivery.send(flight.born)
            self._send(flight)

    def cancel(self, flight: Flight) -> None:
        """The client does not want it any more: it finishes with status 499, or as it may.

        What a worker may have is cancelled there, and finished by its answer.
        """
        delivery = flight.delivery
        if delivery.state.final or delivery.cancelled:
            return
        delivery.cancelled = True
        if delivery.state is State.TAKEN:
            self._tell(flight, envelope.control(Control.CANCEL, flight.key))
        elif delivery.state is not State.SENT:
            self._fail(flight, problem(CANCELLED, "cancelled"))

    def credit(self, flight: Flight, size: int) -> None:
        """The client has read so many bytes of a run's items."""
        flight.uncredited += size
        if flight.uncredited >= CREDIT_STEP and flight.delivery.state is State.TAKEN:
            self._tell(flight, envelope.control(Control.CREDIT, flight.key, flight.uncredited))
            flight.uncredited = 0

    def tell_input(self, flight: Flight, number: int, work: Work) -> None:
        """Send a message to the run of its connection, after those that were sent before."""
        data = envelope.encode_work(work)
        control = envelope.control(Control.INPUT, flight.key, number, data)
        self._tell(flight, control, self._headers(work))

    def drop_input(self, flight: Flight, number: int) -> None:
        """The client does not want it read any more; `dropped` follows if it was not read yet."""
        self._tell(flight, envelope.control(Control.DROP, flight.key, number))

    def _send(self, flight: Flight, worker: str = "") -> None:
        """Args: worker: who is to have it; "" leaves that to NATS."""
        delivery = flight.delivery
        reply = self._bus.subjects.answer(
            self._edge, flight.owner.id, delivery.number, delivery.attempt
        )
        subject = flight.subject
        if worker:
            subject = self._bus.subjects.handed(worker, subject)
        headers = self._headers(flight.work) if flight.hop is not None else None
        self._bus.publish(subject, envelope.encode_work(flight.work), reply, headers)

    def _headers(self, work: Work) -> dict[str, str] | None:
        """What NATS is to see of work; where that is nothing, it has no headers."""
        return {"traceparent": work.trace} if self._show and work.trace else None

    def _tell(self, flight: Flight, control: bytes, headers: dict[str, str] | None = None) -> None:
        worker = self._bus.subjects.worker(flight.delivery.worker)
        self._bus.publish(worker, control, headers=headers)

    # In

    def _answered(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        try:
            answer = parse_answer(subject)
            if answer == CENSUS:
                self._count(reply, data)
                return
            if isinstance(answer, str):
                self._direct(answer, reply, data, headers)
                return
            flight = self._flights.get((answer.connection, answer.message))
            current = flight is not None and flight.delivery.attempt == answer.attempt
            if data and data[0] == Answer.ASK:
                self._bus.publish(reply, b"1" if current else b"0")
            elif flight is not None and current:
                if not data and no_responders(headers):
                    self._nobody(flight)
                else:
                    self._heard(flight, data)
        except (Malformed, ValueError, IndexError) as error:
            logs.dropped(subject, data, error)

    def _heard(self, flight: Flight, data: bytes) -> None:
        """One answer to the current attempt."""
        kind = data[0]
        if flight.stale and kind != Answer.BUSY:
            flight.stale = False
            flight.owner.restarted(flight)
        if kind == Answer.RESULT:
            self._item(flight, *envelope.decode_item(data), None)
            self._done(flight)
        elif kind == Answer.DONE:
            self._done(flight)
        elif kind == Answer.ITEM:
            self._item(flight, *envelope.decode_item(data), None)
        elif kind == Answer.EVENT:
            meta, data_type, body = envelope.decode_event(data)
            self._item(flight, data_type, body, meta)
        elif kind == Answer.TAKEN:
            flight.delivery.taken(data[1:].decode(), self._loop.time())
            if flight.delivery.cancelled:
                self._tell(flight, envelope.control(Control.CANCEL, flight.key))
            self.credit(flight, 0)
        elif kind == Answer.BUSY:
            self._busy(flight)
        elif kind == Answer.READ:
            flight.owner.read(flight, envelope.decode_counted(data))
        elif kind == Answer.ACCEPTED:
            if flight.hop is not None:
                flight.hop.set("fairlead.attempt", flight.delivery.attempt)
            flight.owner.accepted(flight, *envelope.decode_accepted(data))
        elif kind == Answer.DROPPED:
            flight.owner.dropped(flight, envelope.decode_counted(data))
        elif kind == Answer.LEFT:
            self._handed_over(flight)
        elif kind == Answer.ERROR:
            flight.delivery.done()
            self._finish(flight, envelope.decode_error(data))
        else:
            raise Malformed(f"answer of unknown kind {data[:1]!r}")

    def _item(
        self, flight: Flight, data_type: DataType, data: bytes, meta: dict[str, Any] | None
    ) -> None:
        flight.items += 1
        flight.tally.sent += 1
        flight.tally.sent_bytes += len(data)
        flight.owner.item(flight, data_type, data, meta)

    def _done(self, flight: Flight) -> None:
        flight.delivery.done()
        self._finish(flight, None)

    def _fail(self, flight: Flight, failure: dict[str, Any]) -> None:
        flight.delivery.fail()
        self._finish(flight, failure)

    def _finish(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        del self._flights[flight.name]
        flight.tally.ended += 1
        flight.tally.failed += failure is not None
        if flight.hop is not None:
            flight.hop.set("fairlead.attempt", flight.delivery.attempt)
            if failure is not None:
                flight.hop.refuse(int(failure.get("status", BROKEN)))
            if flight.work.kind is Kind.MESSAGE:
                flight.hop.end()
        flight.owner.finished(flight, failure)

    def _busy(self, flight: Flight) -> None:
        delivery = flight.delivery
        flight.tally.busy += 1
        delivery.busy(self._loop.time(), random.random())
        if delivery.cancelled:
            self._fail(flight, problem(CANCELLED, "cancelled"))
        else:
            self._loop.call_at(delivery.due, self._again, flight, State.BUSY)

    def _nobody(self, flight: Flight) -> None:
        now = self._loop.time()
        flight.delivery.no_responders(now)
        if flight.delivery.cancelled:
            self._fail(flight, problem(CANCELLED, "cancelled"))
        elif flight.delivery.expired(now, self._patience):
            self._expire(flight)
        else:
            self._say_waiting(flight)

    def _expire(self, flight: Flight) -> None:
        detail = f"no worker for {flight.route.label} in {self._patience:g} s"
        self._fail(flight, problem(NO_WORKER, detail))

    def _say_waiting(self, flight: Flight) -> None:
        if not flight.told_waiting:
            flight.told_waiting = True
            flight.tally.waited += 1
            if flight.hop is not None:
                flight.hop.event("no worker")
            flight.owner.waiting(flight)

    def _again(self, flight: Flight, state: State) -> None:
        """Send it once more, in the same attempt, unless something happened meanwhile."""
        if flight.delivery.state is state and flight.name in self._flights and self._bus.connected:
            flight.delivery.send(self._loop.time())
            self._send(flight)

    def _direct(self, connection: str, reply: str, data: bytes, headers: bytes) -> None:
        if data and data[0] == Answer.RUN:
            self._bus.publish(reply, self._granted(connection, envelope.decode_run(data)))
            return
        if not data or data[0] != Answer.DIRECT:
            raise Malformed(f"a connection is told {data[:1]!r}")
        there = self._peers.deliver(connection, envelope.decode_direct(data), headers)
        if reply:
            self._bus.publish(reply, b"1" if there else b"0")

    def _granted(self, connection: str, wanted: Wanted) -> bytes:
        """The answer to a wish of a client elsewhere."""
        flight = self._flights.get((connection, wanted.number))
        if flight is None:
            return b"0"
        if wanted.wish is Wish.PLACE:
            path = envelope.decode_context(flight.work.context).path
            return envelope.place(flight.subject, path)
        # A subject, and the leave of policies, is worth something in their own workflow only.
        if wanted.of != (flight.route.feature, flight.route.workflow):
            return b"0"
        granted = flight.owner.wanted(flight, wanted.key, wanted.who, wanted.wish)
        return b"1" if granted else b"0"

    def _count(self, reply: str, data: bytes) -> None:
        """A worker asks which of its runs are wanted; the answer names those that are not."""
        unwanted = []
        for key in envelope.decode_census(data):
            connection, number, attempt = key.split(".")
            flight = self._flights.get((connection, int(number)))
            if flight is None or str(flight.delivery.attempt) != attempt:
                unwanted.append(key)
        self._bus.publish(reply, orjson.dumps(unwanted))

    # Time, beats and NATS

    async def tick(self) -> None:
        """Look after what is overdue, until cancelled."""
        ticked = self._loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = self._loop.time()
            still, ticked = now - ticked, now
            if still > STILL:
                # It was this edge that stood still: answers and beats wait to be read.
                self._clocks_anew(now)
                continue
            for flight in list(self._flights.values()):
                if flight.delivery.state is State.HELD:
                    self._look_at_held(flight, now)
                elif now >= flight.delivery.due and self._bus.connected:
                    self._overdue(flight)

    def _look_at_held(self, flight: Flight, now: float) -> None:
        """NATS is away. A message waits for it; an open has a client that waits for its head."""
        if now - flight.born > SAY_WAITING_AFTER:
            self._say_waiting(flight)
        unanswered = flight.work.kind in (Kind.OPEN, Kind.CHECK)
        if unanswered and now - flight.born > self._patience:
            self._expire(flight)

    def _overdue(self, flight: Flight) -> None:
        state = flight.delivery.state
        if state is State.WAITING:
            self._again(flight, state)
        elif state in (State.SENT, State.TAKEN):
            self._lost(flight, "no beat" if state is State.TAKEN else "no answer")

    def _lost(self, flight: Flight, reason: str) -> None:
        """No `taken` in time, or its worker is gone: the next attempt, if there is to be one."""
        delivery = flight.delivery
        flight.owner.attempt_lost(flight, _why(flight, reason))
        if delivery.cancelled:
            self._fail(flight, problem(CANCELLED, "cancelled"))
            return
        if delivery.state is State.TAKEN and not flight.owner.worker_lost(flight):
            self._fail(flight, problem(NO_WORKER, "the worker that ran this was lost"))
            return
        if flight.work.kind is not Kind.MESSAGE and delivery.state is State.TAKEN:
            # If it lives after all, it has nothing to say any more; a message asks by itself.
            self._tell(flight, envelope.control(Control.CANCEL, flight.key))
        delivery.lost(self._loop.time())
        if delivery.deadly:
            detail = f"{delivery.losses} workers were lost with this in hand; it is given up"
            _deadly(workflow=flight.route.label, run=flight.run_id, losses=delivery.losses)
            self._fail(flight, problem(500, detail))
            return
        flight.tally.lost += 1
        # NATS goes on feeding a worker that hangs: what met one goes to one that is known to live.
        self._anew(flight, self._choose(flight.route))

    def _handed_over(self, flight: Flight) -> None:
        """Its worker stops, and has ended it there."""
        if flight.delivery.cancelled:
            self._fail(flight, problem(CANCELLED, "cancelled"))
            return
        flight.owner.attempt_lost(flight, _why(flight, "handed over"))
        flight.owner.worker_lost(flight)
        flight.delivery.handed_over(self._loop.time())
        flight.tally.handed_over += 1
        self._anew(flight)

    def _anew(self, flight: Flight, worker: str = "") -> None:
        """The next attempt goes out; what the last one said is stale when this one speaks."""
        flight.stale = flight.stale or flight.items > 0 or flight.work.kind is Kind.REOPEN
        flight.items = 0
        flight.uncredited = 0
        flight.work.sent = time.time()  # what the next attempt waits, counts from here
        self._send(flight, worker)

    def beat(self, beat: Beat) -> None:
        """A worker lives, and has this in its hands; with empty hands and leaving, it is gone."""
        now = self._loop.time()
        for key in beat.hands:
            connection, _, rest = key.partition(".")
            number, _, attempt = rest.partition(".")
            with contextlib.suppress(ValueError):
                flight = self._flights.get((connection, int(number)))
                if flight is not None and str(flight.delivery.attempt) == attempt:
                    flight.delivery.beat(now)
        if beat.leaving and not beat.hands:
            self.worker_gone(beat.worker, "left")

    def worker_gone(self, worker: str, reason: str = "no beat") -> None:
        """What it had goes to another at once."""
        for flight in list(self._flights.values()):
            if flight.delivery.state is State.TAKEN and flight.delivery.worker == worker:
                self._lost(flight, reason)

    def _nats_went(self) -> None:
        for flight in self._flights.values():
            flight.delivery.cut()

    def _nats_came(self) -> None:
        now = self._loop.time()
        self._clocks_anew(now)
        for flight in list(self._flights.values()):
            if flight.delivery.state is State.HELD:
                flight.delivery.send(now)
                self._send(flight)
            elif flight.delivery.state is State.TAKEN:
                flight.owner.nats_came(flight)

    def _clocks_anew(self, now: float) -> None:
        """Nothing was heard for a while, for a reason that is not the workers'."""
        for flight in self._flights.values():
            flight.delivery.back(now)


def _why(flight: Flight, reason: str) -> dict[str, str | int]:
    """What is told of an attempt that was lost."""
    delivery = flight.delivery
    told: dict[str, str | int] = {"fairlead.attempt": delivery.attempt, "fairlead.reason": reason}
    return told | {"fairlead.worker": delivery.worker} if delivery.worker else told
