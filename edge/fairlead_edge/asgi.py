"""A WebSocket of any ASGI server, with the interface that `Connection` knows from `ws.py`.

For an edge that is mounted in somebody's application: the server is theirs, so frames come
and go through `receive` and `send`, by two tasks for each connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Scope, Send

from fairlead.protocol.problems import Close
from fairlead_edge.ws import CUT, HIGH_WATER

if TYPE_CHECKING:
    from fairlead_edge.connection import Connection

_TEXT = 0x81
"""First byte of a whole text message (RFC 6455, 5.2); ours are text or binary, and whole."""


def messages(frames: bytes) -> Iterator[tuple[bool, bytes]]:
    """Take our own frames apart again: (whether it is text, payload) of each.

    Args:
        frames: any number of whole, unmasked messages, as `room.websocket_frame` makes them.
    """
    at = 0
    while at < len(frames):
        text, size = frames[at] == _TEXT, frames[at + 1]
        at += 2
        if size == 126:
            (size,) = struct.unpack_from("!H", frames, at)
            at += 2
        elif size == 127:
            (size,) = struct.unpack_from("!Q", frames, at)
            at += 8
        yield text, frames[at : at + size]
        at += size


class AsgiProtocol:
    """One WebSocket.

    Attributes:
        read_paused: whether its peer is not to be read.
        close_code: what it was closed with, by whoever was first.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.read_paused = False
        self.close_code = CUT
        self._receive = receive
        self._send = send
        self._connection: Connection | None = None
        self._max_size = 0
        self._outgoing: deque[tuple[Message, int]] = deque()
        self._outgoing_bytes = 0
        self._news = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._closing = False
        self._gone = False

    def hand_over(self, connection: Connection, max_size: int) -> None:
        """Frames are for `connection` from now on.

        Args:
            max_size: bytes of one message; more closes with 1009.
        """
        self._connection = connection
        self._max_size = max_size

    async def run(self) -> None:
        """Read and write until either side ends it."""
        writing = asyncio.ensure_future(self._write_all())
        reading = asyncio.ensure_future(self._read_all())
        try:
            # When the peer has left nothing can be written; when we close, all is written first.
            await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, reading):
                task.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)
            self._left()

    # In

    async def _read_all(self) -> None:
        connection = self._connection
        assert connection is not None
        while True:
            await self._readable.wait()
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                if not self._closing:
                    self.close_code = event.get("code", CUT)
                return
            if self._closing:
                continue
            text = event.get("text")
            data = text.encode() if text is not None else event.get("bytes") or b""
            if len(data) > self._max_size:
                self.close(Close.TOO_BIG, f"{len(data)} bytes; at most {self._max_size}")
            else:
                connection.frame_received(text is not None, data)

    def pause_reading(self) -> None:
        self.read_paused = True
        self._readable.clear()

    def resume_reading(self) -> None:
        self.read_paused = False
        self._readable.set()

    # Out

    @property
    def open(self) -> bool:
        """Whether frames may be sent."""
        return not self._closing and not self._gone

    @property
    def clogged(self) -> bool:
        """Whether the server has 64 KiB to write, so that more has to wait."""
        return self._outgoing_bytes >= HIGH_WATER

    def write(self, frames: bytes) -> None:
        """Send encoded frames."""
        if not self.open:
            return
        for text, payload in messages(frames):
            body: Message = {"type": "websocket.send"}
            if text:
                body["text"] = payload.decode()
            else:
                body["bytes"] = payload
            self._put(body, len(payload))

    def _put(self, event: Message, size: int) -> None:
        self._outgoing.append((event, size))
        self._outgoing_bytes += size
        self._news.set()

    async def _write_all(self) -> None:
        while True:
            while not self._outgoing:
                self._news.clear()
                await self._news.wait()
            event, size = self._outgoing.popleft()
            await self._send(event)
            clogged = self.clogged
            self._outgoing_bytes -= size
            if event["type"] == "websocket.close":
                return
            if clogged and not self.clogged and self._connection is not None and not self._gone:
                self._connection.writable()

    def close(self, code: int, reason: str) -> None:
        """Close when all that was written is sent."""
        if not self.open:
            return
        self._closing = True
        self.close_code = int(code)
        if code == Close.SLOW_CONSUMER:
            self._outgoing.clear()  # it does not read them
            self._outgoing_bytes = 0
        self._put({"type": "websocket.close", "code": int(code), "reason": reason}, 0)
        self.resume_reading()
        self._left()

    def _left(self) -> None:
        if self._connection is not None and not self._gone:
            self._gone = True
            self._connection.closed()


def supports_denial(scope: Scope) -> bool:
    """Whether the server can answer a handshake with a response of ours."""
    return "websocket.http.response" in (scope.get("extensions") or {})
