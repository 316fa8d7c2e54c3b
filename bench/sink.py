"""A minimal collector of traces (OTLP over HTTP): `python -m bench.sink`.

Takes every POST, answers 200 with an empty body, and counts. For each line on stdin it
says `counted` with what has come since the one before.
"""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from bench.lines import Commands, say

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"

_ONCE_A_SPAN = b"messaging.system"
"""An attribute that each span of ours has once: counting it spares the decoding."""


class Sink(asyncio.Protocol):
    """One connection of an exporter."""

    requests = 0
    spans = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            size = end + 4 + _length(bytes(self._buffer[:end]))
            if len(self._buffer) < size:
                return
            Sink.requests += 1
            Sink.spans += self._buffer.count(_ONCE_A_SPAN, 0, size)
            del self._buffer[:size]
            self._transport.write(_ANSWER)


def _length(head: bytes) -> int:
    """The content length that a request's head names, in bytes."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def _serve() -> None:
    commands = await Commands.open()
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    say("open", port=server.sockets[0].getsockname()[1])
    while await commands.next() is not None:
        say("counted", requests=Sink.requests, spans=Sink.spans)
        Sink.requests = Sink.spans = 0


if __name__ == "__main__":
    uvloop.run(_serve())
