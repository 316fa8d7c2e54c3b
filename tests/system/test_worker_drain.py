"""A worker that is told to stop does stop, and its runs go on elsewhere, whatever user code does."""
# ruff: noqa: ASYNC240 -- files are how a workflow in another process speaks with the test

from __future__ import annotations

import asyncio
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairlead import WS, feature, project
from fairlead.bus import Bus, BusOptions
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import SLOWER
from fairlead_worker.runner import Run
from fairlead_worker.tally import WorkerTally
from fairlead_worker.tools import Tools
from support.system import Edge, NatsServer, System, Worker, until

PATH = "/never/stops/"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the workflows of never.py note."""
    monkeypatch.setenv("NOTES", str(tmp_path))
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


async def started(app: System, grace: str) -> tuple[Edge, Worker]:
    """An edge, and a worker whose runs do not stop."""
    edge, worker = await asyncio.gather(app.edge(), app.worker("never.py", "--drain-grace", grace))
    await edge.serves(PATH + "kept")
    return edge, worker


async def another(app: System) -> Worker:
    """A worker whose runs do."""
    return await app.worker("never.py", env={"WILLING": "1"})


async def noted(notes: Path, line: str) -> None:
    await until(lambda: line in notes.read_text(), f"{line!r} in the notes")


async def stopped(worker: Worker, *, within: float, code: int = 0) -> None:
    """SIGTERM, and the end."""
    told = time.monotonic()
    assert await worker.stop() == code
    took = time.monotonic() - told
    assert took < within * SLOWER, f"it took {took:.1f} s"


async def test_a_run_that_never_stops_is_given_up_and_opened_elsewhere(
    app: System, notes: Path
) -> None:
    """`try: … except CancelledError: pass`, for ever: after the grace nobody waits for it."""
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "connection") as client:
        await client.until("message", data="open 1")
        await another(app)
        await asyncio.gather(stopped(first, within=6), client.until("restart", attempt=2))
        await client.until("message", data="open 2")
    assert "swallowed" in notes.read_text()
    await first.says("does not stop")


async def test_a_second_signal_hands_over_and_ends_at_once(app: System, notes: Path) -> None:
    edge, first = await started(app, "1h")
    async with edge.v1(PATH + "connection") as client:
        await client.until("message", data="open 1")
        await another(app)
        first.program.send(signal.SIGTERM)
        await noted(notes, "swallowed")
        await asyncio.gather(stopped(first, within=4), client.until("restart", attempt=2))
        await client.until("message", data="open 2")


async def test_a_finally_that_takes_too_long_does_not_hold_the_run(
    app: System, notes: Path
) -> None:
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "good-bye") as client:
        await client.until("message", data="open 1")
        await another(app)
        await asyncio.gather(stopped(first, within=6), client.until("restart", attempt=2))
    await noted(notes, "finally")


async def test_a_message_whose_run_never_stops_is_executed_elsewhere(
    app: System, notes: Path
) -> None:
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "message") as client:
        await client.send("x")
        await noted(notes, "began")
        await another(app)
        await stopped(first, within=6)
        assert (await client.until("message"))["data"] == "attempt 2"
        await client.until("ack")


async def test_the_room_of_a_run_that_never_stops_goes_to_another_worker(
    app: System, notes: Path
) -> None:
    """Its lease is given back: nobody waits until NATS forgets it."""
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "room") as member:
        assert (await member.until("message"))["data"] == {"pid": first.pid, "attempt": 1}
        second = await another(app)
        told = time.monotonic()
        stopping = asyncio.ensure_future(stopped(first, within=6))
        assert (await member.until("message"))["data"] == {"pid": second.pid, "attempt": 2}
        assert time.monotonic() - told < 4 * SLOWER, "a lease ends 5 s after it was renewed"
        await stopping


async def test_a_kept_run_that_never_stops_is_handed_over_not_lost(
    app: System, notes: Path
) -> None:
    """With `on_worker_lost="error"` a lost one would end in an error."""
    edge, first = await started(app, "200ms")
    async with edge.events(PATH + "kept") as stream:
        assert (await stream.next())["event"] == "run"
        assert json.loads((await stream.next())["data"]) == "open 1"
        await another(app)
        await stopped(first, within=6)
        assert (await stream.next())["event"] == "restart"
        assert json.loads((await stream.next())["data"]) == "open 2"


async def test_a_run_that_was_given_up_says_nothing_more(nats: NatsServer) -> None:
    """Not to the room either: it would talk between the words of the next attempt.

    In this process, since a worker is gone before anybody could hear the difference.
    """
    never, over, swallowed = feature("Never"), asyncio.Event(), asyncio.Event()

    @never.websocket("talks", tag="stops", deliver="topic", history=None)
    async def talks(ctx: WS) -> None:
        while not over.is_set():
            try:
                await ctx.channel.broadcast("still here")
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                swallowed.set()

    subjects = Subjects("given-up")
    bus = await Bus.connect(BusOptions([nats.url], subjects, "worker", "w1"))
    inbound = subjects.inbound("never", "talks", "talks", "-")
    heard: list[bytes] = []
    bus.subscribe(subjects.log("talks", "-"), lambda _s, _r, data, _h: heard.append(data))
    tools = Tools(bus, ThreadPoolExecutor(1), None, {"talks": False}, False, 5.0, WorkerTally())
    ((route, flow),) = project(never).workflows()
    work = Work(Kind.OPEN, DataType.BINARY, b"")
    run = Run(tools, route, flow, work, inbound, subjects.answer("e", "e-1", 0, 1), ("e-1", 0, 1))
    run.task = asyncio.create_task(run.carry_out())
    try:
        await until(lambda: heard, "it talks")
        run.hand_over()
        await until(swallowed.is_set, "it takes no notice")
        await run.give_up()
        await bus.round_trip()
        before = len(heard)
        for _ in range(20):
            await asyncio.sleep(0.005)
            await bus.round_trip()
        assert len(heard) == before
    finally:
        over.set()
        run.task.cancel()
        await asyncio.wait([run.task])
        await bus.close()


async def test_a_plain_function_that_never_returns_holds_nobody(app: System, notes: Path) -> None:
    """Python would wait for its thread."""
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "thread") as client:
        await client.send("x")
        await noted(notes, "began")
        await another(app)
        await stopped(first, within=6)
        assert (await client.until("message"))["data"] == "attempt 2"


async def test_threads_of_the_project_hold_nobody(app: System, notes: Path) -> None:
    edge, first = await started(app, "1h")
    async with edge.v1(PATH + "threads") as client:
        await client.send("x")
        assert (await client.until("message"))["data"] == "started"
        await client.until("ack")
        await stopped(first, within=6)
    await first.says("still runs")


async def test_a_loop_that_is_blocked_for_good_ends_with_the_grace(
    app: System, notes: Path
) -> None:
    """It could hand over nothing: exit code 1."""
    edge, first = await started(app, "200ms")
    async with edge.v1(PATH + "stuck") as client:
        await client.send("x")
        await noted(notes, "began")
        await another(app)
        await stopped(first, within=10, code=1)
        assert (await client.until("message"))["data"] != "attempt 1"
    await first.says("still runs")


async def test_a_second_signal_ends_a_loop_that_is_blocked(app: System, notes: Path) -> None:
    edge, first = await started(app, "1h")
    async with edge.v1(PATH + "stuck") as client:
        await client.send("x")
        await noted(notes, "began")
        first.program.send(signal.SIGINT)  # another one, or the second might be the first's echo
        await stopped(first, within=2)
