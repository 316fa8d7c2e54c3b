"""Whom `direct` reaches: one client of the topic, on whatever edge it is."""

from __future__ import annotations

import contextlib

from fairlead.bus import Bus, NoResponders
from fairlead.errors import BadName, NoSuchPeer

NO_PEER = 404
"""Status of the error that a `NoSuchPeer` is to a client."""

PEER_WITHIN = 2.0
"""Seconds in which the edge of a `direct` peer must answer."""


async def reach(
    bus: Bus, topic: str, to: str, payload: bytes, headers: dict[str, str] | None
) -> None:
    """Give a peer what is for it alone.

    Raises:
        NoSuchPeer: nobody has it.
    """
    ways = [bus.subjects.peer(topic, to)]
    with contextlib.suppress(BadName):
        ways.insert(0, bus.subjects.connection(to))
    for way in ways:
        try:
            if await bus.request(way, payload, within=PEER_WITHIN, headers=headers) == b"1":
                return
        except (NoResponders, TimeoutError):
            continue
    raise NoSuchPeer(to)
