"""A run without `resume`, shown on a second stream: what it says from now on, from the first one's edge.

That edge passes on what it hears for as long as it is asked to, which each copy does with every
beat. Nothing is kept, so there is nothing to come back to.
"""

from __future__ import annotations

from typing import Any, Protocol

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, DataType, Wish
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import NO_WORKER, problem
from fairlead_edge.buffers import PER_CLIENT
from fairlead_edge.runs import Runs


class Showing(Protocol):
    """The stream of events that shows the run."""

    route: Route

    def show_item(
        self, data_type: DataType, data: bytes, meta: dict[str, Any] | None, id: None, sequence: int
    ) -> int:
        """Send an item; returns its bytes, and tells `wrote` when they are written."""
        ...

    def show_end(self, failure: dict[str, Any] | None) -> None: ...

    def give_up(self) -> None:
        """Its client reads too slowly."""
        ...


class Copy:
    """One client that reads a run that another one began.

    Attributes:
        run, key, who: what it may be asked for with.
        missed: beats in a row in which nobody passed it on.
    """

    def __init__(self, bus: Bus, runs: Runs, stream: Showing, run: str, key: str, who: str) -> None:
        self.run = run
        self.key = key
        self.who = who
        self.missed = 0
        self._bus = bus
        self._runs = runs
        self._stream = stream
        self._waiting = 0
        self._interest = bus.subscribe(bus.subjects.run_live(run), self._heard)

    @property
    def route(self) -> Route:
        """Whose policies let the client in."""
        return self._stream.route

    async def granted(self) -> bool:
        """Ask for it; what is said from now on is heard."""
        return await self._runs.wish(self.run, self.key, self.who, Wish.COPY, self.route)

    def enter(self) -> None:
        self._runs.copied(self)

    def left(self) -> None:
        self._runs.copy_left(self)
        self._bus.unsubscribe(self._interest)

    def lost(self) -> None:
        """The edge that had the run is gone, or the run is."""
        self._stream.show_end(problem(NO_WORKER, "the edge that this run was on is gone"))

    def wrote(self, sequence: int, size: int) -> None:
        self._waiting -= size

    def _heard(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        try:
            kind = data[0]
            if kind == Answer.ITEM:
                self._item(*envelope.decode_item(data), None)
            elif kind == Answer.EVENT:
                meta, data_type, body = envelope.decode_event(data)
                self._item(data_type, body, meta)
            elif kind == Answer.ERROR:
                self._stream.show_end(envelope.decode_error(data))
            elif kind == Answer.DONE:
                self._stream.show_end(None)
        except (Malformed, IndexError) as error:
            logs.dropped(subject, data, error)

    def _item(self, data_type: DataType, data: bytes, meta: dict[str, Any] | None) -> None:
        if self._waiting > PER_CLIENT:  # before this one: it may be as large as that
            self._stream.give_up()
        self._waiting += self._stream.show_item(data_type, data, meta, None, 0)
