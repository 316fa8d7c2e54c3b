"""The run of a connection and its client wait for each other: what is ahead is bounded, both ways."""
# ruff: noqa: ASYNC240 -- files are how a workflow in another process speaks with the test

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats import connect
from nats.aio.msg import Msg

from fairlead.protocol import envelope
from fairlead.protocol.envelope import Control
from fairlead.protocol.subjects import Subjects
from fairlead_edge.scopes import INPUT_BYTES, INPUT_WINDOW
from support.system import Edge, System, Worker, frame, resident, until, upgraded

MIB = 1024 * 1024

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""

SLOW = "/support/realtime/slow"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the workflows of connections.py note; a worker gets the folder as NOTES."""
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


async def started(app: System, tmp_path: Path) -> tuple[Edge, Worker]:
    edge, worker = await asyncio.gather(
        app.edge(), app.worker("connections.py", env={"NOTES": str(tmp_path)})
    )
    await edge.serves(SLOW)
    return edge, worker


@asynccontextmanager
async def inputs(app: System) -> AsyncIterator[list[int]]:
    """The sizes of the messages that edges have sent to runs so far."""
    found: list[int] = []

    async def told(message: Msg) -> None:
        what, _, _, data = envelope.decode_control(message.data)
        if what is Control.INPUT:
            found.append(len(envelope.decode_work(data).data))

    client = await connect(app.nats.url)
    try:
        await client.subscribe(Subjects(app.app).worker("*"), cb=told)
        await client.flush()
        yield found
    finally:
        await client.close()


async def test_16_messages_are_sent_ahead_of_what_the_run_has_read(
    app: System, tmp_path: Path
) -> None:
    """The others wait on the edge, and follow one for one."""
    edge, _ = await started(app, tmp_path)
    async with inputs(app) as sent, edge.raw(SLOW) as client, edge.raw(SLOW) as later:
        for number in range(100):
            await client.send(f"m{number}")
        await until(lambda: len(sent) >= INPUT_WINDOW, "the window is used")
        await later.send("later")
        await until(lambda: len(b"later") in sent, "what came after those")
        assert len(sent) == INPUT_WINDOW + 1
        (tmp_path / "go").touch()
        assert [await client.recv() for _ in range(100)] == [f"1 m{n}" for n in range(100)]


@pytest.mark.parametrize(("size", "ahead"), [(100_000, 2), (INPUT_BYTES, 1), (1_000_000, 1)])
async def test_256_kib_are_sent_ahead_of_what_the_run_has_read_and_always_one_message(
    app: System, tmp_path: Path, size: int, ahead: int
) -> None:
    edge, _ = await started(app, tmp_path)
    async with inputs(app) as sent, edge.v1(SLOW) as client, edge.raw(SLOW) as later:
        for number in range(4):
            await client.send(f"{number} ".ljust(size, "x"))
        await until(lambda: len(sent) >= ahead, "the window is used")
        await client.say(type="nothing")
        await client.until("error")  # the edge has read the others
        await later.send("later")
        await until(lambda: len(b"later") in sent, "what came after those")
        assert sent == [size] * ahead + [len(b"later")]
        (tmp_path / "go").touch()
        heard = [(await client.until("message"))["data"] for _ in range(4)]
        assert [data[:4] for data in heard] == [f"1 {n} " for n in range(4)]


async def test_a_client_that_outruns_its_run_is_held_back_and_memory_stays_flat(
    app: System, tmp_path: Path
) -> None:
    """By TCP: 60 MB that nobody reads are with the client."""
    edge, worker = await started(app, tmp_path)
    count, size = 600, 100_000
    async with edge.raw(SLOW) as client:
        before = resident(edge), resident(worker)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for number in range(count):
                await client.send(f"{number} ".ljust(size, "x"))
                sent += 1

        flooding = asyncio.ensure_future(flood())
        await until(_stands_still(lambda: sent), "the client is held back")
        assert sent * size < 10 * MIB, "what the kernels take, and no more"
        assert resident(edge) - before[0] < 4 * MIB
        assert resident(worker) - before[1] < 4 * MIB
        (tmp_path / "go").touch()
        heard = [(await client.recv())[:8].split()[:2] for _ in range(count)]
        assert heard == [["1", str(number)] for number in range(count)]
        await flooding


async def test_a_slow_client_slows_its_own_generator_and_memory_stays_flat(
    app: System, tmp_path: Path, notes: Path
) -> None:
    """An endless generator for a client that stopped reading: it waits, and others do not."""
    edge, worker = await started(app, tmp_path)
    async with edge.raw("/support/realtime/echo") as quick:
        path = "/support/realtime/endless"
        async with upgraded(edge, path, receive_buffer=SMALL) as (reader, _):
            await frame(reader)
            before = resident(edge), resident(worker)
            for n in range(200):  # while the other one's reader stands still
                await quick.send(str(n))
                assert await quick.recv() == str(n)
                await asyncio.sleep(0.01)
            assert resident(edge) - before[0] < 4 * MIB
            assert resident(worker) - before[1] < 4 * MIB
        await until(lambda: "endless closed" in notes.read_text(), "its end")
    said = int(notes.read_text().split("endless closed after ")[1].split()[0])
    assert said < 2048, "2 MiB: its credit of 256 KiB, and what the edge's kernel takes"


def _stands_still(number: Callable[[], int]) -> Callable[[], bool]:
    """Whether a number has not changed for 100 looks."""
    seen: list[int] = []

    def look() -> bool:
        seen.append(number())
        return len(seen) > 100 and len(set(seen[-100:])) == 1 and seen[-1] > 0

    return look
