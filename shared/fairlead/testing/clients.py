"""Clients for tests, frame by frame and event by event; each can cut its connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from fairlead.testing.program import DEADLINE

SUBPROTOCOL = websockets.Subprotocol("fairlead.v1")

SHOWN = 200
"""Characters of what came last, where what was waited for did not come."""


@asynccontextmanager
async def _within_the_deadline(what: str, last: object) -> AsyncIterator[None]:
    """Wait for something.

    Args:
        last: what came before it; None where nothing did.

    Raises:
        TimeoutError: it did not come.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    except TimeoutError:
        before = "nothing came before" if last is None else f"the last was {last!r}"
        shown = before if len(before) <= SHOWN else f"{before[:SHOWN]}…"
        raise TimeoutError(f"not within {DEADLINE:g} s: {what}; {shown}") from None


class V1:
    """A client of `fairlead.v1`, frame by frame; it does not reconnect by itself.

    Attributes:
        welcome: the first frame.
        cursor: of the newest frame that had one: where a reconnect with `cursor=` goes on.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}
        self.cursor: str | None = None
        self._refs = itertools.count(1)
        self._last: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """The connection's id, which `direct` reaches."""
        return str(self.welcome["connection"])

    async def next(self) -> dict[str, Any]:
        """The next frame.

        Raises (as all that wait for a frame):
            TimeoutError: none came within the deadline; it says what was waited for.
        """
        return await self._next("a frame")

    async def _next(self, what: str) -> dict[str, Any]:
        async with _within_the_deadline(what, self._last):
            frame = await self.socket.recv()
        assert isinstance(frame, str), "fairlead.v1 is text frames"
        found: dict[str, Any] = json.loads(frame)
        self._last = found
        self.cursor = found.get("cursor") or self.cursor
        if found["type"] == "message":
            self.cursor = found.get("id") or self.cursor
        return found

    async def until(self, type: str, **members: Any) -> dict[str, Any]:
        """The next frame of a type that has these members; others are passed over."""
        what = f"a frame of type {type}"
        if members:
            what += f" with {members}"
        while True:
            frame = await self._next(what)
            if frame["type"] == type and members.items() <= frame.items():
                return frame

    async def hears(self) -> Any:
        """The data of the next message; frames of other types are passed over."""
        return (await self.until("message"))["data"]

    async def each(self, *types: str) -> list[dict[str, Any]]:
        """One frame of each of these types, in whatever order they come: the room's own copy
        of a message may be before or after its ack."""
        found: dict[str, dict[str, Any]] = {}
        while missing := [type for type in types if type not in found]:
            frame = await self._next(f"a frame of type {' or '.join(missing)}")
            if frame["type"] in missing:
                found[frame["type"]] = frame
        return [found[type] for type in types]

    async def send(self, data: Any, **members: Any) -> int:
        """Send a message; its ref."""
        ref = next(self._refs)
        frame = {"type": "message", "ref": ref, "data": data, **members}
        await self.socket.send(json.dumps(frame))
        return ref

    async def say(self, **frame: Any) -> None:
        """Send any frame."""
        await self.socket.send(json.dumps(frame))

    async def cut(self) -> None:
        """End the TCP connection without a farewell, as a train in a tunnel does."""
        self.socket.transport.abort()
        await self.socket.wait_closed()


def raw(url: str, **options: Any) -> websockets.connect:
    """A raw WebSocket client of the `websockets` package, an async context manager.

    Frames may have any size: a room's message is as large as NATS lets its publisher send.
    """
    return websockets.connect(url, compression=None, **{"max_size": None, **options})


@asynccontextmanager
async def v1(url: str, **options: Any) -> AsyncIterator[V1]:
    """A `fairlead.v1` client; its welcome has been read."""
    async with raw(url, subprotocols=[SUBPROTOCOL], **options) as socket:
        client = V1(socket)
        client.welcome = await client.next()
        yield client


class Events:
    """An SSE response, event by event, over a socket of its own.

    Attributes:
        status: of the answer; headers: in lower case.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = b""
        self._last: bytes | None = None

    @classmethod
    async def open(
        cls, port: int, path: str, *, method: str = "GET", body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Events:  # fmt: skip
        """Send the request to a port of this machine and read the answer's head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        events = cls(reader, writer)
        async with _within_the_deadline(f"the answer to {method} {path}", None):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.split("\r\n")
        events.status = int(first.split()[1])
        events.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in rest if line)
        }
        return events

    async def bytes(self) -> bytes:
        """The next event as it stands on the wire, up to its blank line; b"" at the end.

        Raises (as `next`):
            TimeoutError: nothing came within the deadline; it says what came last.
        """
        while b"\n\n" not in self._buffer:
            async with _within_the_deadline("an event", self._last):
                size = int((await self._reader.readline()).strip() or b"0", 16)
                if size == 0:
                    return b""
                self._buffer += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
        event, _, self._buffer = self._buffer.partition(b"\n\n")
        self._last = event + b"\n\n"
        return self._last

    async def next(self) -> dict[str, str]:
        """The next event's fields; comments are under ""."""
        fields: dict[str, str] = {}
        for line in (await self.bytes()).decode().rstrip("\n").splitlines():
            name, _, value = line.partition(": ")
            fields[name] = fields[name] + "\n" + value if name in fields else value
        return fields

    async def cut(self) -> None:
        """End the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def events(port: int, path: str, **options: Any) -> AsyncIterator[Events]:
    """An SSE stream that is cut at the end of the block; the arguments are those of `open`."""
    stream = await Events.open(port, path, **options)
    try:
        yield stream
    finally:
        await stream.cut()
