"""What one client, or one publisher, must not be able to do to all others of an edge."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from websockets.frames import Frame, Opcode

from fairlead.testing.program import DEADLINE
from fairlead_edge.connection import CANCELLING
from support.system import (
    Edge,
    NatsServer,
    System,
    connected,
    cut,
    everything,
    frame,
    request,
    resident,
    system,
    until,
    upgraded,
)  # fmt: skip

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""

HALF = "/support/realtime/rooms/half"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app_of_all(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    async with everything(nats, tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture
def edge(app_of_all: System) -> Edge:
    return app_of_all.edges[0]


def descriptors(edge: Edge) -> int:
    return len(list(Path(f"/proc/{edge.pid}/fd").iterdir()))


async def says(edge: Edge, room: str, messages: int, size: int) -> None:
    for number in range(messages):
        body = {"topic": f"rooms.{room}", "data": f"{number} ".ljust(size, ".")}
        status, *_ = await request(edge.admin("/publish"), json.dumps(body).encode())
        assert status == 200


async def echoes(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.send("there?")
        assert (await client.until("message"))["data"] == "there?"


# More than NATS takes


@pytest.mark.parametrize("path", ["/support/stream/value", "/support/realtime/echo"])
async def test_headers_that_are_too_large_for_each_message_are_refused(
    edge: Edge, path: str
) -> None:
    """NATS would end the edge's connection, and again with each try: all clients would wait."""
    before = len(edge.program.lines)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    many = "".join(f"X-{number}: {'x' * 8000}\r\n" for number in range(7))
    reader, writer = await connected(edge)
    try:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: t\r\n{upgrade if 'realtime' in path else ''}{many}\r\n"
        )
        writer.write(head.encode())
        async with asyncio.timeout(DEADLINE):
            answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 431 "), answer
        assert b"application/problem+json" in answer and b"49152 fit" in answer
    finally:
        await cut(writer)
    await echoes(edge)
    assert len(edge.program.lines) == before, "NATS has noticed nothing"


async def test_a_head_without_an_end_is_refused(edge: Edge) -> None:
    before = resident(edge)
    reader, writer = await connected(edge)
    try:
        writer.write(b"GET /support/stream/value HTTP/1.1\r\nHost: t\r\nX-Large: ")
        for _ in range(32):
            writer.write(b"a" * MIB)
            await writer.drain()
        async with asyncio.timeout(DEADLINE):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer == (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
    finally:
        await cut(writer)
    assert resident(edge) - before < 8 * MIB


# What is in a room for all


async def test_a_stamp_of_thousands_of_digits_stops_nobody(app_of_all: System, edge: Edge) -> None:
    """From anybody who may publish, past all that Fairlead's own publishers look at."""
    subject = f"fl.{app_of_all.app}.log.rooms.poison.-"
    publisher = await nats.connect(app_of_all.nats.url)
    try:
        async with edge.v1("/support/realtime/rooms/poison") as client:
            for word, stamp in (("one", "9" * 5000), ("two", "1"), ("three", "")):
                headers = {"Fl-Fence": f"a:1:{stamp}"}
                await publisher.publish(subject, word.encode(), headers=headers)
            await publisher.flush()
            heard = [(await client.until("message"))["data"] for _ in range(2)]
            assert heard == ["one", "three"], "`two` is of a runner that had lost the room"
    finally:
        await publisher.close()


# Who does not read


async def test_who_says_good_bye_and_does_not_read_is_gone_in_five_seconds(edge: Edge) -> None:
    """The edge would wait for ever until it has written what waits, and more came all the while."""
    before = descriptors(edge)
    async with upgraded(edge, HALF, receive_buffer=SMALL) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
        await says(edge, "half", 20, 32 * 1024)
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await until(lambda: descriptors(edge) <= before, "the edge has let go of it")


async def test_event_streams_that_are_cut_and_do_not_read_are_gone_in_five_seconds(
    edge: Edge,
) -> None:
    before = descriptors(edge)
    seen = len(edge.program.lines)
    streams = [await connected(edge, SMALL) for _ in range(3)]
    try:
        for reader, writer in streams:
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
            writer.write(b"GET /support/stream/rooms/cut HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: descriptors(edge) >= before + 3, "they are there")
        await says(edge, "cut", 40, 256 * 1024)
        await until(lambda: descriptors(edge) <= before, "the edge has let go of them")
    finally:
        for _, writer in streams:
            await cut(writer)
    assert "completing" not in "".join(edge.program.lines[seen:]), "uvicorn takes it for an error"


async def test_pings_of_who_does_not_read_are_not_answered_into_memory(edge: Edge) -> None:
    before = resident(edge)
    pings = Frame(Opcode.PING, b"p" * 125).serialize(mask=True) * 2000
    path = "/support/realtime/nothing"
    async with upgraded(edge, path, receive_buffer=SMALL) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
        for _ in range(150):  # 39 MB
            writer.write(pings)
            await writer.drain()
        assert resident(edge) - before < 15 * MIB


async def test_cancels_of_runs_that_are_elsewhere_are_a_few_at_a_time(edge: Edge) -> None:
    cancel = json.dumps({"type": "cancel", "run": "abcdefab-1deadbeef-1"}).encode()
    path = "/support/realtime/nothing"
    async with upgraded(edge, path, subprotocol="fairlead.v1") as (reader, writer):
        writer.write(Frame(Opcode.TEXT, cancel).serialize(mask=True) * 1000)
        statuses: list[int] = []
        while len(statuses) < 1000:
            said = json.loads((await frame(reader))[1])
            if said["type"] == "error":
                statuses.append(said["error"]["status"])
        assert set(statuses) == {404, 429}
        assert statuses.count(404) >= CANCELLING
    await echoes(edge)


# Names that are none


@pytest.mark.parametrize("run", ["a.b-1", "%2a", "abcdefab-1x-" + "9" * 26, "abcdefab-1x-9"])
async def test_what_is_no_run_is_an_unknown_one(edge: Edge, run: str) -> None:
    before = len(edge.program.lines)
    for method in ("GET", "DELETE"):
        url = edge.http(f"/support/stream/value?run={run}")
        status, headers, _ = await request(url, method=method)
        assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert len(edge.program.lines) == before


RUN = """
from collections.abc import AsyncIterator
from fairlead import SSE, WS, feature, project

support = feature("Support")

@support.websocket("run", tag="realtime", run="topic")
async def of_a_room(ctx: WS) -> AsyncIterator[str]:
    yield "of the room"

@support.sse("/kept", tag="stream", resume="1m")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    yield "of the run"

app = project(support)
"""


async def test_a_topic_may_be_called_run(nats: NatsServer, tmp_path: Path) -> None:
    """The log of a run is no room of that topic."""
    (tmp_path / "flows.py").write_text(RUN)
    async with system(nats, tmp_path) as app:
        [edge] = await app.run(str(tmp_path / "flows.py"))
        async with edge.events("/support/stream/kept") as stream:
            heard = [await stream.next() for _ in range(3)]
        assert [each.get("data") for each in heard][1] == '"of the run"'
        async with edge.v1("/support/realtime/run") as client:
            assert (await client.until("message"))["data"] == "of the room"
        assert not [line for line in edge.program.lines if '"level":"info"' not in line]
