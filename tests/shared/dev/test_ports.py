from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from contextlib import closing

import pytest

from fairlead.dev import ports


def test_a_free_port_is_free() -> None:
    assert not ports.taken(ports.free_port())


def test_a_free_port_is_kept_for_its_server() -> None:
    """Linux gives it to nobody who takes any port; a server listens there, and may begin again."""
    port = ports.free_port()
    with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind((ports.LOOPBACK, port))
    for _ in range(2):
        with (
            closing(socket.create_server((ports.LOOPBACK, port))) as server,
            closing(socket.create_connection((ports.LOOPBACK, port))),
        ):
            server.accept()[0].close()


def test_no_more_ports_are_kept_than_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "HELD", 2)
    monkeypatch.setattr(ports, "_held", deque())
    first, *_ = [ports.free_port() for _ in range(3)]
    with closing(socket.socket()) as other:
        other.bind((ports.LOOPBACK, first))
    for descriptor in ports._held:
        os.close(descriptor)


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
