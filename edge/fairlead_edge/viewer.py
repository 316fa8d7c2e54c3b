"""A client that reads a run's log: from its cursor, or from the beginning, to the end.

Entries come as the messages of a room do, from the stream or live; each becomes events here, whose
ids are places in the log. Who reads too slowly is no member of that room for a while, and is served
from the stream, as one who comes back is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fairlead import logs
from fairlead.errors import Malformed
from fairlead.protocol import cursor, envelope, runlog
from fairlead.protocol.cursor import Position, RunPlace
from fairlead.protocol.envelope import Answer, DataType
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, Close
from fairlead.protocol.runlog import Entry
from fairlead_edge.hub import Hub
from fairlead_edge.outgoing import Batch
from fairlead_edge.replay import Replay
from fairlead_edge.room import GATHERED, Room, RoomMessage
from fairlead_edge.runs import Runs

if TYPE_CHECKING:
    from fairlead_edge.spans import Replaying

log = logs.get("fairlead.edge")
_dropped = logs.Seldom(log.error, "an entry of a run's log is dropped")

BEHIND = 256 * 1024
"""Bytes that may wait for a viewer; with more it is left to read from the stream, at its own pace."""


class Showing(Protocol):
    """The stream of events that shows the run."""

    id: str
    route: Route

    @property
    def gone(self) -> bool: ...

    async def drained(self) -> None: ...

    def close(self, code: Close, reason: str) -> None: ...

    def show_item(
        self, data_type: DataType, data: bytes, meta: dict[str, Any] | None, id: str, sequence: int
    ) -> int:
        """Send an item; returns its bytes, and tells `wrote` when they are written."""
        ...

    def show_event(self, name: str, data: Any, id: str) -> None: ...

    def show_end(self, failure: dict[str, Any] | None) -> None: ...


class Viewer:
    """One client of a run. Implements `room.Gatherer` and `replay.Returning`.

    Attributes:
        run: its id; inbound: NATS subject of its workflow's work.

    Args:
        room: the run's log, opened.
        after: where in the stream to begin.
        place: what of the run was seen; None is nothing.
        span: told of what it is brought up to the present with, where its request is sampled.
    """

    def __init__(
        self, hub: Hub, runs: Runs, stream: Showing, room: Room, run: str, key: str, inbound: str,
        after: Position, place: RunPlace | None = None, span: Replaying | None = None,
    ) -> None:  # fmt: skip
        self.id = stream.id
        self.run = run
        self.inbound = inbound
        self._hub = hub
        self._runs = runs
        self._stream = stream
        self._room = room
        self._created = after.created
        self._proof = runlog.proof(key)
        self._after = after
        self._sequence = after.sequence
        self._number = place.number if place is not None else 0
        self._index = place.index if place is not None else 0
        self._waiting = 0  # bytes
        self._ended = False
        self._returning: asyncio.Task[None] | None = None
        self._span = span

    @property
    def route(self) -> Route:
        return self._stream.route

    @property
    def dialect(self) -> str:
        return GATHERED

    @property
    def gone(self) -> bool:
        return self._stream.gone

    @property
    def place(self) -> str:
        """The cursor of what was seen."""
        at = RunPlace(
            self.run, self._created, self._sequence, self._number, self._index, self._proof
        )
        return cursor.encode(at, self.route.endpoint)

    def enter(self) -> None:
        """Begin to read."""
        self._runs.enter(self)
        self._return(self._after)

    def left(self) -> None:
        """The client is gone, or has it all. The room is given back."""
        if self._returning is not None:
            self._returning.cancel()
        self._hub.leave(self._room, self)
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._runs.leave(self)

    def _return(self, after: Position) -> None:
        replay = Replay(self._hub, self._room, after, [])
        replay.span, self._span = self._span, None  # of the first one, that of coming
        self._returning = asyncio.ensure_future(replay.run(self))

    async def drained(self) -> None:
        await self._stream.drained()

    def wrote(self, sequence: int, size: int) -> None:
        """Some of what it was sent is on its way."""
        self._waiting -= size
        self._runs.wrote(self.run, sequence, size)

    # As a member of the log's room

    def close(self, code: Close, reason: str) -> None:
        self._stream.close(code, reason)

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        raise AssertionError("a viewer gets whole entries")

    def room_position(self, position: Position) -> None:
        pass  # a place in a run's log does not age

    def room_messages(self, messages: Sequence[RoomMessage]) -> bool:
        for message in messages:
            try:
                self._entry(runlog.decode_entry(message.data), message.sequence)
            except Malformed as error:
                _dropped(run=self.run, bytes=len(message.data), error=error)
        slow = self._waiting > BEHIND
        if slow and (self._returning is None or self._returning.done()):
            self._room.leave(self)
            self._return(Position(self._created, self._sequence, _now()))
        return slow

    def _entry(self, entry: Entry, sequence: int) -> None:
        if entry.number < self._number or self._ended:
            return
        seen = self._index if entry.number == self._number else 0
        # Of an entry that was seen in part the rest must come, too.
        missed = entry.number > self._number and not entry.begins
        first = not self._number
        self._number, self._sequence, self._index = entry.number, sequence, seen
        if missed:
            self._stream.show_event("gap", {"cursor": self.place}, self.place)
        for answer in entry.said[seen:]:
            self._index += 1
            if self._index == len(entry.said):
                self._number, self._index = entry.number + 1, 0
            self._answer(entry.attempt, answer, first)

    def _answer(self, attempt: int, answer: bytes, first: bool) -> None:
        kind = answer[0]
        if kind in (Answer.ITEM, Answer.RESULT):
            self._item(*envelope.decode_item(answer), None)
        elif kind == Answer.EVENT:
            meta, data_type, data = envelope.decode_event(answer)
            self._item(data_type, data, meta)
        elif kind == Answer.START and not first:
            said = {"run": self.run, "attempt": attempt}
            self._stream.show_event("restart", said, self.place)
        elif kind == Answer.LEFT:
            self._runs.take_up(self.run)
        if kind in runlog.LAST:
            self._end()
            failure = envelope.decode_error(answer) if kind == Answer.ERROR else None
            cancelled = failure is not None and failure.get("status") == CANCELLED
            self._stream.show_end(None if cancelled else failure)

    def _item(self, data_type: DataType, data: bytes, meta: dict[str, Any] | None) -> None:
        self._waiting += self._stream.show_item(data_type, data, meta, self.place, self._sequence)


def _now() -> int:
    """As positions have it: ms since the epoch."""
    return int(time.time() * 1000)
