"""Several rooms of one topic on one event stream, with one cursor for all of them.

A cursor of a single room would not do: a message of one room may pass one of another that is
being read again after a gap, and who comes back between the two must miss neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fairlead.errors import Malformed
from fairlead.protocol import cursor
from fairlead.protocol.cursor import Position, Several
from fairlead.protocol.problems import Close
from fairlead_edge.outgoing import Batch
from fairlead_edge.room import GATHERED, Room, RoomMessage

LIMIT = 100
"""Rooms that one stream can show."""


class Showing(Protocol):
    """The stream that shows the rooms."""

    id: str

    @property
    def gone(self) -> bool: ...

    async def drained(self) -> None: ...

    def close(self, code: Close, reason: str) -> None: ...

    def gathered(self, message: RoomMessage, id: str | None) -> bool:
        """Show a message of one of the rooms; returns whether the client is slow."""
        ...

    def say_cursor(self) -> None: ...


class Gathering:
    """Where a stream stands in each of its rooms."""

    def __init__(self, stream: Showing, rooms: Sequence[Room]) -> None:
        self._stream = stream
        self._rooms = rooms
        self._at: dict[str, Position | None] = {}

    def begin(self, after: Sequence[Position | None]) -> list[Part]:
        """Make a member for each room.

        Args:
            after: where the client comes back to; None is the room's present.
        """
        for room, position in zip(self._rooms, after, strict=True):
            self._at[room.subject] = position or room.position
        return [Part(self, self._stream, room) for room in self._rooms]

    @property
    def cursor(self) -> str | None:
        """All that was shown so far; None if one of the rooms has no history."""
        at = [self._at[subject] for subject in sorted(self._at)]
        known = [position for position in at if position is not None]
        if len(known) < len(at):
            return None
        # All in one stream; the oldest time is true of each of them.
        several = Several(
            known[0].created,
            min(position.time for position in known),
            tuple(position.sequence for position in known),
        )
        return cursor.encode(several, owner(self._rooms))

    def passed(self, room: Room, position: Position) -> None:
        """The client has all of a room up to here."""
        self._at[room.subject] = position


class Part:
    """The stream as a member of one of its rooms. Implements `room.Gatherer`."""

    def __init__(self, gathering: Gathering, stream: Showing, room: Room) -> None:
        self.id = stream.id
        self._gathering = gathering
        self._stream = stream
        self._room = room

    @property
    def dialect(self) -> str:
        return GATHERED

    @property
    def gone(self) -> bool:
        return self._stream.gone

    async def drained(self) -> None:
        await self._stream.drained()

    def close(self, code: Close, reason: str) -> None:
        self._stream.close(code, reason)

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        raise AssertionError("a gatherer gets whole messages")

    def room_messages(self, messages: Sequence[RoomMessage]) -> bool:
        slow = False
        for message in messages:
            if message.id is not None:
                at = cursor.decode(message.id, self._room.subject)
                assert isinstance(at, Position)
                self._gathering.passed(self._room, at)
            if not message.hidden:
                slow |= self._stream.gathered(message, message.id and self._gathering.cursor)
        return slow

    def room_position(self, position: Position) -> None:
        self._gathering.passed(self._room, position)
        self._stream.say_cursor()


def owner(rooms: Sequence[Room]) -> str:
    """What a cursor of these rooms belongs to: with others, it means nothing."""
    return ",".join(sorted(room.subject for room in rooms))


def positions_of(text: str, rooms: Sequence[Room]) -> list[Position | None]:
    """The place in each room that a client's cursor means; None where it means none."""
    nowhere: list[Position | None] = [None] * len(rooms)
    try:
        found = cursor.decode(text, owner(rooms))
    except Malformed:
        return nowhere
    if not isinstance(found, Several) or len(found.sequences) != len(rooms):
        return nowhere
    subjects = sorted(room.subject for room in rooms)
    sequences = dict(zip(subjects, found.sequences, strict=True))
    return [Position(found.created, sequences[room.subject], found.time) for room in rooms]
