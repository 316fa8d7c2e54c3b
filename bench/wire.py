"""Bytes of the load: WebSocket frames (RFC 6455, 5.2), handshakes and numbered messages.

All of it is bare bytes and no more than the load needs, since whatever the generator
spends is taken from the system that it measures on the same cores.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

SIZE = 128
"""Bytes of a message."""

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

ECHO, PLAIN, KEPT = "/bench/load/echo", "/bench/load/plain", "/bench/load/kept"
"""Where `workload.py` is served."""


def payload(number: int) -> bytes:
    """Message `number`, of SIZE bytes: no two are alike, so that order shows."""
    return (b"%012d " % number).ljust(SIZE, b"x")


def server_frame(data: bytes, opcode: int = TEXT) -> bytes:
    """A frame as a server sends it; `data` under 64 KiB."""
    return _head(opcode, len(data), 0) + data


def client_frame(data: bytes, opcode: int = TEXT) -> bytes:
    """A frame as a client sends it. The masking key is 0, which is legal and leaves data as it is."""
    return _head(opcode, len(data), 0x80) + b"\0\0\0\0" + data


def _head(opcode: int, size: int, masked: int) -> bytes:
    if size < 126:
        return bytes((0x80 | opcode, masked | size))
    return struct.pack("!BBH", 0x80 | opcode, masked | 126, size)


FRAME = len(server_frame(payload(0)))
"""Bytes of a message on its way to a client."""


def stream(count: int) -> bytes:
    """All that a member of the room receives, if it receives messages 0 to `count` - 1 in order."""
    return b"".join(server_frame(payload(number)) for number in range(count))


class Parsed(NamedTuple):
    """A frame at the beginning of a buffer; `size` is that of the whole of it."""

    opcode: int
    data: bytes
    size: int


def parse(buffer: bytes) -> Parsed | None:
    """The first frame of a buffer, masked with key 0 or not; None while it is not all there."""
    if len(buffer) < 2:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(buffer[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(buffer[2:10], "big"), 10
    start += 4 if buffer[1] & 0x80 else 0
    if len(buffer) < start + length:
        return None
    return Parsed(buffer[0] & 0x0F, buffer[start : start + length], start + length)


def upgrade(path: str) -> bytes:
    """A client's handshake."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"
)
"""A server's answer to `upgrade`, whose key is always the same."""
