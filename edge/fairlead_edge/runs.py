"""Runs with `resume`, as the edge of their viewers sees them.

A run belongs to no edge. Each edge that shows it tells the worker so, every two seconds and
whenever its viewers have read on; if nobody is there to be told, the run is taken up by another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from fairlead import logs
from fairlead.bus import Bus, NoResponders
from fairlead.errors import BadName
from fairlead.protocol import envelope, runlog
from fairlead.protocol.delivery import BEAT
from fairlead.protocol.envelope import DataType, Kind, Wanted, Wish, Work
from fairlead.protocol.manifest import Route
from fairlead.protocol.runlog import Viewing
from fairlead_edge.flight import Flight, Owner
from fairlead_edge.relay import Relay

log = logs.get("fairlead.edge")
_nobodys = logs.Seldom(log.warning, "a run is in nobody's hands", ["status"])

READ_STEP = 64 * 1024
"""Bytes read by a run's viewers after which its worker is told."""

_DIGITS = 19
"""Of a message's number, at most: what JSON takes."""

HANGS_AFTER = 2
"""Beats in a row that the worker of a run does not answer, after which another takes it up."""


class Viewer(Protocol):
    """A client that reads a run."""

    run: str
    inbound: str

    @property
    def route(self) -> Route: ...


class Copy(Protocol):
    """A client that reads a run without `resume`, of another client."""

    run: str
    key: str
    who: str
    missed: int

    @property
    def route(self) -> Route: ...

    def lost(self) -> None: ...


class _Viewed:
    """A run that is shown here.

    Attributes:
        read: stream sequence of the newest entry that the quickest viewer has been sent.
        untold: bytes read since the worker was told.
        missed: beats in a row that nobody answered.
        taking_up: whether another worker is being asked to take it up.
    """

    __slots__ = ("inbound", "missed", "read", "route", "taking_up", "untold", "viewers")

    def __init__(self, route: Route, inbound: str) -> None:
        self.route = route
        self.inbound = inbound
        self.viewers: set[Viewer] = set()
        self.read = 0
        self.untold = 0
        self.missed = 0
        self.taking_up = False


class _Request(Owner):
    """A worker is asked to take a run up, or to end one that nobody has."""

    __slots__ = ("_done", "id")

    def __init__(self, id: str, done: Callable[[dict[str, Any] | None], None]) -> None:
        self.id = id
        self._done = done

    def finished(self, flight: Flight, failure: dict[str, Any] | None) -> None:
        self._done(failure)


class Runs:
    """The runs that clients of this edge read."""

    def __init__(self, bus: Bus, relay: Relay, edge: str, new_id: Callable[[], str]) -> None:
        self._bus = bus
        self._relay = relay
        self._edge = edge
        self._new_id = new_id
        self._viewed: dict[str, _Viewed] = {}
        self._copies: set[Copy] = set()

    @property
    def viewed(self) -> list[tuple[str, str, int]]:
        """Runs with `resume` that are read here: (run, label of its workflow, readers)."""
        return [(run, each.route.label, len(each.viewers)) for run, each in self._viewed.items()]

    def enter(self, viewer: Viewer) -> None:
        """A client reads a run from now on."""
        viewed = self._viewed.get(viewer.run)
        if viewed is None:
            viewed = self._viewed[viewer.run] = _Viewed(viewer.route, viewer.inbound)
        viewed.viewers.add(viewer)
        self._tell(viewer.run, viewed)

    def leave(self, viewer: Viewer) -> None:
        """It has left, or the run has ended."""
        viewed = self._viewed.get(viewer.run)
        if viewed is None:
            return
        viewed.viewers.discard(viewer)
        if not viewed.viewers:
            del self._viewed[viewer.run]
            self._tell(viewer.run, viewed)

    def wrote(self, run: str, sequence: int, size: int) -> None:
        """A viewer was sent so many bytes, up to an entry."""
        viewed = self._viewed.get(run)
        if viewed is not None and sequence >= viewed.read:
            viewed.read = sequence
            viewed.untold += size
            if viewed.untold >= READ_STEP:
                self._tell(run, viewed)

    def _tell(self, run: str, viewed: _Viewed) -> None:
        """Let the worker know; if nobody hears it, the next beat finds that out."""
        viewed.untold = 0
        if self._bus.connected:
            self._bus.publish(self._bus.subjects.run_control(run), self._words(viewed))

    def _words(self, viewed: _Viewed) -> bytes:
        return runlog.encode_viewing(Viewing(self._edge, len(viewed.viewers), viewed.read))

    async def watch(self) -> None:
        """Tell the workers of all runs who reads them, until cancelled."""
        while True:
            await asyncio.sleep(BEAT)
            if self._bus.connected:
                beats = [self._beat(*each) for each in list(self._viewed.items())]
                await asyncio.gather(*beats, *map(self._renew, list(self._copies)))

    async def _beat(self, run: str, viewed: _Viewed) -> None:
        subject = self._bus.subjects.run_control(run)
        try:
            await self._bus.request(subject, self._words(viewed), within=BEAT)
            viewed.missed = 0
        except NoResponders:
            self.take_up(run)
        except TimeoutError:
            viewed.missed = viewed.missed + 1 if self._bus.connected else 0
            if viewed.missed >= HANGS_AFTER:
                viewed.missed = 0
                self.take_up(run)

    def take_up(self, run: str) -> None:
        """Have a worker go on with a run that is shown here, if none has it."""
        viewed = self._viewed.get(run)
        if viewed is None or viewed.taking_up:
            return
        viewed.taking_up = True

        def done(failure: dict[str, Any] | None) -> None:
            viewed.taking_up = False
            if failure is not None:  # the next beat asks again
                _nobodys(run=run, workflow=viewed.route.label, status=failure.get("status"))

        self._ask(viewed.route, viewed.inbound, run, b"", done)

    # Runs without `resume`, which are their edges'

    def copied(self, copy: Copy) -> None:
        """A client of this edge reads a run of another one's client."""
        self._copies.add(copy)

    def copy_left(self, copy: Copy) -> None:
        self._copies.discard(copy)

    async def wish(self, run: str, key: str, who: str, wish: Wish, route: Route) -> bool:
        """Ask the edge that has a run; False if none has it, or it does not grant that.

        Args:
            route: of whom the policies let the client in, and found `who`.
        """
        of = route.feature, route.workflow
        return await self._asked(run, Wanted(0, wish, of, key, who)) == b"1"

    async def place(self, run: str) -> tuple[str, dict[str, str]] | None:
        """NATS subject and path parameters of a run that an edge has; None if none has it."""
        answer = await self._asked(run, Wanted(0, Wish.PLACE))
        return None if answer == b"0" else envelope.decode_place(answer)

    async def _asked(self, run: str, wanted: Wanted) -> bytes:
        """What the edge of a run says; b"0" without one."""
        connection, _, number = run.rpartition("-")
        if len(number) > _DIGITS:
            return b"0"
        try:
            subject = self._bus.subjects.connection(connection)
            words = envelope.run(replace(wanted, number=int(number)))
            return await self._bus.request(subject, words, within=BEAT)
        except (BadName, ValueError, NoResponders, TimeoutError):
            return b"0"

    async def _renew(self, copy: Copy) -> None:
        granted = await self.wish(copy.run, copy.key, copy.who, Wish.COPY, copy.route)
        if not granted and self._bus.connected:
            copy.missed += 1
            if copy.missed >= HANGS_AFTER:
                self._copies.discard(copy)
                copy.lost()
        else:
            copy.missed = 0

    # Ending

    async def cancel(self, run: str, route: Route, inbound: str) -> dict[str, Any] | None:
        """End a run, wherever it is; returns when it was told so, with a problem if it was not."""
        with contextlib.suppress(NoResponders, TimeoutError):
            subject = self._bus.subjects.run_control(run)
            await self._bus.request(subject, runlog.CANCEL, within=BEAT)
            return None
        # Nobody has it, or who has it hangs: another ends it.
        told: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._ask(route, inbound, run, runlog.CANCEL, told.set_result)
        return await told

    def _ask(
        self, route: Route, inbound: str, run: str, what: bytes,
        done: Callable[[dict[str, Any] | None], None],
    ) -> None:  # fmt: skip
        work = Work(Kind.REOPEN, DataType.BINARY, what, id=run)
        self._relay.submit(Flight(_Request(self._new_id(), done), route, 1, inbound, work))
