"""Rolling builds: edges serve what the living builds declare, and nobody restarts an edge."""

from __future__ import annotations

import asyncio
import hashlib
import json

import nats
import pytest
import websockets
from nats.js.kv import KeyValue

from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.system import PROJECTS, Edge, System, request, until

OLD, NEW = "build_old.py", "build_new.py"


async def status(edge: Edge, name: str) -> int:
    """Of a plain GET: 426 where there is a websocket, 404 where there is nothing."""
    return (await request(edge.http(f"/support/builds/{name}")))[0]


async def serves(edge: Edge, name: str, wanted: bool = True) -> None:
    async def right() -> bool:
        return await status(edge, name) == (426 if wanted else 404)

    await until(right, f"{name} is {'served' if wanted else 'gone'}")


async def answer(edge: Edge, name: str) -> str:
    """What a workflow says to a new client."""
    async with edge.raw(f"/support/builds/{name}") as client:
        await client.send("?")
        async with asyncio.timeout(DEADLINE):
            return str(await client.recv())


async def test_a_manifest_is_written_once_under_its_digest(app: System) -> None:
    for _ in range(2):
        await app.worker(OLD)
    await app.worker(NEW)
    client = await nats.connect(app.nats.url)
    try:
        bucket: KeyValue = await client.jetstream().key_value(Subjects(app.app).manifests)
        written = {key: await bucket.get(key) for key in await bucket.keys()}
        assert len(written) == 2, "one for each build, however many workers it has"
        assert (await bucket.status()).values == 2
        assert sorted(entry.revision or 0 for entry in written.values()) == [1, 2]
        for key, entry in written.items():
            assert entry.value is not None
            assert key == hashlib.sha256(entry.value).hexdigest()[:32]
        newest = json.loads(max(written.values(), key=lambda e: e.revision or 0).value or b"")
        assert "/support/builds/new" in [route["endpoint"] for route in newest["routes"]]
    finally:
        await client.close()


async def test_an_edge_serves_workers_that_come_later(app: System) -> None:
    """An empty app is ready; its routes come with the first worker, without a restart."""
    edge = await app.edge()
    assert (await edge.readyz())[0] == 200
    assert await status(edge, "shared") == 404
    await app.worker(OLD)
    await serves(edge, "shared")
    assert await answer(edge, "shared") == "either"
    assert await status(edge, "new") == 404
    await app.worker(NEW)
    await serves(edge, "new")
    assert await answer(edge, "new") == "new"


async def test_two_builds_at_once_and_the_older_one_leaves(app: System) -> None:
    """The union of their routes; the newer one wins a conflict; then what only the older had goes."""
    old = [await app.worker(OLD), await app.worker(OLD)]
    edge = await app.edge()
    await serves(edge, "who")
    assert await answer(edge, "who") == "the old build"
    async with (
        edge.raw("/support/builds/old") as on_old,
        edge.v1("/support/builds/old") as v1_on_old,
        edge.raw("/support/builds/who") as on_who,
        edge.raw("/support/builds/shared") as on_shared,
    ):
        await app.worker(NEW)
        await serves(edge, "new")
        assert [await answer(edge, name) for name in ("old", "new", "shared", "who")] == [
            "old", "new", "either", "the new build"
        ]  # fmt: skip
        await on_old.send("still there?")
        assert await on_old.recv() == "old"

        assert await old[0].stop() == 0
        assert await answer(edge, "old") == "old", "another worker of the old build lives"
        assert await old[1].stop() == 0
        for client in (on_old, v1_on_old.socket):
            with pytest.raises(websockets.ConnectionClosed) as closed:
                async with asyncio.timeout(DEADLINE):
                    await client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        await serves(edge, "old", wanted=False)
        assert await answer(edge, "who") == "the new build"
        await on_shared.send("still there?")
        assert await on_shared.recv() == "either", "a route of both builds drops nobody"
        assert on_who.state is websockets.State.OPEN


async def test_routes_stay_when_all_workers_are_gone(app: System) -> None:
    """Those of the newest build, also for an edge that starts then; messages wait for a worker."""
    old, new = await app.worker(OLD), await app.worker(NEW)
    edge = await app.edge()
    async with edge.v1("/support/builds/new") as client:
        assert await old.stop() == await new.stop() == 0
        await serves(edge, "old", wanted=False)
        later = await app.edge()
        for each in (edge, later):
            assert [await status(each, name) for name in ("old", "new", "who", "shared")] == [
                404, 426, 426, 426
            ]  # fmt: skip
            async with each.v1("/support/builds/shared") as opened:
                assert opened.welcome["type"] == "welcome", "opens with no worker at all"
        ref = await client.send("anyone?")
        assert await client.next() == {"type": "waiting", "ref": ref}
        await app.worker(NEW)
        assert (await client.until("message"))["data"] == "new"
        assert (await client.until("ack"))["ref"] == ref


async def test_an_older_build_that_comes_back_is_served_beside_the_newer(app: System) -> None:
    """A rollback: it is still the older one, and wins no conflict while the newer lives."""
    old = await app.worker(OLD)
    assert await old.stop() == 0
    new = await app.worker(NEW)
    edge = await app.edge()
    assert await status(edge, "old") == 404
    await app.worker(OLD)
    await serves(edge, "old")
    assert await answer(edge, "who") == "the new build"
    assert await new.stop() == 0
    await serves(edge, "new", wanted=False)
    assert await answer(edge, "who") == "the old build"


async def history(app: System) -> tuple[int, float, int, int]:
    """(size, age, generation, stored messages) of the stream of `kept`."""
    client = await nats.connect(app.nats.url)
    try:
        info = await client.jetstream().stream_info(Subjects(app.app).stream("kept"))
        config = info.config
        assert config.metadata is not None
        generation = int(config.metadata["fairlead-generation"])
        return config.max_msgs_per_subject, config.max_age or 0, generation, info.state.messages
    finally:
        await client.close()


async def manifests(app: System) -> list[str]:
    """The builds that have ever been declared."""
    client = await nats.connect(app.nats.url)
    try:
        bucket = await client.jetstream().key_value(Subjects(app.app).manifests)
        return sorted(await bucket.keys())
    finally:
        await client.close()


async def say(edge: Edge, count: int) -> None:
    async with edge.v1("/support/builds/kept") as client:
        for number in range(count):
            await client.send(number)
            await client.until("ack")


async def test_a_newer_build_grows_the_history_in_place(app: System) -> None:
    """Nothing stored is lost; the older build doesn't change it back when it starts again."""
    await app.worker(OLD)
    edge = await app.edge()
    await say(edge, 5)
    assert await history(app) == (10, 60, 1, 5)
    await app.worker(NEW)
    assert await history(app) == (20, 120, 2, 5)
    await app.worker(OLD)
    assert await history(app) == (20, 120, 2, 5)
    await say(edge, 15)
    assert (await history(app))[3] == 20


async def test_what_was_evicted_before_a_build_that_keeps_more_is_not_said_to_be_there(
    app: System,
) -> None:
    """The room is not full any more. Who missed less than it kept then has all of it."""
    await app.worker(OLD)
    one, two = await app.edge(), await app.edge()
    path = "/support/builds/kept"
    async with one.v1(path) as early:
        await say(one, 1)
        await early.until("message")
    await say(one, 3)
    async with one.v1(path) as late:
        await say(one, 1)
        await late.until("message")
    await say(one, 8)
    await app.worker(NEW)
    assert await history(app) == (20, 120, 2, 10)
    async with two.v1(f"{path}?cursor={early.cursor}") as client:
        assert client.welcome["recovered"] is False, "ten were kept, and it missed twelve"
    async with two.v1(f"{path}?cursor={late.cursor}") as client:
        assert client.welcome["recovered"] is True
        assert [(await client.until("message"))["data"] for _ in range(8)] == list(range(8))


async def test_a_newer_build_shrinks_the_history_only_if_told_to(app: System) -> None:
    """It would evict at once, so the worker says so and ends with exit code 1."""
    await app.worker(NEW)
    edge = await app.edge()
    await say(edge, 5)
    before = await manifests(app)
    smaller = {"KEPT": "3"}
    refused = app.start("worker", str(PROJECTS / NEW), env=smaller)
    assert await refused.ended() == 1
    last = json.loads(refused.program.lines[-1])["reason"]
    for part in ("'kept'", "20 messages for 120 s", "3 for 120 s", "--allow-shrink"):
        assert part in last, last
    assert "Traceback" not in "".join(refused.program.lines)
    assert await history(app) == (20, 120, 1, 5)
    assert await manifests(app) == before, "edges go by what is written"
    await app.worker(NEW, "--allow-shrink", env=smaller)
    assert await history(app) == (3, 120, 2, 3)


BOARD = """
from fairlead import WS, History, Message, feature, project

support = feature("Support")

@support.websocket("board", tag="builds", deliver="topic", history={history})
async def board(ctx: WS, message: Message) -> object:
    return message.data

app = project(support)
"""


@pytest.mark.parametrize(
    ("before", "after"), [("None", "History()"), ("History()", "None")], ids=["on", "off"]
)
async def test_history_that_a_deploy_turns_on_or_off_is_so_for_whoever_comes_back(
    app: System, before: str, after: str
) -> None:
    """The rooms that are open are taken over; their members reconnect, and learn what holds now."""
    for number, history in enumerate((before, after)):
        (app.cwd / f"board{number}.py").write_text(BOARD.format(history=history))
    edge, _ = await asyncio.gather(app.edge(), app.worker(f"{app.cwd}/board0.py"))
    await edge.serves("/support/builds/board")
    async with edge.v1("/support/builds/board") as client:
        assert (client.welcome["cursor"] is None) == (before == "None")
        await app.worker(f"{app.cwd}/board1.py")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            while True:
                await client.next()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    async with edge.v1("/support/builds/board") as one, edge.v1("/support/builds/board") as two:
        assert (one.welcome["cursor"] is None) == (after == "None")
        for number in range(6):  # by workers of either build
            await one.send(number)
            heard = await two.until("message")
            assert heard["data"] == number
            assert (heard["id"] is None) == (after == "None")
