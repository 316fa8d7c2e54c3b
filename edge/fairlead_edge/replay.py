"""A client that comes back to a room: from its cursor to the present, then a member like the others.

::

    cursor ──▶ is all that it missed still there? ──▶ welcome, recovered
    pages from the room's stream, then its ring ──as the client reads──▶ join

Until it has caught up, a client is no member: what is said meanwhile waits in the ring or in the
stream, and not in this edge's memory, however slowly the client reads.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from fairlead import logs
from fairlead.errors import Malformed, NotStored
from fairlead.protocol import cursor
from fairlead.protocol.cursor import Position
from fairlead.protocol.problems import Close
from fairlead_edge.hub import LAG, LAG_TRIES, Hub
from fairlead_edge.room import Member, Room, RoomMessage, deliver

if TYPE_CHECKING:
    from fairlead_edge.spans import Replaying

log = logs.get("fairlead.edge")
_unread = logs.Seldom(log.warning, "what a client missed cannot be read")

PAGE = 64 * 1024
"""Bytes that are written before the client is waited for."""


class Returning(Member, Protocol):
    """A member that can be waited for."""

    @property
    def gone(self) -> bool:
        """Whether its connection has ended."""
        ...

    async def drained(self) -> None:
        """Wait until what it was sent is on its way, or it is gone."""
        ...


class Replay:
    """What one client missed, and its way back. Made by `resume`.

    Attributes:
        span: told of it, where the client's coming is sampled.
    """

    span: Replaying | None = None

    def __init__(self, hub: Hub, room: Room, after: Position, read: list[RoomMessage]) -> None:
        self._hub = hub
        self._room = room
        self._after = after
        self._read = read

    async def run(self, member: Returning) -> None:
        """Send what was missed, in order and once, and make it a member."""
        code = 0
        try:
            code = await self._bring(member)
        finally:
            if self.span is not None:
                self.span.end(code)

    async def _bring(self, member: Returning) -> int:
        """Returns the code that the client was closed with, 0 if it was not."""
        try:
            while not member.gone and self._in_its_stream():
                if self._room.ring.covers(self._after.sequence):
                    self._hub.flush(self._room)
                    missed = self._room.ring.since(self._after.sequence)
                    page = _page(missed)
                    self._send(page, member)
                    if len(page) == len(missed):
                        self._hub.join(self._room, member)
                        return 0
                else:
                    read = self._read or await _read(self._hub, self._room, self._after)
                    if read is None:
                        break
                    self._read = []
                    self._send(read, member)
                await member.drained()
        except Exception as error:  # whatever it is, the client must not stay outside unnoticed
            _unread(topic=self._room.template, error=error)
        if member.gone:
            return 0
        member.close(Close.POSITION_LOST, "messages were lost; reconnect")
        return Close.POSITION_LOST

    def _in_its_stream(self) -> bool:
        """Whether the room has its place, and in the stream that the client's is in."""
        position = self._room.position
        return position is not None and position.created == self._after.created

    def _send(self, messages: list[RoomMessage], member: Returning) -> None:
        if messages:
            self._room.tally.replayed += len(messages)
            deliver(member, messages if self.span is None else self.span.sent(messages))
            newest = messages[-1]
            at = cursor.decode(newest.id or "", self._room.subject)
            assert isinstance(at, Position)
            self._after = at

    @property
    def after(self) -> Position:
        """Where the client is: nothing later has been sent yet."""
        return self._after


def position_of(text: str, room: Room) -> Position | None:
    """The place in a room that a client's cursor means; None where it means none."""
    try:
        found = cursor.decode(text, room.subject)
    except Malformed:
        return None
    return found if isinstance(found, Position) else None


async def resume(hub: Hub, room: Room, after: Position | None) -> Replay | None:
    """Find what a client that was there missed; None if that cannot be told, or not in full.

    Raises:
        NotStored: the room's stream does not answer, or too many ask it; nobody knows yet.
    """
    if after is None or room.position is None or after.created != room.position.created:
        return None
    if after.sequence > room.position.sequence and not await hub.level(room, after.sequence):
        return None
    if room.position is None:
        return None
    read: list[RoomMessage] = []
    if room.ring.covers(after.sequence):
        room.tally.ring_hits += 1
    else:
        room.tally.ring_misses += 1
        with hub.reading.coming(room):
            async with hub.backfilling(room):
                # Whoever came first may have read it for all.
                if not room.ring.covers(after.sequence):
                    page = await _read(hub, room, after)
                    if page is None:
                        return None
                    read = page
    return Replay(hub, room, after, read)


async def _read(hub: Hub, room: Room, after: Position) -> list[RoomMessage] | None:
    """Read a page of what the stream has after a position, into the ring if that is all of it.

    Returns:
        The page, [] if there is nothing; None if something was there and is gone.

    Raises:
        NotStored: the stream does not answer.
    """
    floor = room.ring.floor
    last = await hub.reading.last(room)
    page = await _page_of_stream(hub, room, after.sequence, last)
    if not await hub.reading.whole(room, after):
        return None
    if room.position is None or any(message.id is None for message in page):
        return None  # the edge has lost its own place meanwhile
    end = page[-1].sequence if page else after.sequence
    # It reaches the ring, or what lies between them is nothing: the ring gave nothing away meanwhile.
    if end >= room.ring.floor or (end >= last and room.ring.floor == floor):
        room.ring.backfill(page, after.sequence)
    # What this edge has not heard yet will come to it as to all members, and is not to come twice.
    return [message for message in page if message.sequence <= room.position.sequence]


async def _page_of_stream(hub: Hub, room: Room, after: int, last: int) -> list[RoomMessage]:
    """A page; any replica may answer, so one that is empty while there is more is asked for again.

    Raises:
        NotStored: no replica has what the leader has.
    """
    for _ in range(LAG_TRIES):
        if last <= after:
            return []
        if page := await hub.reading.messages(room, after):
            return page
        await asyncio.sleep(LAG)
    raise NotStored(f"message {last} of the room is on no replica")


def _page(messages: list[RoomMessage]) -> list[RoomMessage]:
    """The first of them, up to a page; at least one."""
    size = 0
    for number, message in enumerate(messages):
        size += len(message.data)
        if number and size > PAGE:
            return messages[:number]
    return messages
