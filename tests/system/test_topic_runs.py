"""`run="topic"`: one run per room over all workers, while the room has members on any edge."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from nats import connect
from websockets.exceptions import InvalidStatus

from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import SLOWER
from support.proof import Times
from support.system import Edge, System, Worker, nats_server, system, until
from support.ticking import TICKS, Item, Notes, assert_one_voice, member


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setenv("NOTES", str(tmp_path))
    return Notes(tmp_path)


@pytest_asyncio.fixture
async def edges(app: System, notes: Notes) -> list[Edge]:
    return list(await asyncio.gather(app.edge(), app.edge()))


def shown(line: str) -> None:
    """For whoever reads the output (pytest -s)."""
    sys.stdout.write(f"\n{line}\n")


async def workers(app: System, number: int) -> dict[int, Worker]:
    """So many workers, by their pids."""
    told = {"FAIRLEAD_EXCEPTION_MESSAGES": "on"}
    made = await asyncio.gather(*(app.worker("topics.py", env=told) for _ in range(number)))
    await asyncio.gather(*(edge.serves(TICKS + "a") for edge in app.edges))
    return {worker.pid: worker for worker in made}


async def test_one_run_per_room_over_three_workers_and_two_edges(
    app: System, edges: list[Edge], notes: Notes
) -> None:
    made = await workers(app, 3)
    async with AsyncExitStack() as stack:
        rooms = [f"r{number}" for number in range(20)]
        clients = await asyncio.gather(
            *(
                stack.enter_async_context(member(edge, TICKS + room))
                for room in rooms
                for edge in edges
            )
        )
        await until(lambda: all(len(each.items) >= 40 for each in clients), "all rooms tick")
        for number, room in enumerate(rooms):
            pair = clients[2 * number : 2 * number + 2]
            for each in pair:
                assert {item["room"] for item in each.items} == {room}
                assert {item["attempt"] for item in each.items} == {1}
                assert_one_voice(each.items)
        assert len(notes.of("begin")) == 20
        assert len({each.runner for each in clients}) > 1, f"shared by {len(made)} workers"
    left = time.monotonic()
    await until(lambda: len(notes.of("finally")) == 20, "each run's `finally` ran")
    ended = time.monotonic() - left
    shown(
        f"20 rooms, 3 workers, 2 edges: 20 runs, all ended {ended:.1f} s after the last member left"
    )
    assert ended < 3


async def test_a_room_is_its_channel_too_and_any_member_counts(
    app: System, edges: list[Edge], notes: Notes
) -> None:
    await workers(app, 1)
    async with (
        member(edges[0], TICKS + "a?channel=blue") as blue,
        member(edges[0], TICKS + "a") as plain,
    ):
        await until(lambda: blue.items and plain.items, "both tick")
        assert sorted(line.split()[2] for line in notes.of("begin")) == ["-", "blue"]
    await until(lambda: len(notes.of("finally")) == 2, "both end")
    async with edges[1].events("/support/stream/watch/a") as stream:
        while "number" not in (event := await stream.next())["data"]:
            pass
        assert json.loads(event["data"])["attempt"] == 1, "an empty room counts anew"


async def test_a_members_own_messages_are_refused_and_it_stays(
    app: System, edges: list[Edge]
) -> None:
    await workers(app, 1)
    async with edges[0].v1(TICKS + "a") as client:
        ref = await client.send("hello")
        error = await client.until("error")
        assert (error["ref"], error["error"]["status"]) == (ref, 405)
        assert "runs once per room and takes no messages" in error["error"]["detail"]
        await client.until("message")
    async with edges[0].raw(TICKS + "a") as raw:
        await raw.send("hello")
        while (frame := json.loads(await raw.recv())).get("type") != "error":
            pass
        assert frame["error"]["status"] == 405
        await raw.recv()


async def test_what_a_run_of_a_room_knows_and_that_it_is_over_until_the_room_was_empty(
    app: System, edges: list[Edge]
) -> None:
    await workers(app, 2)
    async with member(edges[0], "/support/realtime/once?who=me") as one:
        await until(lambda: len(one.heard) == 1, "it says what it says")
        assert one.heard[0]["data"] == "once 1 {} {} None ''"
        assert "from" not in one.heard[0]
        async with edges[1].v1("/support/realtime/once") as other:
            ref = await other.send("x")
            assert (await other.next())["ref"] == ref, "nothing is run again for who comes later"
    await asyncio.sleep(1)  # empty for longer than a run lingers for those who reload
    async with member(edges[0], "/support/realtime/once") as anew:
        await until(lambda: len(anew.heard) == 1, "once more after it was empty")


async def test_what_raises_is_reported_and_started_again(app: System, edges: list[Edge]) -> None:
    (worker,) = (await workers(app, 1)).values()
    async with member(edges[0], "/support/realtime/fails") as one:
        await worker.says("there is nobody to reply to")
        await worker.says("ctx.channel has no messages here")
        await until(lambda: len(one.heard) == 3, "the third attempt speaks")
        assert [frame["data"] for frame in one.heard] == [f"attempt {n}" for n in (1, 2, 3)]


async def test_policies_and_inputs_are_asked_for_each_connection(
    app: System, edges: list[Edge]
) -> None:
    await workers(app, 1)
    path = "/support/realtime/guarded/"
    for asked, status in (("1", 403), ("x?token=1", 400), ("1?ask=1", 409)):
        with pytest.raises(InvalidStatus) as refused:
            async with edges[0].raw(path + asked):
                pass
        assert refused.value.response.status_code == status
    async with edges[0].v1(path + "41?token=1") as client:
        assert await client.hears() == 42


async def test_members_wait_for_the_first_worker(app: System, edges: list[Edge]) -> None:
    (first,) = (await workers(app, 1)).values()
    assert await first.stop() == 0
    async with member(edges[0], "/support/realtime/quick") as one:
        assert one.heard == []
        await app.worker("topics.py")
        await until(lambda: one.items, "it starts when one comes")


async def test_a_worker_at_its_limit_leaves_rooms_to_others(
    app: System, edges: list[Edge], notes: Notes
) -> None:
    """A room counts as a stream does."""
    for _ in range(2):
        await app.worker("topics.py", "--streams", "1")
    await edges[0].serves(TICKS + "a")
    async with member(edges[0], TICKS + "a") as one:
        await until(lambda: one.items, "the first room has one of them")
        async with member(edges[0], TICKS + "b") as other:
            await until(lambda: other.items, "the second has the other")
            assert one.runner != other.runner
            async with member(edges[0], TICKS + "c") as third:
                ref = await third.client.send("x")
                await until(lambda: third.heard, "it is a member")
                assert [frame.get("ref") for frame in third.heard] == [ref], "nobody runs it"
                await other.client.cut()
                await until(lambda: third.items, "as soon as one has a place")


async def test_a_worker_told_to_stop_hands_over_at_once(
    app: System, edges: list[Edge], notes: Notes
) -> None:
    made = await workers(app, 2)
    async with member(edges[0], TICKS + "a") as one, member(edges[1], TICKS + "a") as other:
        await until(lambda: len(one.items) > 5, "it ticks")
        runner = one.runner
        stopping = asyncio.create_task(made[runner].stop())
        await until(lambda: notes.of("finally"), "`finally` ran")
        began = time.monotonic()
        await until(lambda: one.runner not in (0, runner), "another goes on")
        assert time.monotonic() - began < 1
        silence = one.times[one.runner][0] - one.times[runner][1]
        shown(
            f"a worker told to stop: {silence * 1000:.0f} ms between its last item and the next run's"
        )
        assert await stopping == 0
        assert one.items[-1]["attempt"] == 2
        await until(lambda: other.runner == one.runner, "on the other edge, too")
        assert_one_voice(one.items)
        assert_one_voice(other.items)


async def test_a_frozen_runner_is_replaced_and_says_nothing_when_it_wakes(
    app: System, edges: list[Edge]
) -> None:
    """In a room with history and in one without."""
    ((pid, first),) = (await workers(app, 1)).items()
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(member(edge, path))
            for path in (TICKS + "a", "/support/realtime/quick")
            for edge in edges
        ]
        await until(lambda: all(len(each.items) > 30 for each in members), "both rooms tick")
        await workers(app, 1)
        first.freeze()
        began = time.monotonic()
        await until(lambda: all(each.runner != pid for each in members), "the other worker goes on")
        seconds = time.monotonic() - began
        shown(f"a worker frozen for 10 s: both rooms go on elsewhere after {seconds:.1f} s")
        assert seconds < 8 * SLOWER
        await asyncio.sleep(max(0.0, 10 - seconds))  # the freeze itself
        assert all(each.runner != pid for each in members)
        first.thaw()
        await first.says("the loop stood still")
        before = [len(each.items) for each in members]
        await until(
            lambda: all(len(m.items) > n + 20 for m, n in zip(members, before, strict=True)),
            "it goes on",
        )
        for each in members:
            assert {item["attempt"] for item in each.items} == {1, 2}
            assert_one_voice(each.items)


async def test_what_a_runner_says_after_it_lost_the_room_is_shown_to_nobody(
    app: System, edges: list[Edge]
) -> None:
    """As its bytes would come, had they been on their way for too long; live, and in a replay."""
    await workers(app, 1)
    path = "/support/realtime/say/a"
    now = int(time.time() * 1000)
    told = [
        ("first", f"7:{now + 60_000}"),
        ("second", f"8:{now + 60_000}"),
        ("an earlier runner's", f"7:{now - 1}"),
        ("too late", f"8:{now - 1}"),
        ("third", f"8:{now + 60_000}"),
        ("too late, too", f"9:{now - 1}"),
        ("last", f"8:{now + 60_000}"),
    ]
    shown = ["first", "second", "third", "last"]
    room = Subjects(app.app).log("ticks.a", "-")
    nats = await connect(app.nats.url)
    async with edges[0].v1(path) as one:
        for data, fence in told:
            headers = {"Fl-Fence": f"other.ticks:{fence}"}
            await nats.jetstream().publish(room, data.encode(), headers=headers)
        frames: list[Item] = []
        while len(frames) < len(shown):
            frame = await one.until("message")
            if isinstance(frame["data"], str):  # the room ticks, too
                frames.append(frame)
        assert [frame["data"] for frame in frames] == shown
        # On an edge that was not there: from the end on, so that no reading before helps it.
        cursors = [one.welcome["cursor"], *(frame["id"] for frame in frames[:-1])]
        for after in reversed(range(len(cursors))):
            async with edges[1].v1(f"{path}?cursor={cursors[after]}") as back:
                assert back.welcome["recovered"] is True
                heard: list[str] = []
                while len(heard) < len(shown) - after:
                    if isinstance(data := await back.hears(), str):
                        heard.append(data)
                assert heard == shown[after:]
    await nats.close()


async def test_a_killed_runner_is_replaced(app: System, edges: list[Edge]) -> None:
    made = await workers(app, 2)
    async with member(edges[0], TICKS + "a") as one:
        await until(lambda: len(one.items) > 5, "it ticks")
        runner = one.runner
        made[runner].kill()
        began = time.monotonic()
        await until(lambda: one.runner != runner, "another goes on")
        assert time.monotonic() - began < 8
        assert one.items[-1]["attempt"] == 2
        async with edges[1].v1(TICKS + "a?cursor=" + one.client.welcome["cursor"]) as later:
            assert later.welcome["recovered"] is True
            replayed = [(await later.until("message"))["data"] for _ in one.items]
            assert replayed == one.items, "who replays it sees the same"


@pytest.mark.parametrize(
    "rooms", [pytest.param(6, id="short"), pytest.param(16, id="long", marks=pytest.mark.soak)]
)
async def test_all_rooms_of_a_killed_worker_go_on_elsewhere(
    app: System, edges: list[Edge], notes: Notes, rooms: int
) -> None:
    (first,) = (await workers(app, 1)).values()
    async with AsyncExitStack() as stack:
        pairs = [
            [await stack.enter_async_context(member(edge, f"{TICKS}r{number}")) for edge in edges]
            for number in range(rooms)
        ]
        members = [each for pair in pairs for each in pair]
        await until(lambda: all(len(each.items) > 20 for each in members), "all rooms tick")
        await workers(app, 2)
        first.kill()
        killed = time.monotonic()
        await until(lambda: all(len(each.times) > 1 for each in members), "all go on elsewhere")
        before = [len(each.items) for each in members]
        await until(
            lambda: all(len(m.items) > n + 20 for m, n in zip(members, before, strict=True)),
            "and tick",
        )
        for each in members:
            assert {item["attempt"] for item in each.items} == {1, 2}
            assert_one_voice(each.items)
        for number, (one, _) in enumerate(pairs):
            path = f"{TICKS}r{number}?cursor={one.client.welcome['cursor']}"
            async with edges[1].v1(path) as later:
                assert later.welcome["recovered"] is True
                seen = list(one.items)
                replayed = [(await later.until("message"))["data"] for _ in seen]
                assert replayed == seen, "who replays it sees the same"
    assert len(notes.of("begin")) == 2 * rooms
    pauses = Times.of(each.times[each.runner][0] - killed for each in members)
    heard = sum(len(each.items) for each in members)
    shown(
        f"a worker killed with {rooms} rooms: {len(members)} members; delivered {heard} (100.000 %), "
        f"duplicates 0, out of order 0, replays 100.000 %; first item of the next run after {pauses}"
    )
    assert pauses.slowest < 8 * SLOWER


async def test_nats_away_for_five_seconds(tmp_path: Path, notes: Notes) -> None:
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        edge = await app.edge()
        await workers(app, 2)
        async with member(edge, TICKS + "a") as one:
            await until(lambda: len(one.items) > 30, "it ticks")
            await nats.stop()
            await asyncio.sleep(5)  # the outage itself
            await nats.start()
            began = time.monotonic()
            before = len(one.items)
            await until(lambda: len(one.items) > before, "the same, or another, goes on")
            shown(
                f"NATS away for 5 s: the next item {time.monotonic() - began:.1f} s after it is back"
            )
            await until(lambda: len(one.items) > before + 20, "and goes on")
            assert_one_voice(one.items)
