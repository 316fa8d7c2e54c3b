"""Killed, frozen, cut off: every message is executed, each is in the room once, order is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats import connect

from support.kick import KICKABLE, kick
from support.system import V1, Edge, System, nats_server, system, until

ROOM = "/support/realtime/rooms/blue"


class Chatter:
    """A client that says 0, 1, 2, … into the room, and hears what the room heard.

    Attributes:
        said: how many messages it sent; acked: the refs in the order of their acks.
    """

    def __init__(self, client: V1) -> None:
        self.client = client
        self.said = 0
        self.acked: list[int] = []
        self.failed: list[dict[str, Any]] = []
        self.waited = 0
        self._room = asyncio.Semaphore(16)
        self.stopped = False

    async def talk(self) -> None:
        """Send until `stopped`, with at most 16 unacknowledged."""
        while not self.stopped:
            await self._room.acquire()
            await self.client.send(str(self.said))
            self.said += 1
            await asyncio.sleep(0.005)

    async def listen(self) -> None:
        """Count acks and errors, until cancelled."""
        while True:
            frame = await self.client.next()
            if frame["type"] == "ack":
                self.acked.append(frame["ref"])
                self._room.release()
            elif frame["type"] == "error":
                self.failed.append(frame)
                self._room.release()
            elif frame["type"] == "waiting":
                self.waited += 1


class Ear:
    """A raw member of the room: what it heard, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def listen(self, edge: Edge) -> None:
        async with edge.raw(ROOM) as client:
            self.heard.append("in")
            async for message in client:
                self.heard.append(str(message))


@asynccontextmanager
async def chat(edge: Edge, other: Edge) -> AsyncIterator[tuple[Chatter, Ear]]:
    """A chatter on one edge, an ear on the other; at the end all must be answered and heard."""
    ear = Ear()
    hearing = asyncio.create_task(ear.listen(other))
    await until(lambda: ear.heard, "the ear is in the room")
    async with edge.v1(ROOM) as client:
        chatter = Chatter(client)
        talking = asyncio.create_task(chatter.talk())
        listening = asyncio.create_task(chatter.listen())
        try:
            await until(lambda: len(chatter.acked) > 20, "messages flow")
            yield chatter, ear
            before = len(chatter.acked)
            await until(lambda: len(chatter.acked) > before + 50, "messages flow again")
            chatter.stopped = True
            await talking
            await until(
                lambda: len(chatter.acked) + len(chatter.failed) == chatter.said, "all is answered"
            )
            await until(lambda: len(ear.heard) > chatter.said, "the room heard everything")
        finally:
            for task in (talking, listening, hearing):
                task.cancel()
            await asyncio.gather(talking, listening, hearing, return_exceptions=True)


def assert_nothing_lost(chatter: Chatter, ear: Ear) -> None:
    assert chatter.failed == []
    assert chatter.acked == list(range(1, chatter.said + 1)), "each acknowledged once, in order"
    assert ear.heard[1:] == [str(n) for n in range(chatter.said)], "each in the room once, in order"


async def test_a_killed_workers_messages_are_executed_by_another(app: System) -> None:
    workers = [await app.worker(), await app.worker()]
    edges = [await app.edge(), await app.edge()]
    async with chat(*edges) as (chatter, ear):
        workers[0].kill()
    assert_nothing_lost(chatter, ear)


async def test_the_last_worker_killed_leaves_messages_waiting_for_the_next_one(app: System) -> None:
    worker = await app.worker()
    edges = [await app.edge(), await app.edge()]
    async with chat(*edges) as (chatter, ear):
        worker.kill()
        await until(lambda: chatter.waited, "the client is told that it waits")
        await app.worker()
    assert_nothing_lost(chatter, ear)


async def test_a_worker_frozen_for_ten_seconds_loses_and_repeats_nothing(app: System) -> None:
    workers = [await app.worker(), await app.worker()]
    edges = [await app.edge(), await app.edge()]
    async with chat(*edges) as (chatter, ear):
        workers[0].freeze()
        before = len(chatter.acked)
        await asyncio.sleep(10)  # the freeze itself: nothing to wait for
        # A message that meets the frozen one first goes to the other after a second; it is only in
        # the first 2.5 s that the frozen one can be taken for alive and be met twice.
        assert len(chatter.acked) >= before + 6, "the other worker goes on"
        workers[0].thaw()
        await workers[0].says("the loop stood still")
    assert_nothing_lost(chatter, ear)


async def test_nats_away_for_five_seconds(tmp_path: Path) -> None:
    """Sockets stay, /readyz says so, work goes on by itself."""
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        await app.worker()
        edges = [await app.edge("--ready-grace", "2s"), await app.edge()]
        async with chat(*edges) as (chatter, ear):
            await nats.stop()
            status, body = await edges[0].readyz()
            await until(lambda: says_away(edges[0]), "/readyz says that NATS is away")
            assert (await edges[1].readyz())[0] == 200, "within the grace it is still ready"
            await asyncio.sleep(5)  # the outage itself
            status, body = await edges[0].readyz()
            assert status == 503 and body["nats"]["away_seconds"] > 2
            await nats.start()
        assert_nothing_lost(chatter, ear)
        status, body = await edges[0].readyz()
        assert (status, body["nats"]) == (200, {"connected": True})


async def says_away(edge: Edge) -> bool:
    return (await edge.readyz())[1]["nats"]["connected"] is False


async def test_an_edge_that_loses_nats_for_a_moment_catches_up_unseen(tmp_path: Path) -> None:
    """The room goes on meanwhile; its members on this edge get all of it, in order, once."""
    async with (
        nats_server(tmp_path / "nats", KICKABLE) as nats,
        system(nats, tmp_path) as app,
    ):
        await app.worker()
        edges = [await app.edge(), await app.edge()]
        name = json.loads(edges[1].program.lines[0])["instance"]
        system_account = await connect(nats.url.replace("//", "//sys:sys@"))
        async with chat(*edges) as (chatter, ear):
            for _ in range(5):
                before = len(chatter.acked)
                await kick(system_account, f"fairlead-edge-{name}")
                await until(lambda n=before: len(chatter.acked) > n + 40, "the chat goes on")  # type: ignore[misc]  # bound by default
        await system_account.close()
        assert len([line for line in edges[1].program.lines if "NATS is back" in line]) == 5
    assert_nothing_lost(chatter, ear)


async def test_a_worker_told_to_stop_finishes_what_it_has(app: System) -> None:
    workers = [await app.worker(), await app.worker()]
    edges = [await app.edge(), await app.edge()]
    async with chat(*edges) as (chatter, ear):
        assert await workers[0].stop() == 0
    assert_nothing_lost(chatter, ear)


async def test_a_run_longer_than_the_grace_is_handed_over(app: System, tmp_path: Path) -> None:
    """The next worker starts it at once, with the next attempt; the client is told to forget."""
    first = await app.worker("everything.py", "--drain-grace", "100ms")
    edge = await app.edge()
    async with edge.v1("/support/realtime/slow") as client:
        ref = await client.send(str(tmp_path / "go"))
        assert (await client.until("message"))["data"] == f"attempt 1 in {first.pid}"
        second = await app.worker()
        assert await first.stop() == 0
        restart = await client.until("restart")
        assert (restart["attempt"], restart["ref"]) == (2, ref)
        assert (await client.until("message"))["data"] == f"attempt 2 in {second.pid}"
        (tmp_path / "go").touch()
        assert (await client.until("message"))["data"] == "end"
        assert (await client.until("ack"))["ref"] == ref


async def test_a_killed_worker_in_the_middle_of_a_run(app: System, tmp_path: Path) -> None:
    """Two beats missed, then the next attempt elsewhere."""
    first = await app.worker()
    edge = await app.edge()
    async with edge.v1("/support/realtime/slow") as client:
        ref = await client.send(str(tmp_path / "go"))
        assert (await client.until("message"))["data"] == f"attempt 1 in {first.pid}"
        second = await app.worker()
        first.kill()
        assert (await client.until("restart"))["attempt"] == 2
        assert (await client.until("message"))["data"] == f"attempt 2 in {second.pid}"
        (tmp_path / "go").touch()
        assert (await client.until("ack"))["ref"] == ref


async def test_a_frozen_workers_run_does_not_speak_again(app: System, tmp_path: Path) -> None:
    """Taken over elsewhere meanwhile, it asks its edge before its next word, and is dropped."""
    first = await app.worker()
    edge = await app.edge()
    async with edge.v1("/support/realtime/slow") as client:
        await client.send(str(tmp_path / "go"))
        assert (await client.until("message"))["data"] == f"attempt 1 in {first.pid}"
        first.freeze()
        second = await app.worker()
        attempt = (await client.until("restart"))["attempt"]
        assert (await client.until("message"))["data"] == f"attempt {attempt} in {second.pid}"
        first.thaw()
        await first.says("the loop stood still")
        (tmp_path / "go").touch()
        assert (await client.until("message"))["data"] == "end"
        await client.until("ack")
        await client.send(str(tmp_path / "go"))
        frames = [await client.next() for _ in range(3)]
        assert [frame.get("data") for frame in frames][1:] == ["end", None], "nothing in between"


async def test_a_frozen_edge_takes_nothing_from_its_workers(app: System, tmp_path: Path) -> None:
    """It was the edge that heard no beats: when it wakes, the run in hand is still the first attempt."""
    worker = await app.worker()
    edge = await app.edge()
    async with edge.v1("/support/realtime/slow") as client:
        await client.send(str(tmp_path / "go"))
        assert (await client.until("message"))["data"] == f"attempt 1 in {worker.pid}"
        edge.freeze()
        await asyncio.sleep(6)  # the freeze itself: longer than two beats
        edge.thaw()
        (tmp_path / "go").touch()
        assert (await client.next())["data"] == "end", "no restart"
        assert (await client.next())["type"] == "ack"


@pytest.mark.parametrize("path", ["slow", "again"])
async def test_a_lost_worker_ends_or_restarts_a_stream(app: System, path: str) -> None:
    first = await app.worker()
    edge = await app.edge()
    async with edge.events(f"/support/stream/{path}") as stream:
        assert await stream.bytes() == b'data: "attempt 1"\n\n'
        await app.worker()
        first.kill()
        event = await stream.next()
        if path == "slow":
            assert event["event"] == "error" and json.loads(event["data"])["status"] == 503
        else:
            run = stream.headers["fairlead-run"]
            assert event == {"event": "restart", "data": f'{{"run":"{run}","attempt":2}}'}
            assert await stream.bytes() == b'data: "attempt 2"\n\n'
        assert (await stream.next())["event"] == "end"


async def test_a_worker_at_its_limit_is_busy_and_nothing_is_lost(
    app: System, tmp_path: Path
) -> None:
    """Twelve clients, one worker with two places: all are served in the end, each once."""
    await app.worker("everything.py", "--concurrency", "2")
    edge = await app.edge()

    async def ask(number: int) -> str:
        async with edge.v1("/support/realtime/wide") as client:
            await client.send("0.05")
            frame = await client.next()
            while frame["type"] == "waiting":
                frame = await client.next()
            assert (await client.until("ack"))["ref"] == 1
            return str(frame["data"])

    answers = await asyncio.gather(*(ask(n) for n in range(12)))
    assert answers == ["slept 0.05"] * 12


async def test_a_stuck_loop_leaves_nats_and_shows_where(app: System) -> None:
    """A blocking call in an async function: the watchdog cuts it off, another worker takes over."""
    stuck = await app.worker("stuck.py")
    edge = await app.edge()
    async with edge.v1("/support/realtime/stuck") as client:
        await client.send("go")
        await stuck.says("the loop has been stuck")
        assert "time.sleep" in "".join(stuck.program.lines)
        await app.worker("stuck.py", env={"NOT_STUCK": "1"})
        attempt = (await client.until("message"))["data"].removeprefix("attempt ")
        assert int(attempt) >= 2
        await client.until("ack")


async def test_edges_may_start_before_workers(app: System) -> None:
    edge = await app.edge()
    await app.worker()
    async with edge.raw("/support/realtime/echo") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
