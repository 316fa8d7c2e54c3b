"""Publishing from programs that are no workers: `fairlead.connect` and its blocking twin."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import fairlead
from fairlead.errors import BadName, NotStored, Unusable
from support.system import CONFIG, V1, Edge, System, nats_server, system, until

ROOM = "/support/realtime/rooms/blue"


def _sequence(cursor: str | None) -> bytes:
    """What a cursor says of the log, apart from the time: 16 bytes, after its first two."""
    assert cursor is not None
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[2:-8]


@pytest.fixture
async def edge(app: System) -> Edge:
    """An edge with a worker of everything.py behind it."""
    edge, _ = await asyncio.gather(app.edge(), app.worker())
    await edge.serves("/support/stream/value")
    return edge


async def test_members_of_the_room_get_what_is_published(app: System, edge: Edge) -> None:
    async with edge.v1(f"{ROOM}?channel=one") as client:
        async with fairlead.connect(app.nats.url, app=app.app) as bus:
            room = bus.topic("rooms.blue", channel="one")
            cursors = [await room.publish(x) for x in ("text", {"json": [1]}, b"\x00")]
        heard = [await client.until("message") for _ in range(3)]
    assert [frame["data"] for frame in heard] == ["text", {"json": [1]}, "AA=="]
    assert heard[2]["encoding"] == "base64"
    # It is told where it stands in the log; the time in a cursor is when it was made.
    ids = [frame["id"] for frame in heard]
    assert [_sequence(cursor) for cursor in cursors] == [_sequence(id) for id in ids]
    assert all("from" not in frame for frame in heard)


async def test_a_room_without_history_has_no_cursor(app: System, edge: Edge) -> None:
    async with edge.v1("/support/realtime/volatile") as client:
        async with fairlead.connect(app.nats.url, app=app.app) as bus:
            assert await bus.topic("volatile").publish("now or never") is None
        assert (await client.until("message"))["data"] == "now or never"


async def test_an_id_counts_once_per_room(app: System, edge: Edge) -> None:
    async with edge.v1(ROOM) as client, fairlead.connect(app.nats.url, app=app.app) as bus:
        room, other = bus.topic("rooms.blue"), bus.topic("rooms.red")
        first = await room.publish("one", id="order-1")
        assert _sequence(await room.publish("one again", id="order-1")) == _sequence(first)
        await other.publish("one elsewhere", id="order-1")
        await room.publish("two", id="order-2")
        assert [(await client.until("message"))["data"] for _ in range(2)] == ["one", "two"]


async def test_a_thousand_at_once_all_arrive(app: System, edge: Edge) -> None:
    async with edge.v1(ROOM) as client, fairlead.connect(app.nats.url, app=app.app) as bus:
        room = bus.topic("rooms.blue")
        cursors = await asyncio.gather(*(room.publish(n) for n in range(1000)))
        heard = {(await client.until("message"))["data"] for _ in range(1000)}
    assert heard == set(range(1000))
    assert len(set(cursors)) == 1000


async def test_what_is_wrong_is_said(app: System, edge: Edge) -> None:
    async with fairlead.connect(app.nats.url, app=app.app) as bus:
        with pytest.raises(LookupError, match="topic 'unknown' is not declared; declared: "):
            await bus.topic("unknown").publish("x")
        with pytest.raises(BadName):
            bus.topic("rooms.blue", channel="no good")
        with pytest.raises(TypeError, match="cannot be sent"):
            await bus.topic("rooms.blue").publish({1, 2})
        with pytest.raises(ValueError, match="line break"):
            await bus.topic("rooms.blue").publish("x", id="a\r\nb")
    with pytest.raises(RuntimeError, match="not connected"):
        await fairlead.connect(app.nats.url).topic("rooms.blue").publish("x")


async def test_nobody_there_is_said_with_the_url() -> None:
    found = r"nats://127\.0\.0\.1:1 could not be used within 0\.3 s: .*Connect call failed.*running"
    with pytest.raises(Unusable, match=found):
        async with fairlead.connect("nats://127.0.0.1:1", timeout=0.3):
            pass


async def test_a_password_that_is_wrong_is_said_and_not_shown(tmp_path: Path) -> None:
    guarded = CONFIG + "authorization {{ user: ann, password: right }}\n"
    async with nats_server(tmp_path / "nats", guarded) as nats:
        url = nats.url.replace("//", "//ann:s3cret@")
        with pytest.raises(Unusable, match=r"could not be used within 1 s: .*credentials") as told:
            async with fairlead.connect(url, timeout=1):
                pass
    assert "s3cret" not in str(told.value)


async def test_an_outage_of_5_s_is_survived_and_a_longer_one_is_said(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        edge, _ = await asyncio.gather(app.edge(), app.worker())
        await edge.serves("/support/stream/value")
        async with edge.v1(ROOM) as client:
            async with fairlead.connect(nats.url, app=app.app) as bus:
                room = bus.topic("rooms.blue")
                await room.publish("before")
                await nats.stop()
                began = time.monotonic()
                publishing = [asyncio.ensure_future(room.publish(n)) for n in range(10)]
                await asyncio.sleep(5)  # the outage
                await nats.start()
                cursors = await asyncio.gather(*publishing)
                assert len(set(cursors)) == 10
                assert time.monotonic() - began >= 5
                await room.publish("after")
            heard = await _heard(client, "after")
            assert heard[0] == "before"
            assert sorted(heard[1:]) == list(range(10)), "each is in the room once"
        async with fairlead.connect(nats.url, app=app.app, timeout=1.0) as bus:
            await bus.topic("rooms.blue").publish("still there")
            await nats.stop()
            with pytest.raises(NotStored, match="try again with the same id"):
                await bus.topic("rooms.blue").publish("lost")


async def _heard(client: V1, last: str) -> list[Any]:
    """What the room says, up to the last."""
    heard: list[Any] = []
    while not heard or heard[-1] != last:
        heard.append((await client.until("message"))["data"])
    return heard[:-1]


# The blocking twin


async def test_it_blocks_until_the_message_is_stored(app: System, edge: Edge) -> None:
    def view() -> str | None:
        with fairlead.connect_sync(app.nats.url, app=app.app) as bus:
            return bus.topic("rooms.blue").publish({"from": "a view"})

    async with edge.v1(ROOM) as client:
        cursor = await asyncio.to_thread(view)
        heard = await client.until("message")
        assert heard["data"] == {"from": "a view"}
        assert _sequence(heard["id"]) == _sequence(cursor)


async def test_all_threads_share_one_connection_that_is_made_when_it_is_needed(
    app: System, edge: Edge
) -> None:
    before = threading.active_count()
    bus = fairlead.connect_sync(app.nats.url, app=app.app)
    assert threading.active_count() == before

    async with edge.v1(ROOM) as client:
        room = bus.topic("rooms.blue")
        await asyncio.gather(*(asyncio.to_thread(room.publish, n) for n in range(100)))
        assert {(await client.until("message"))["data"] for _ in range(100)} == set(range(100))
        threads = [t for t in threading.enumerate() if t.name == "fairlead"]
        assert len(threads) == 1
        await asyncio.to_thread(bus.close)
        assert not threads[0].is_alive()
        await asyncio.to_thread(room.publish, "anew")
        assert (await client.until("message"))["data"] == "anew"
        await asyncio.to_thread(bus.close)


async def test_it_waits_an_outage_of_5_s_out_in_each_of_its_threads(tmp_path: Path) -> None:
    """As Django's threads would: each blocks, none fails, and nothing is in the room twice."""
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        edge, _ = await asyncio.gather(app.edge(), app.worker())
        await edge.serves("/support/stream/value")
        bus = fairlead.connect_sync(nats.url, app=app.app)
        room = bus.topic("rooms.blue")
        async with edge.v1(ROOM) as client:
            await asyncio.to_thread(room.publish, "before")
            await nats.stop()
            publishing = [
                asyncio.ensure_future(asyncio.to_thread(room.publish, n)) for n in range(4)
            ]
            await asyncio.sleep(5)  # the outage
            assert not any(each.done() for each in publishing)
            await nats.start()
            assert len(set(await asyncio.gather(*publishing))) == 4
            await asyncio.to_thread(room.publish, "after")
            heard = await _heard(client, "after")
            assert heard[0] == "before"
            assert sorted(heard[1:]) == list(range(4))
        await asyncio.to_thread(bus.close)
        bus = fairlead.connect_sync(nats.url, app=app.app, timeout=1.0)
        await asyncio.to_thread(bus.topic("rooms.blue").publish, "still there")
        await nats.stop()
        with pytest.raises(NotStored, match="try again with the same id"):
            await asyncio.to_thread(bus.topic("rooms.blue").publish, "lost")
        await asyncio.to_thread(bus.close)


@pytest.mark.parametrize("way", ["async", "blocking"])
async def test_the_environment_says_where_and_for_which_app(
    app: System, edge: Edge, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """As it does for every command; an argument comes first."""
    monkeypatch.setenv("FAIRLEAD_NATS", app.nats.url)
    monkeypatch.setenv("FAIRLEAD_APP", app.app)
    async with edge.v1(ROOM) as client:
        if way == "async":
            async with fairlead.connect() as bus:
                await bus.topic("rooms.blue").publish("found")
        else:
            twin = fairlead.connect_sync()
            await asyncio.to_thread(twin.topic("rooms.blue").publish, "found")
            await asyncio.to_thread(twin.close)
        assert (await client.until("message"))["data"] == "found"
    async with fairlead.connect(app="another") as bus:
        with pytest.raises(LookupError, match="is not declared"):
            await bus.topic("rooms.blue").publish("x")


async def test_on_an_event_loop_it_says_what_to_use_instead(app: System) -> None:
    with pytest.raises(RuntimeError, match=r"use fairlead\.connect"):
        fairlead.connect_sync(app.nats.url).topic("rooms.blue").publish("x")


FORKS = """
import os, fairlead
bus = fairlead.connect_sync(os.environ["NATS"], app=os.environ["APP"])
room = bus.topic("rooms.blue")
room.publish("parent")
child = os.fork()
if child == 0:
    room.publish("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
room.publish("parent again")
"""


async def test_a_forked_process_connects_anew(app: System, edge: Edge) -> None:
    """As gunicorn does with --preload. The end of the process closes what is open."""
    async with edge.v1(ROOM) as client:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", FORKS],
            env={**os.environ, "NATS": app.nats.url, "APP": app.app},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, "")
        heard = [(await client.until("message"))["data"] for _ in range(3)]
        assert heard == ["parent", "child", "parent again"]


async def test_a_topic_that_is_declared_later_is_found(app: System) -> None:
    async with fairlead.connect(app.nats.url, app=app.app) as bus:
        with pytest.raises(LookupError):
            await bus.topic("rooms.blue").publish("too early")
        await app.worker()

        async def found() -> bool:
            try:
                return await bus.topic("rooms.blue").publish("now") is not None
            except LookupError:
                return False

        await until(found, "the topic is found")
