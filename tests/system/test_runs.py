"""Runs that outlive their connection, their edge and their worker: `resume=`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.subjects import Subjects
from support.system import (
    Edge,
    Events,
    NatsServer,
    System,
    connected,
    cut,
    nats_server,
    request,
    resident,
    system,
    until,
)  # fmt: skip
from support.unanswered import silent_about

KEPT = "/runs/kept"

MIB = 1024 * 1024

SECOND = 100
"""Looks of `until` in a second."""


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path: Path) -> AsyncIterator[System]:
    async with system(nats, tmp_path) as made:
        yield made


async def started(app: System, *, edges: int = 2, workers: int = 1) -> list[Edge]:
    return await app.run(
        str(Path(__file__).parent / "projects" / "runs.py"), edges=edges, workers=workers
    )


async def until_down(edge: Edge) -> None:
    async def down() -> bool:
        return not (await edge.readyz())[1]["nats"]["connected"]

    await until(down, "the edge has noticed that NATS is away")


async def steady(app: System) -> int:
    """Wait until the generator has stood still for a second; how many lines it has written."""
    stood: list[int] = []

    async def still() -> bool:
        stood.append(len(told(app)))
        return len(stood) > SECOND and len(set(stood[-SECOND:])) == 1

    await until(still, "the generator stands still")
    return stood[-1]


def told(app: System) -> list[str]:
    """What the workflows wrote down."""
    log = app.cwd / "runs.log"
    return log.read_text().splitlines() if log.exists() else []


class Reader:
    """Reads a run and checks its order: `attempt:number`, from 0 on in each attempt."""

    def __init__(self, stream: Events) -> None:
        self.stream = stream
        self.items: list[Any] = []
        self.names: list[str] = []
        self.last = ""
        self.run: dict[str, str] = {}

    async def next(self) -> dict[str, str]:
        while True:
            event = await self.stream.next()
            assert event, f"the stream ended after {self.names} and {self.items[-3:]}"
            if set(event) == {""}:
                continue  # a ping
            self.last = event.get("id", self.last)
            if event.get("event") == "run":
                self.run = json.loads(event["data"])
            if "event" in event:
                self.names.append(event["event"])
            else:
                self.items.append(json.loads(event["data"]))
            return event

    async def read(self, count: int) -> list[Any]:
        """So many more items."""
        wanted = len(self.items) + count
        while len(self.items) < wanted:
            await self.next()
        return self.items[-count:]

    async def to(self, name: str) -> dict[str, str]:
        """The next event of this name; items before it are kept."""
        while True:
            event = await self.next()
            if event.get("event") == name:
                return event

    async def to_end(self) -> list[Any]:
        await self.to("end")
        assert await self.stream.bytes() == b""
        return self.items


def numbers(attempt: int, count: int, first: int = 0) -> list[str]:
    return [f"{attempt}:{number}" for number in range(first, first + count)]


def back(last: str) -> dict[str, Any]:
    return {"headers": {"Last-Event-ID": last}}


async def test_a_cut_stream_goes_on_at_another_edge_where_it_was(app: System) -> None:
    one, two = await started(app)
    async with one.events(f"{KEPT}/count?n=60") as stream:
        before = Reader(stream)
        assert (await before.next())["event"] == "run"
        await before.read(20)
    async with two.events(f"{KEPT}/count?n=60", **back(before.last)) as stream:
        after = Reader(stream)
        assert (await after.next())["data"] == '{"recovered":true}'
        assert before.items + await after.to_end() == numbers(1, 60)
    assert told(app)[1:] == ["finally 1"], "it ran once"


async def test_each_place_of_a_run_can_be_come_back_to(app: System) -> None:
    """Also those within an entry of the log: items that were said at once."""
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/count?n=30&every=0") as stream:
        whole = Reader(stream)
        places = []
        while whole.names != ["run", "end"]:
            await whole.next()
            places.append(whole.last)
    for seen, place in enumerate(places[:-2]):
        async with edge.events(f"{KEPT}/count?n=30", **back(place)) as stream:
            rest = Reader(stream)
            assert await rest.to_end() == numbers(1, 30 - seen, seen)


async def test_at_the_end_of_a_run_there_is_nothing_to_come_back_to(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/count?n=3") as stream:
        reader = Reader(stream)
        await reader.read(3)
        last_item = reader.last
        await reader.to_end()
    for last in (last_item, reader.last):
        async with edge.events(f"{KEPT}/count?n=3", **back(last)) as stream:
            assert (stream.status, stream.headers["fairlead-run-over"]) == (204, "seen")
    assert len(told(app)) == 2, "nothing was run anew"


async def test_a_second_tab_reads_it_all(app: System) -> None:
    one, two = await started(app)
    async with one.events(f"{KEPT}/count?n=50") as stream:
        first = Reader(stream)
        await first.read(20)
        run, key = first.run["run"], first.run["key"]
        assert stream.headers["fairlead-run"] == run
        assert stream.headers["fairlead-run-token"] == key
        async with two.events(f"{KEPT}/count?run={run}&key={key}") as late:
            second = Reader(late)
            assert json.loads((await second.next())["data"]) == {"run": run, "key": key}
            assert await second.to_end() == numbers(1, 50)
        assert await first.to_end() == numbers(1, 50)


async def test_an_ended_run_is_read_until_it_is_forgotten(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/brief?n=5") as stream:
        reader = Reader(stream)
        await reader.read(2)
        place = reader.last
        await reader.to_end()
    again = f"{KEPT}/brief?run={reader.run['run']}&key={reader.run['key']}"
    async with edge.events(again) as stream:
        assert await Reader(stream).to_end() == numbers(1, 5)

    async def forgotten() -> bool:
        return (await request(edge.http(again)))[0] == 404

    await until(forgotten, "a run that is forgotten is not known")
    async with edge.events(f"{KEPT}/brief", **back(place)) as stream:
        assert (stream.status, stream.headers["fairlead-run-over"]) == (204, "forgotten")


@pytest.mark.parametrize("where", [0, 1])
async def test_a_run_is_cancelled_from_any_edge(app: System, where: int) -> None:
    edges = await started(app)
    async with edges[0].events(f"{KEPT}/count") as stream:
        reader = Reader(stream)
        await reader.read(5)
        path = f"{KEPT}/count?run={reader.run['run']}&key={reader.run['key']}"
        assert (await request(edges[where].http(path), method="DELETE"))[0] == 204
        assert reader.names == ["run"]
        await reader.to_end()
        await until(lambda: "finally 1" in told(app), "its finally has run")
    assert (await request(edges[where].http(path), method="DELETE"))[0] == 204, "as often as asked"


@pytest.mark.parametrize(
    "query",
    ["run={run}", "run={run}&key=wrong", "run=nosuch-1-1&key={key}", "run=.*&key={key}", "run="],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_run_is_shown_and_ended_for_those_who_may(
    app: System, query: str, method: str
) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/count") as stream:
        reader = Reader(stream)
        await reader.read(1)
        path = f"{KEPT}/count?{query.format(**reader.run)}"
        status, headers, body = await request(edge.http(path), method=method)
        assert status == 404 and headers["content-type"] == "application/problem+json"
        assert "is not known here, or needs its token" in json.loads(body)["detail"]
        await reader.read(5)


async def test_who_began_a_run_needs_no_token(app: System) -> None:
    one, two = await started(app)
    mine = f"{KEPT}/mine?who=ann"
    async with one.events(mine, method="POST", body=b"{}") as stream:
        reader = Reader(stream)
        await reader.read(5)
        run = reader.run["run"]
        for who, status in (("ann", 200), ("bob", 404), ("", 404), ("none", 403)):
            async with two.events(f"{KEPT}/mine?who={who}&run={run}") as other:
                assert other.status == status, who
        async with two.events(f"{KEPT}/mine?who=bob&n=1", **back(reader.last)) as other:
            assert other.status == 405, "a POST is not begun by GET"
        assert (await request(two.http(f"{KEPT}/mine?who=bob&run={run}"), method="DELETE"))[
            0
        ] == 404
        assert (await request(two.http(f"{mine}&run={run}"), method="DELETE"))[0] == 204
        await reader.to_end()


async def test_a_killed_workers_run_starts_again_elsewhere(app: System) -> None:
    one, two = await started(app, workers=2)
    async with one.events(f"{KEPT}/count?n=200") as stream:
        reader = Reader(stream)
        await reader.read(20)
        pid = int(told(app)[0].split()[2])
        async with two.events(
            f"{KEPT}/count?run={reader.run['run']}&key={reader.run['key']}"
        ) as late:
            second = Reader(late)
            await second.read(10)
            next(worker for worker in app.workers if worker.pid == pid).kill()
            for each in (reader, second):
                restart = await each.to("restart")
                assert json.loads(restart["data"]) == {"run": reader.run["run"], "attempt": 2}
                old = len(each.items)
                assert each.items == numbers(1, old), "no chunk of one attempt twice"
                await each.to_end()
                assert each.items[old:] == numbers(2, 200)


async def test_a_frozen_workers_run_starts_again_and_its_old_words_are_never_seen(
    app: System,
) -> None:
    (edge,) = await started(app, edges=1, workers=2)
    async with edge.events(f"{KEPT}/count?n=600") as stream:
        reader = Reader(stream)
        await reader.read(20)
        pid = int(told(app)[0].split()[2])
        frozen = next(worker for worker in app.workers if worker.pid == pid)
        frozen.freeze()
        await reader.to("restart")
        old = len(reader.items)
        frozen.thaw()
        await frozen.says("the loop stood still")
        assert (await reader.to_end())[old:] == numbers(2, 600)
        assert reader.items[:old] == numbers(1, old)
    await until(lambda: told(app).count("finally 1") == 1, "the old attempt is ended")


async def test_a_doubt_that_nobody_answers_ends_no_run(tmp_path: Path) -> None:
    """A worker whose loop stood still asks whether it still has the run. What it says is refused if not."""
    async with (
        silent_about("STREAM.MSG.GET", tmp_path / "nats") as nats,
        system(nats.server, tmp_path) as app,
    ):
        worker, edge = await asyncio.gather(
            app.worker("runs.py", env={"FAIRLEAD_NATS": nats.url}), app.edge()
        )
        await edge.serves(f"{KEPT}/count")
        async with edge.events(f"{KEPT}/count") as stream:
            reader = Reader(stream)
            await reader.read(10)
            worker.freeze()
            await asyncio.sleep(
                1.5
            )  # longer than a loop may stand still, shorter than a lost worker
            worker.thaw()
            await worker.says("the loop stood still")
            await worker.says("permissions violation")  # it asks in vain
            await nats.answer()
            assert await reader.read(150) == numbers(1, 150, len(reader.items) - 150)
            assert reader.names == ["run"]


async def test_edge_and_worker_killed_together(app: System) -> None:
    """Whoever comes back finds the run taken up from what it began with."""
    one, two = await started(app)
    async with one.events(f"{KEPT}/count?n=40") as stream:
        reader = Reader(stream)
        await reader.read(10)
        one.kill()
        app.workers[0].kill()
    await app.worker("runs.py")
    async with two.events(f"{KEPT}/count?n=40", **back(reader.last)) as stream:
        after = Reader(stream)
        assert (await after.next())["data"] == '{"recovered":true}'
        await after.to("restart")
        old = len(after.items)
        assert reader.items + after.items == numbers(1, 10 + old)
        assert (await after.to_end())[old:] == numbers(2, 40)


@pytest.mark.parametrize("path", ["count", "once"])
async def test_a_drained_worker_hands_its_runs_over(app: System, path: str) -> None:
    """Also those that a lost worker ends: this one is not lost."""
    first, edge = await asyncio.gather(app.worker("runs.py", "--drain-grace", "1"), app.edge())
    await edge.serves(f"{KEPT}/{path}")
    async with edge.events(f"{KEPT}/{path}") as stream:
        reader = Reader(stream)
        await reader.read(10)
        other = await app.worker("runs.py")
        assert await first.stop() == 0
        await reader.to("restart")
        assert await reader.read(150) == numbers(2, 150)
    begun = [line.split() for line in told(app) if line.startswith("begin")]
    assert begun == [["begin", "1", str(first.pid)], ["begin", "2", str(other.pid)]]
    assert told(app).count("finally 1") == 1


async def test_who_waited_for_an_answer_takes_no_run_that_another_took_meanwhile(
    app: System,
) -> None:
    """A worker that is asked to take a run up hears for two seconds whether anybody has it."""
    worker, edge = await asyncio.gather(app.worker("runs.py"), app.edge())
    await edge.serves(f"{KEPT}/count")
    subjects = Subjects(app.app)
    client = await nats.connect(app.nats.url)
    try:
        async with edge.events(f"{KEPT}/count") as stream:
            reader = Reader(stream)
            await reader.read(3)
            control = await client.subscribe(subjects.run_control(reader.run["run"]))
            worker.kill()
            await app.worker("runs.py")
            take_up = envelope.encode_work(
                Work(Kind.REOPEN, DataType.BINARY, b"", id=reader.run["run"])
            )
            inbound = subjects.inbound("runs", "count", "-", "-")
            await client.publish(inbound, take_up, subjects.answer("test", "test-1", 1, 1))
            while (await control.next_msg(timeout=10)).data != b"?":
                pass  # the edge says who reads
            await control.unsubscribe()
            await client.publish(inbound, take_up, subjects.answer("test", "test-2", 1, 1))
            again = await reader.to("restart")
            assert json.loads(again["data"])["attempt"] == 2
            read = len(reader.items)
            assert await reader.read(150) == numbers(2, 150), "three seconds"
            assert len(reader.items) == read + 150
    finally:
        await client.close()


async def test_a_run_is_taken_up_where_what_was_said_before_cannot_be_forgotten(
    tmp_path: Path,
) -> None:
    """A purge without an answer is no reason to leave the run to nobody."""
    async with (
        silent_about("STREAM.PURGE", tmp_path / "nats") as nats,
        system(nats.server, tmp_path) as app,
    ):
        (edge,) = await started(app, edges=1)
        async with edge.events(f"{KEPT}/count?n=40") as stream:
            reader = Reader(stream)
            await reader.read(10)
            app.workers[0].kill()
            await app.worker("runs.py", env={"FAIRLEAD_NATS": nats.url})
            restart = await reader.to("restart")
            assert json.loads(restart["data"])["attempt"] == 2
            old = len(reader.items)
            async with asyncio.timeout(30):  # pings come from a run of nobody's, too
                assert (await reader.to_end())[old:] == numbers(2, 40)


async def test_a_run_that_is_not_to_be_repeated_ends_with_an_error(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/once") as stream:
        reader = Reader(stream)
        await reader.read(10)
        app.workers[0].kill()
        await app.worker("runs.py")
        error = json.loads((await reader.to("error"))["data"])
        assert error["status"] == 503 and error["detail"] == "the worker that ran this was lost"
        await reader.to_end()


async def test_when_nobody_reads_on_disconnect_decides_after_the_window(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/brief") as stream:
        await Reader(stream).read(3)
    await until(lambda: "finally 1" in told(app), "nobody came back in time: cancelled")
    async with edge.events(f"{KEPT}/on?n=150") as stream:
        await Reader(stream).read(3)
    await until(lambda: "complete" in told(app), "this one goes on to its end")


async def test_who_comes_back_within_the_window_keeps_it_going(app: System) -> None:
    one, two = await started(app)
    edges = [one, two] * 4
    seen: list[str] = []
    last: dict[str, Any] = {}
    for edge in edges:
        async with edge.events(f"{KEPT}/brief", **last) as stream:
            reader = Reader(stream)
            seen += await reader.read(20)
            last = back(reader.last)
    assert seen == numbers(1, len(seen))
    assert len(told(app)) == 1


async def test_all_kinds_of_items_and_the_bytes_of_a_log(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/kinds") as stream:
        run = await stream.next()
        assert run["event"] == "run" and run["id"]
        plain = [await stream.bytes() for _ in range(4)]
        ids = [line for event in plain for line in event.split(b"\n") if line.startswith(b"id: ")]
        assert len(ids) == len(set(ids)) == 3
        bare = [
            b"\n".join(line for line in event.split(b"\n") if line[:4] != b"id: ")
            for event in plain
        ]
        assert bare == [
            b'data: {"json":1}\n\n',
            b"event: base64\ndata: Ynl0ZXM=\n\n",
            b'retry: 5\nevent: name\ndata: "named"\n\n',
            b": only a comment\n\n",
        ]


async def test_an_execute_that_raises_is_told_to_whoever_reads(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/fails") as stream:
        reader = Reader(stream)
        error = json.loads((await reader.to("error"))["data"])
        assert error["status"] == 500 and error["detail"] == "execute failed"
        await reader.to_end()
    again = f"{KEPT}/fails?run={reader.run['run']}&key={reader.run['key']}"
    async with edge.events(again) as stream:
        late = Reader(stream)
        await late.to_end()
        assert late.names == ["run", "error", "end"] and late.items == [1]


async def test_a_cursor_that_means_nothing_begins_a_run_and_says_so(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/count?n=2", **back("nonsense")) as stream:
        reader = Reader(stream)
        assert (await reader.next())["data"] == '{"recovered":false}'
        assert await reader.to_end() == numbers(1, 2)
        assert reader.names == ["resumed", "run", "end"]


# Runs without resume


async def test_a_run_without_resume_is_attached_to_live_and_cancelled_from_elsewhere(
    app: System,
) -> None:
    one, two = await started(app)
    async with one.events("/runs/plain/live") as stream:
        first = Reader(stream)
        await first.read(5)
        run, key = stream.headers["fairlead-run"], stream.headers["fairlead-run-token"]
        path = f"/runs/plain/live?run={run}&key={key}"
        assert (await request(two.http(path + "x")))[0] == 404
        async with two.events(path) as other:
            second = Reader(other)
            heard = await second.read(200)  # longer than two beats
            begin = int(heard[0].partition(":")[2])
            assert heard == numbers(1, 200, begin) and begin >= 5
            assert (await request(two.http(path), method="DELETE"))[0] == 204
            await second.to_end()
        await first.to_end()
    await until(lambda: "finally 1" in told(app), "its finally has run")
    assert (await request(two.http(path), method="DELETE"))[0] == 404


async def test_v1_clients_cancel_runs_by_token_wherever_they_are(app: System) -> None:
    one, two = await started(app)
    async with (
        one.events(f"{KEPT}/count") as kept,
        one.events("/runs/plain/live") as plain,
        two.v1("/runs/plain/ear") as client,
    ):
        for stream in (kept, plain):
            reader = Reader(stream)
            await reader.read(3)
            run = stream.headers["fairlead-run"]
            await client.say(type="cancel", run=run, key="wrong")
            refused = await client.until("error")
            assert refused["error"]["status"] == 404
            await client.say(type="cancel", run=run, key=stream.headers["fairlead-run-token"])
            await reader.to_end()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_where_there_are_no_runs_none_can_be_named(app: System, method: str) -> None:
    (edge,) = await started(app, edges=1)
    status, _, body = await request(edge.http("/runs/plain/ear?run=a-1-1"), method=method)
    assert status == 404 and "has no runs" in json.loads(body)["detail"]
    status, headers, _ = await request(edge.http(f"{KEPT}/count?run=a-1-1"), method="POST")
    assert (status, headers["allow"]) == (405, "GET, DELETE")


# Who reads slowly, and what is kept


async def test_the_generator_waits_for_its_quickest_viewer(app: System) -> None:
    """A stalled reader and an endless generator: the worker and the edge stay as they are."""
    (edge,) = await started(app, edges=1)
    reader, writer = await connected(edge, 32 * 1024)
    try:
        writer.write(f"GET {KEPT}/large?size=4096 HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await until(lambda: told(app), "it has begun")
        stopped = await steady(app)
        held = resident(edge), resident(app.workers[0])
        # 256 KiB ahead of its viewer, and what the edge and the kernels hold, in steps of 256 KiB.
        assert stopped * 64 * 4096 < 4 * 1024 * 1024
        # The kernels may have taken a little more meanwhile.
        assert await steady(app) * 64 * 4096 < 4 * 1024 * 1024
        now = resident(edge), resident(app.workers[0])
        assert all(b - a < 4 * 1024 * 1024 for a, b in zip(held, now, strict=True)), (held, now)
        async with asyncio.timeout(60):
            while len(told(app)) < stopped + 8:
                assert await reader.read(65536), "it goes on when it is read"
    finally:
        await cut(writer)


async def test_a_slow_viewer_holds_nobody_up_and_misses_nothing(app: System) -> None:
    """It reads what it missed from the log, at its own pace."""
    (one,) = await started(app, edges=1)
    count = 800
    async with one.events(f"{KEPT}/large?size=4096&n={count}") as quick:
        first = Reader(quick)
        await first.read(1)
        token = f"run={first.run['run']}&key={first.run['key']}"
        slow, writer = await connected(one, 32 * 1024)
        try:
            writer.write(f"GET {KEPT}/large?{token} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            await first.to_end()
            assert [item.partition(":")[0] for item in first.items] == [
                str(n) for n in range(count)
            ]
            late = Events(slow, writer)
            async with asyncio.timeout(30):
                await slow.readuntil(b"\r\n\r\n")
                second = Reader(late)
                assert await second.to_end() == first.items
            assert "gap" not in second.names
        finally:
            await cut(writer)


async def test_while_nobody_reads_a_generator_gets_two_mib_ahead(app: System) -> None:
    """And then it waits. Who was cut off finds also what was on its way to it."""
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/large?size=4096") as stream:
        reader = Reader(stream)
        await reader.read(3)
    stopped = await steady(app)
    # A line each 256 KiB. Ahead of what was written to the client, which the kernels may have.
    assert 2 * MIB <= (stopped + 1) * 64 * 4096 <= 2 * MIB + 4 * MIB
    async with edge.events(f"{KEPT}/large", **back(reader.last)) as stream:
        again = Reader(stream)
        assert (await again.next())["data"] == '{"recovered":true}'
        items = await again.read(64 * (stopped + 8))
        assert [int(item.partition(":")[0]) for item in items] == list(range(3, 3 + len(items)))
    assert "gap" not in again.names


async def test_what_goes_on_without_a_reader_is_not_held_up_by_what_is_kept(app: System) -> None:
    """`continue`: when its window is over nobody is waited for, and the oldest of it is forgotten."""
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/large-on?size=4096&n=4000") as stream:
        await Reader(stream).read(3)
    await until(lambda: "complete" in told(app), "16 MB are said to nobody")


async def test_a_late_joiner_is_told_that_the_first_part_is_gone(app: System) -> None:
    """More than 4 MiB are not kept; who was within them goes on, who was before is told so."""
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/large?size=65536&n=160") as stream:
        first = Reader(stream)
        await first.read(5)
        early = first.last
        await first.read(150)
        within = first.last
        token = f"run={first.run['run']}&key={first.run['key']}"
        async with edge.events(f"{KEPT}/large?{token}") as late:
            assert late.status == 410
        async with edge.events(f"{KEPT}/large", **back(within)) as late:
            assert (await Reader(late).next())["data"] == '{"recovered":true}'
        async with edge.events(f"{KEPT}/large", **back(early)) as late:
            second = Reader(late)
            assert (await second.next())["data"] == '{"recovered":false}'
            gap = await second.next()
            assert gap["event"] == "gap"
            assert json.loads(gap["data"]) == {"cursor": gap["id"]}
            await second.to_end()
            assert second.items == (first.items + await first.to_end())[-len(second.items) :]


async def test_a_run_that_nobody_has_can_be_cancelled(app: System) -> None:
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/count") as stream:
        reader = Reader(stream)
        await reader.read(3)
        app.workers[0].kill()
        path = f"{KEPT}/count?run={reader.run['run']}&key={reader.run['key']}"
        ending = asyncio.create_task(request(edge.http(path), method="DELETE"))
        await app.worker("runs.py")
        assert (await ending)[0] == 204
        await reader.to_end()


async def test_a_run_that_nobody_reads_is_taken_up_when_its_worker_died(app: System) -> None:
    """`on_disconnect="continue"`: it is to come to its end, whoever is there."""
    (edge,) = await started(app, edges=1)
    async with edge.events(f"{KEPT}/on?n=100") as stream:
        await Reader(stream).read(3)
    app.workers[0].kill()
    await app.worker("runs.py")
    await until(lambda: "complete" in told(app), "the other worker found it")


def test_credentials_are_not_stored(tmp_path: Path) -> None:
    """What a run began with is kept for its next attempt, without what only its client may have."""
    asyncio.run(run_with_credentials(tmp_path))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.blk"))
    assert "in.runs.count" in kept.decode(errors="replace") and b"hunter2" not in kept


async def run_with_credentials(tmp_path: Path) -> None:
    secret = {"Authorization": "Bearer hunter2", "Cookie": "session=hunter2", "X-Other": "hunter2"}
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        (edge,) = await started(app, edges=1)
        async with edge.events(f"{KEPT}/count?n=3", headers=secret) as stream:
            await Reader(stream).to_end()
        await nats.stop()


async def test_nats_away_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """Nothing is lost and nothing comes twice; the socket stays."""
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        (edge,) = await started(app, edges=1)
        async with edge.events(f"{KEPT}/count?n=300") as stream:
            reader = Reader(stream)
            await reader.read(20)
            await nats.stop()
            await until_down(edge)
            await nats.start()
            assert await reader.to_end() == numbers(1, 300)
