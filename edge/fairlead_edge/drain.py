"""Stopping an edge without losing anything."""

from __future__ import annotations

import asyncio
import random

from fairlead import logs
from fairlead.protocol.problems import Close
from fairlead_edge.host import Host

log = logs.get("fairlead.edge")

ACKS_WITHIN = 5.0
"""Seconds to wait for what workers have in hand."""

BATCH, PAUSE = 100, 0.05
"""Clients that are closed at a time, and seconds between: they must not all come back at once."""


async def drain(host: Host, grace: float) -> None:
    """Stop in the order that loses nothing. Not being ready any more is the caller's part.

    1. Take no more frames; wait until what is in hand is acknowledged, 5 s at most.
    2. Tell each client when to come back, at random within half of the grace.
    3. Close with 1012 in batches; end event streams with a `retry:`.
    4. The server then waits until the peers have closed, as `serve.py` says.

    Args:
        grace: seconds for all of it.
    """
    clients = list(host.clients.values())
    log.info("draining", clients=len(clients))
    host.tally.drained += len(clients)
    for client in clients:
        client.stop_taking()
    try:
        async with asyncio.timeout(min(ACKS_WITHIN, grace)):
            await host.quiet()
    except TimeoutError:
        host.tally.unacknowledged += host.relay.outstanding
        log.warning(
            "messages are unacknowledged; their clients resend", messages=host.relay.outstanding
        )
    spread = min(len(clients) / BATCH * PAUSE, grace / 2)
    for first in range(0, len(clients), BATCH):
        for client in clients[first : first + BATCH]:
            client.announce_drain(int(random.uniform(0, 1000 + spread * 1000)))
            client.close(Close.RESTART, "this edge is drained; reconnect")
        await asyncio.sleep(PAUSE)
