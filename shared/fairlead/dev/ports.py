"""Ports of this machine: which are free, and what answers on them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from contextlib import closing

LOOPBACK = "127.0.0.1"

# Seconds an admin port may take to answer; a busy one is asked again.
ANSWER = 2.0

HELD = 100
"""Ports that are held for their servers; of more the oldest are let go."""

_held: deque[int] = deque()  # descriptors of bound sockets


def free_port() -> int:
    """A port that nobody has now.

    On Linux nobody gets it by chance either, neither who connects nor who listens on any port, until this
    process ends or has asked for `HELD` more: not before its server starts, and not while that is
    started again. Elsewhere use it soon.
    """
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        if sys.platform == "linux":
            # Bound and not listening it is passed over by the kernel, but shared with who also says
            # this, as servers do (socket(7), SO_REUSEADDR; other systems want more for that).
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _held.append(probe.detach())
    while len(_held) > HELD:
        os.close(_held.popleft())
    return port


def taken(port: int) -> bool:
    """Whether a server could not listen on `port`, connections of an earlier one aside."""
    with closing(socket.socket()) as probe:
        # As every server does: what an earlier one left in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return True
    return False


async def is_ready(port: int) -> bool:
    """Whether `/readyz` of an admin port says 200."""
    try:
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(
                    b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split(b" ")[1:2] == [b"200"]
