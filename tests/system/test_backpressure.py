"""Whoever is slow slows itself: no memory is filled for it, and nobody else waits."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import pytest
import pytest_asyncio
from websockets.frames import Frame, Opcode

from fairlead.testing.program import DEADLINE
from support.system import (
    MS,
    Edge,
    NatsServer,
    Worker,
    connected,
    cut,
    edge_and_worker,
    frame,
    request,
    resident,
    until,
    upgraded,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Worker]]:
    async with edge_and_worker(nats, tmp_path_factory.mktemp("backpressure")) as both:
        yield both


@pytest.fixture
def edge(running: tuple[Edge, Worker]) -> Edge:
    return running[0]


def message(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


async def stands_still(count: asyncio.StreamWriter | Path) -> int:
    """The size of what waits to be sent, or the number in a file, once it stops changing."""

    def now() -> int:
        if isinstance(count, Path):
            return int(count.read_text() or 0) if count.exists() else 0
        return count.transport.get_write_buffer_size()

    last, since = now(), time.monotonic()
    async with asyncio.timeout(DEADLINE):
        while time.monotonic() - since < 500 * MS or not last:
            await asyncio.sleep(20 * MS)
            if (found := now()) != last:
                last, since = found, time.monotonic()
    return last


async def test_a_raw_client_that_outruns_its_workflow_is_held_back_by_tcp(
    edge: Edge, tmp_path: Path
) -> None:
    release, count, size = tmp_path / "release", 600, 100_000
    padded = f"{release} ".ljust(size, "x")
    async with upgraded(edge, "/support/realtime/held") as (reader, writer):
        writer.write(message(str(release)))
        assert (await frame(reader))[1] == b"begun"
        before = resident(edge)
        for _ in range(count):
            writer.write(message(padded))
        left = await stands_still(writer)
        assert left > count * size // 4, "most of it is still on the client's side"
        assert resident(edge) - before < 8 * MIB
        release.touch()
        assert (await frame(reader))[1] == b"end"
        for _ in range(count):
            assert (await frame(reader))[1] == b"begun"
            assert (await frame(reader))[1] == b"end"
        assert writer.transport.get_write_buffer_size() == 0
        assert resident(edge) - before < 16 * MIB


@pytest.mark.parametrize(
    ("size", "reset"),
    # What the kernels can take, so that the end can follow; and more than they can.
    [(125_000, False), (10_000_000, True)],
    ids=["closed behind unread input", "reset"],
)
async def test_a_client_that_leaves_while_it_is_held_back_is_noticed(
    edge: Edge, tmp_path: Path, size: int, reset: bool
) -> None:
    release = tmp_path / "release"
    async with edge.v1("/support/realtime/held") as peer:
        before = descriptors(edge)
        async with upgraded(edge, "/support/realtime/held") as (reader, writer):
            # Its first message tells the peer who it is.
            writer.write(message(f"tell {peer.id}"))
            leaver = (await peer.until("message"))["from"]
            writer.write(message(str(release)))
            assert (await frame(reader))[1] == b"begun"
            for _ in range(size // 25_000):
                writer.write(message(f"{release} ".ljust(25_000, "x")))
            if reset:
                await stands_still(writer)
                socket = writer.get_extra_info("socket")
                socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            else:
                await until(lambda: not writer.transport.get_write_buffer_size(), "all is sent")
            await peer.send(f"try {leaver}")
            assert (await peer.until("message"))["data"] == "there"
            assert descriptors(edge) == before + 1
        # Nothing is sent to it meanwhile: a failing write would be a notice, too.
        began = time.monotonic()
        await until(lambda: descriptors(edge) == before, "the edge notices that it left")
        assert time.monotonic() - began < 3000 * MS
        await peer.send(f"try {leaver}")
        assert (await peer.until("message"))["data"] == "nobody"
    release.touch()


def descriptors(edge: Edge) -> int:
    return len(os.listdir(f"/proc/{edge.pid}/fd"))


async def test_an_sse_client_that_does_not_read_stops_its_generator(
    edge: Edge, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    before = resident(edge)
    reader, writer = await connected(edge, SMALL)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
    try:
        writer.write(
            f"GET /support/stream/flood?count={count} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
        )
        produced = await stands_still(count)
        assert produced <= 2 * MIB
        assert resident(edge) - before < 4 * MIB
        # It goes on as soon as the client reads.
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
        async with asyncio.timeout(DEADLINE):
            await reader.readexactly(produced + 2 * MIB)
        await until(lambda: int(count.read_text() or 0) > produced, "the generator goes on")
    finally:
        await cut(writer)


async def test_a_run_that_waits_for_its_reader_is_cancelled_when_that_leaves(
    edge: Edge, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    path = "/support/realtime/flood"
    async with upgraded(edge, path, receive_buffer=SMALL) as (reader, writer):
        writer.write(message(str(note)))
        await frame(reader)
        await stands_still(tmp_path / "note.count")
        assert not note.exists()
    await until(note.exists, "the generator's finally")


async def test_a_member_that_does_not_read_is_closed_with_4001_and_others_get_everything(
    edge: Edge,
) -> None:
    path, count, size = "/support/realtime/rooms/flooded", 160, 64 * 1024
    async with (
        upgraded(edge, path, receive_buffer=SMALL) as (slow, sender_of_slow),
        edge.raw(path) as quick,
        edge.v1("/support/realtime/nothing") as sender,
    ):
        before = resident(edge)
        received = asyncio.ensure_future(_texts(quick, count))
        for number in range(count):
            body = {"topic": "rooms.flooded", "data": f"{number} ".ljust(size, ".")}
            assert (await request(edge.admin("/publish"), json.dumps(body).encode()))[0] == 200
        numbers = [int(text.split()[0]) for text in await received]
        assert numbers == list(range(count)), "everything, once, in order"
        assert resident(edge) - before < 16 * MIB
        await sender.send("the edge works on")
        await sender.until("ack")

        # The slow one reads at last: some of it, without a hole, and then why it ends.
        seen = []
        while (found := await frame(slow))[0] != 0x88:
            seen.append(int(found[1].split()[0]))
        assert int.from_bytes(found[1][:2]) == 4001
        assert seen == list(range(len(seen)))
        assert len(seen) < count
        sender_of_slow.write(Frame(Opcode.CLOSE, found[1][:2]).serialize(mask=True))
        async with asyncio.timeout(DEADLINE):
            assert await slow.read() == b""


async def _texts(client: object, count: int) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        return [await client.recv() for _ in range(count)]  # type: ignore[attr-defined]
