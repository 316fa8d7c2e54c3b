"""Before a client is let in: its rooms are listened to, and what it missed in them is found."""

from __future__ import annotations

import asyncio

from fairlead.errors import NotStored
from fairlead.protocol.cursor import Position
from fairlead.protocol.manifest import Route
from fairlead_edge.admission import Refused
from fairlead_edge.host import Host
from fairlead_edge.replay import Replay, resume
from fairlead_edge.room import Room


async def open_room(host: Host, route: Route, topic: str, channel: str) -> Room:
    """Listen to the room.

    Raises:
        Refused: 503, its stream or NATS does not answer.
    """
    history = host.fleet.table.topics.get(route.topic)
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            await host.bus.ready()
            return await host.hub.open(route.topic, topic, channel, history)
    except (NotStored, TimeoutError) as error:
        raise Refused.without_nats("the room cannot be joined", error) from None


async def open_rooms(host: Host, route: Route, of: list[tuple[str, str]]) -> list[Room]:
    """Listen to the rooms; raises as `open_room`, with none of them open."""
    rooms: list[Room] = []
    try:
        for topic, channel in of:
            rooms.append(await open_room(host, route, topic, channel))
    except BaseException:
        for room in rooms:
            host.hub.close(room)
        raise
    return rooms


async def replays_of(
    host: Host, rooms: list[Room], at: list[Position | None]
) -> list[Replay | None]:
    """What a client that was there missed in each of the opened rooms; all of it, or none.

    Raises:
        Refused: 503, the rooms' stream does not answer; the rooms are given back.
    """
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            found = [
                await resume(host.hub, room, where) for room, where in zip(rooms, at, strict=True)
            ]
            for room in rooms:
                await host.hub.located(room)
            for room in rooms:
                room.tally.recovered += all(found)
                room.tally.unrecovered += not all(found)
            return found if all(found) else [None] * len(rooms)
    except BaseException as error:
        for room in rooms:
            host.hub.close(room)
        if not isinstance(error, NotStored | TimeoutError):
            raise
        raise Refused.without_nats("what was missed cannot be read", error) from None
