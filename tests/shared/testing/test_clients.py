"""The kit's clients, and what they say where nothing comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fairlead.testing import clients
from fairlead.testing.clients import V1, Events, v1


def frame(type: str, **members: Any) -> str:
    return json.dumps({"type": type, **members})


@asynccontextmanager
async def connected(*frames: str) -> AsyncIterator[V1]:
    """A client of a server that says these frames after its welcome, and nothing more."""

    async def say(socket: ServerConnection) -> None:
        for each in (frame("welcome", connection="c"), *frames):
            await socket.send(each)
        await socket.wait_closed()

    async with serve(say, "127.0.0.1", 0, subprotocols=[clients.SUBPROTOCOL]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with v1(f"ws://127.0.0.1:{port}/") as client:
            yield client


@asynccontextmanager
async def streamed(*chunks: str) -> AsyncIterator[Events]:
    """A stream of a server that says these chunks, and nothing more."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"".join(b"%x\r\n%b\r\n" % (len(each), each.encode()) for each in chunks)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, clients.events(port, "/") as stream:
        yield stream


async def test_a_message_may_be_as_large_as_a_room_s_may_be() -> None:
    """1 MiB of data, which JSON may write as six."""
    data = "\0" * 2**20
    async with connected(frame("message", data=data)) as client:
        assert await client.hears() == data


Waiting = Callable[[V1], Awaitable[Any]]


@pytest.mark.parametrize(
    ("waiting", "what"),
    [
        (V1.next, "a frame"),
        (V1.hears, "a frame of type message"),
        (lambda client: client.until("ack", ref=7), "a frame of type ack with {'ref': 7}"),
        (lambda client: client.each("ack", "message"), "a frame of type ack or message"),
    ],
)
async def test_what_does_not_come_is_named_with_what_came_last(
    monkeypatch: pytest.MonkeyPatch, waiting: Waiting, what: str
) -> None:
    async with connected(frame("cursor", cursor="k1")) as client:
        await client.until("cursor")
        monkeypatch.setattr(clients, "DEADLINE", 0.01)
        with pytest.raises(TimeoutError) as caught:
            await waiting(client)
    assert str(caught.value) == (
        f"not within 0.01 s: {what}; the last was {{'type': 'cursor', 'cursor': 'k1'}}"
    )


async def test_that_nothing_came_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as client:
        monkeypatch.setattr(clients, "DEADLINE", 0.01)
        with pytest.raises(TimeoutError, match=r"type message; the last was .'type': 'welcome'"):
            await client.hears()
    async with streamed() as stream:
        with pytest.raises(TimeoutError, match="an event; nothing came before"):
            await stream.next()


async def test_what_is_long_is_shown_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(frame("message", data="x" * 10_000)) as client:
        await client.next()
        monkeypatch.setattr(clients, "DEADLINE", 0.01)
        with pytest.raises(TimeoutError) as caught:
            await client.next()
    assert len(str(caught.value)) < 400


async def test_an_event_that_does_not_come_is_named_with_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with streamed("id: c1\ndata: 1\n\nda") as stream:
        assert await stream.next() == {"id": "c1", "data": "1"}
        monkeypatch.setattr(clients, "DEADLINE", 0.01)
        with pytest.raises(TimeoutError) as caught:
            await stream.next()
    assert str(caught.value) == (
        r"not within 0.01 s: an event; the last was b'id: c1\ndata: 1\n\n'"
    )
