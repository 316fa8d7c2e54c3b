from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest

from fairlead.dev import ports


def test_a_free_port_is_free() -> None:
    assert not ports.taken(ports.free_port())


def test_a_free_port_is_none_that_is_given_by_chance() -> None:
    """Linux gives those from 32768 on to whoever connects, so that a server could not come back."""
    assert {ports.free_port() in range(20_000, 32_768) for _ in range(50)} == {True}


def test_a_port_is_taken_while_somebody_listens() -> None:
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        assert ports.taken(server.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"rubbish\r\n", False),
        (b"", False),
        (b"x" * 100_000, False),
    ],
)
async def test_ready_is_status_200(answer: bytes, ready: bool) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(client, ports.LOOPBACK, 0) as server:
        assert await ports.is_ready(server.sockets[0].getsockname()[1]) is ready


async def test_nobody_there_is_not_ready() -> None:
    assert not await ports.is_ready(ports.free_port())
