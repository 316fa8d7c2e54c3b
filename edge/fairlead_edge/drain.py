"""Stopping an edge without losing anything."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from fairlead import logs
from fairlead.protocol.problems import Close
from fairlead_edge.host import Host
from fairlead_edge.ws import CLOSE_WITHIN

log = logs.get("fairlead.edge")

ACKS_WITHIN = 5.0
"""Seconds to wait for what workers have in hand."""

RATE = 2000
"""Clients that may come back to the other edges in a second: they must not all come at once."""

BATCH = 100
"""Clients that are closed at a time. The others are served in between."""

PAUSE = BATCH / RATE
"""Seconds between where the grace is long enough; shorter where it is not."""

COME_BACK = 1.0
"""Seconds over which those of a batch come back."""


class Pace(NamedTuple):
    """How the clients leave.

    Attributes:
        rate: of them in a second.
        within: seconds in which each comes back after it was closed. What the grace is too short
            to spread, the clients do.
    """

    rate: float
    within: float

    @classmethod
    def of(cls, clients: int, seconds: float) -> Pace:
        """Args: seconds: that there are until the last is to be closed."""
        spread = clients / RATE
        if spread <= seconds:
            return cls(RATE, COME_BACK)
        return cls(clients / seconds, COME_BACK + spread - seconds)

    def draw(self) -> int:
        """When one client is to come back, in ms: at random in the second half, as those who are
        told so may draw once more, between 0 and this."""
        return int(1000 * self.within * random.uniform(0.5, 1.0))


async def drain(host: Host, grace: float) -> None:
    """Stop in the order that loses nothing. Not being ready any more is the caller's part.

    1. Take no more frames; wait until what is in hand is acknowledged, 5 s at most.
    2. Client by client, those who read slowly last: say when to come back, and close with 1012;
       end event streams with a `retry:`.
    3. The peers then close, too: `serve.py` waits for that.

    Args:
        grace: seconds for all of it. A third is for the peers, a third at least for the closing,
            5 s for each of the others at most.
    """
    loop = asyncio.get_running_loop()
    clients = list(host.clients.values())
    log.info("draining", clients=len(clients))
    host.tally.drained += len(clients)
    for client in clients:
        client.stop_taking()
    closed_by = loop.time() + grace - min(CLOSE_WITHIN, grace / 3)
    closing = min(len(clients) / RATE, grace / 3)
    try:
        async with asyncio.timeout_at(min(loop.time() + ACKS_WITHIN, closed_by - closing)):
            await host.quiet()
    except TimeoutError:
        host.tally.unacknowledged += host.relay.outstanding
        log.warning(
            "messages are unacknowledged; their clients resend", messages=host.relay.outstanding
        )
    await _close_all(host, closed_by)


async def _close_all(host: Host, closed_by: float) -> None:
    """Close all clients by then, in loop time, at the pace that this makes for."""
    loop = asyncio.get_running_loop()
    clients = sorted(host.clients.values(), key=host.buffers.waiting)
    began = loop.time()
    pace = Pace.of(len(clients), max(PAUSE, closed_by - began))
    for closed in range(0, len(clients), BATCH):
        # By the clock: closing takes time, too.
        await asyncio.sleep(began + closed / pace.rate - loop.time())
        for client in clients[closed : closed + BATCH]:
            client.announce_drain(pace.draw())
            client.close(Close.RESTART, "this edge is drained; reconnect")
