"""The trivial peer, for the generator's own ceiling: `python -m bench.peer`.

Knows no rooms, no NATS and no limits: echoes each client's frames, and writes numbered
messages to all clients when told so, by the commands of `bench.publisher`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any, cast

import uvloop

from bench import wire
from bench.lines import Commands, say

TOGETHER = 512
"""Messages of a burst in one write."""

AHEAD = 128 * 1024
"""Bytes that one socket may be behind before a burst waits for it."""


class Peer(asyncio.Protocol):
    """One client of the trivial peer."""

    transport: asyncio.Transport

    def __init__(self, everyone: set[Peer]) -> None:
        self._everyone = everyone
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            _, end, rest = self._buffer.partition(b"\r\n\r\n")
            if end:
                self._open, self._buffer = True, rest
                self._everyone.add(self)
                self.transport.write(wire.UPGRADED)
            return
        answers = []
        while (frame := wire.parse(self._buffer)) is not None:
            self._buffer = self._buffer[frame.size :]
            answers.append(wire.server_frame(frame.data, frame.opcode))
        if answers:
            self.transport.write(b"".join(answers))

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)


async def _burst(everyone: set[Peer], first: int, count: int) -> list[int]:
    """As fast as the sockets take it."""
    begin = time.monotonic_ns()
    for start in range(first, first + count, TOGETHER):
        numbers = range(start, min(start + TOGETHER, first + count))
        data = b"".join(wire.server_frame(wire.payload(number)) for number in numbers)
        for peer in everyone:
            peer.transport.write(data)
        await asyncio.sleep(0)
        while _behind(everyone):  # noqa: ASYNC110  # an event for each socket would cost more
            await asyncio.sleep(0)
    return [begin] * count


def _behind(everyone: set[Peer]) -> bool:
    return any(peer.transport.get_write_buffer_size() > AHEAD for peer in everyone)


async def _paced(everyone: set[Peer], first: int, count: int, rate: float) -> list[int]:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    sent = []
    for index in range(count):
        await asyncio.sleep(begin + index / rate - loop.time())
        sent.append(time.monotonic_ns())
        data = wire.server_frame(wire.payload(first + index))
        for peer in everyone:
            peer.transport.write(data)
    return sent


async def _serve() -> None:
    everyone: set[Peer] = set()
    commands = await Commands.open()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(everyone), "127.0.0.1", 0, backlog=4096)
    gc.freeze()
    say("open", port=server.sockets[0].getsockname()[1])
    while (command := await commands.next()) is not None:
        say("published", sent=await _obey(everyone, command))


async def _obey(everyone: set[Peer], command: dict[str, Any]) -> list[int]:
    first, count = command["first"], command["count"]
    if command.get("rate"):
        return await _paced(everyone, first, count, command["rate"])
    return await _burst(everyone, first, count)


if __name__ == "__main__":
    uvloop.run(_serve())
