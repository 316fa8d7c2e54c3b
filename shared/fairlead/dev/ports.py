"""Ports of this machine: which are free, and what answers on them."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from contextlib import closing

LOOPBACK = "127.0.0.1"

# Below those that a system gives to whoever connects or listens without a wish (Linux from 32768,
# ip-sysctl; macOS and RFC 6335 section 6 from 49152): such a port would not wait for its server,
# neither until it starts nor while it is started again.
_LEFT_ALONE = range(20_000, 32_768)

# Seconds an admin port may take to answer; a busy one is asked again.
ANSWER = 2.0


def free_port() -> int:
    """A port that nobody has now, of those that nobody gets by chance.

    Raises:
        OSError: all are taken (EADDRINUSE).
    """
    # By the system's own dice: a seed that two test processes share would give both the same.
    for port in random.SystemRandom().sample(_LEFT_ALONE, len(_LEFT_ALONE)):
        if not taken(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no port of {LOOPBACK} is free from 20000 to 32767")


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
