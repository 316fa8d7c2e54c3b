"""What this edge asks the rooms' streams for: so many questions at a time, and no more.

A batched direct get scans a stream from the position on: 0.3 to 20 ms of one NATS server.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from fairlead import roomlog
from fairlead.bus import Bus
from fairlead.errors import NotStored
from fairlead.protocol.cursor import Position
from fairlead.protocol.lease import Fences
from fairlead.roomlog import RoomRead
from fairlead_edge.room import Room, RoomMessage

READS = 8
"""Questions that a stream is asked at a time; the others wait."""

WAITING = 4096
"""Of those who come back, how many may wait for a stream; more are to come again later."""


class _Stream:
    """Attributes: coming: those who came back, and have not been answered from this stream."""

    __slots__ = ("coming", "gate")

    def __init__(self) -> None:
        self.coming = 0
        self.gate = asyncio.Semaphore(READS)


class Crowded(NotStored):
    """So many wait for a room's stream that nobody else is to."""


class Coming:
    """One who has come back, for as long as a stream is asked for it.

    Raises:
        Crowded: too many wait already.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        if self._stream.coming >= WAITING:
            raise Crowded(f"{WAITING} wait for what they missed; come back later")
        self._stream.coming += 1

    def __exit__(self, *_: object) -> None:
        self._stream.coming -= 1


class Reading:
    """Each method raises NotStored if the room's stream does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    def coming(self, room: Room) -> Coming:
        """Around what is asked for a client that is not let in yet."""
        return Coming(self._streams[room.stream])

    def waiting(self, stream: str) -> int:
        """How many of those wait."""
        return self._streams[stream].coming

    async def last(self, room: Room) -> int:
        """The sequence of the room's last message, from the stream's leader; 0 if it is empty."""
        async with self._streams[room.stream].gate:
            return await roomlog.last(self._bus, room.stream, room.subject)

    async def page(self, room: Room, after: int) -> RoomRead:
        """What the stream has of the room after a sequence, as much as one question gives."""
        async with self._streams[room.stream].gate:
            return await roomlog.read_page(self._bus, room.stream, room.subject, after)

    async def messages(self, room: Room, after: int) -> list[RoomMessage]:
        """The same, as members get them."""
        fences = Fences()
        return [room.read(headers, data, fences) for headers, data in await self.page(room, after)]

    async def whole(self, room: Room, since: Position) -> bool:
        """Whether the room's stream still has all that it got after a position.

        By the rule for positions: its first stored message is not after it, or the room was
        never full since, and the position is younger than what it keeps. To be asked after
        reading; the answers are the leader's, as a replica may lag.
        """
        async with self._streams[room.stream].gate:
            first = await roomlog.first(self._bus, room.stream, room.subject)
            if 0 < first <= since.sequence:
                return True
            kept = await roomlog.kept(self._bus, room.stream, room.subject)
        return kept.limits.whole(kept.messages, since.time, kept.time)
