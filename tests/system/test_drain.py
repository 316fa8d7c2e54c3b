"""The way out: an edge that is drained within its grace, and what a second signal means."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from support.system import (
    MS,
    V1,
    Edge,
    Events,
    Process,
    System,
    Worker,
    connected,
    cut,
    frame,
    nats_server,
    request,
    system,
    until,
    upgraded,
)

ROOM = "/support/realtime/rooms/a"
SHOWN = "/support/stream/rooms/a"

MANY = 300
"""Clients; more than are closed at once."""

NOW = 1.0
"""Seconds within which a process that was told twice is gone."""


async def started(app: System, *flags: str) -> Edge:
    _, edge = await asyncio.gather(app.worker(), app.edge(*flags))
    await edge.serves(ROOM)
    return edge


async def rest_of(stream: Events) -> list[bytes]:
    """The events up to the stream's end."""
    events = []
    while event := await stream.bytes():
        events.append(event)
    return events


async def test_an_event_stream_is_told_once_and_at_random_when_to_come_back(app: System) -> None:
    edge = await started(app)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(edge.events(SHOWN)) for _ in range(8)]
        for stream in streams:
            await stream.next()
        assert await edge.stop() == 0
        told = [await rest_of(stream) for stream in streams]
    retries = []
    for [last] in told:
        assert last.startswith(b"retry: ") and last.endswith(b"\n\n")
        retries.append(int(last[7:]))
    assert all(500 <= retry <= 1000 for retry in retries)
    assert len(set(retries)) > 1


async def test_clients_are_told_when_to_come_back_and_then_closed(app: System) -> None:
    """How many at a time: tests/edge/test_drain.py."""
    edge = await started(app)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(edge.v1(ROOM)) for _ in range(MANY)]

        async def followed(client: V1) -> int:
            within: int = (await client.until("reconnect"))["within"]
            await client.socket.wait_closed()
            assert client.socket.close_code == 1012
            return within

        stopping = asyncio.create_task(edge.stop())
        withins = await asyncio.gather(*map(followed, clients))
        assert await stopping == 0
    assert all(500 <= within <= 1000 for within in withins)
    assert len(set(withins)) > MANY / 10


async def test_all_of_a_drain_is_within_its_grace(app: System, tmp_path: Path) -> None:
    """An answer that does not come, a client that does not close, and one that does not read."""
    edge = await started(app, "--drain-grace", "3s")
    count = tmp_path / "count"
    _, writer = await connected(edge, 32 * 1024)
    try:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
        writer.write(
            f"GET /support/stream/flood?count={count} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
        )
        await until(count.exists, "the generator has begun")
        async with (
            edge.v1("/support/realtime/slow") as waiting,
            upgraded(edge, ROOM, subprotocol="fairlead.v1") as (silent, _),
        ):
            await waiting.send(str(tmp_path / "go"))
            await waiting.until("message")
            began = time.monotonic()
            assert await edge.stop() == 0
            assert time.monotonic() - began < 3 + 1 * MS * 1000
            # The one that does not close was told all the same.
            kinds = [json.loads((await frame(silent))[1])["type"] for _ in range(2)]
            assert kinds == ["welcome", "reconnect"]
            assert (await frame(silent))[1][:2] == (1012).to_bytes(2)
    finally:
        await cut(writer)


async def ended_within(process: Process, seconds: float) -> None:
    began = time.monotonic()
    assert await process.ended() == 0
    assert time.monotonic() - began < seconds * MS * 1000


async def test_told_twice_an_edge_ends_at_once(app: System, tmp_path: Path) -> None:
    edge = await started(app)
    count = tmp_path / "count"
    async with (
        edge.v1("/support/realtime/slow") as waiting,
        edge.events(f"/support/stream/flood?count={count}"),
        upgraded(edge, ROOM) as (_, writer),
    ):
        await waiting.send(str(tmp_path / "go"))
        await waiting.until("message")
        await until(count.exists, "the generator has begun")
        writer.write(Frame(Opcode.TEXT, b"unread").serialize(mask=True))
        edge.program.send(signal.SIGTERM)
        await edge.says("draining")
        edge.program.send(signal.SIGTERM)
        await ended_within(edge, NOW)
        await waiting.socket.wait_closed()
        assert waiting.socket.close_code == 1012


@pytest.mark.parametrize("role", ["edge", "worker"])
async def test_told_twice_while_nats_hangs(tmp_path: Path, role: str) -> None:
    async with nats_server(tmp_path / "nats") as server, system(server, tmp_path) as app:
        edge = await started(app)
        process: Edge | Worker = edge if role == "edge" else app.workers[0]
        async with edge.v1("/support/realtime/slow") as client:
            await client.send(str(tmp_path / "go"))
            await client.until("message")
            assert server.process is not None
            server.process.freeze()
            process.program.send(signal.SIGTERM)
            await until(partial(draining, process), "it is being drained")
            process.program.send(signal.SIGINT)
            await ended_within(process, NOW)


async def test_told_twice_a_worker_ends_at_once_and_its_work_goes_elsewhere(
    app: System, tmp_path: Path
) -> None:
    edge = await started(app)
    async with edge.v1("/support/realtime/slow") as client:
        ref = await client.send(str(tmp_path / "go"))
        await client.until("message")
        first = app.workers[0]
        await app.worker()
        await told_twice(first)
        told = time.monotonic()
        (tmp_path / "go").touch()
        assert (await client.until("ack"))["ref"] == ref
        # Its last word said so; it was not missed for two beats.
        assert time.monotonic() - told < 3


@pytest.mark.parametrize("where", ["loop", "thread", "deaf"])
async def test_told_twice_a_worker_that_is_stuck_ends_at_once(
    app: System, tmp_path: Path, where: str
) -> None:
    async with stuck(app, tmp_path, where) as worker:
        await told_twice(worker)


@pytest.mark.parametrize("where", ["thread", "deaf"])
async def test_what_does_not_end_does_not_outlast_the_grace(
    app: System, tmp_path: Path, where: str
) -> None:
    async with stuck(app, tmp_path, where, "--drain-grace", "500ms") as worker:
        worker.program.send(signal.SIGTERM)
        await ended_within(worker, 3)


@asynccontextmanager
async def stuck(app: System, tmp_path: Path, where: str, *flags: str) -> AsyncIterator[Worker]:
    """A worker that has begun what will not end."""
    worker, edge = await asyncio.gather(app.worker("ends.py", *flags), app.edge())
    path = f"/ends/badly/{where}"
    await edge.serves(path)
    async with edge.v1(path) as client:
        await client.send(str(tmp_path / "begun"))
        await until((tmp_path / "begun").exists, "it has begun")
        yield worker


async def draining(process: Edge | Worker) -> bool:
    url = f"http://127.0.0.1:{process.admin_port}/readyz"
    return bool(json.loads((await request(url))[2])["draining"])


async def told_twice(process: Process) -> None:
    process.program.send(signal.SIGTERM)
    # Two that are pending at the same time are one.
    await until(lambda: not is_pending(process, signal.SIGTERM), "the first is taken")
    process.program.send(signal.SIGTERM)
    await ended_within(process, NOW)


def is_pending(process: Process, number: signal.Signals) -> bool:
    """Whether the kernel has yet to hand over a signal to the process (proc(5), ShdPnd)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)
    return bool(int(pending, 16) >> number - 1 & 1)
