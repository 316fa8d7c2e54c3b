"""Coming back to a room with a cursor: every message that was missed, in order and once, or a no."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from websockets.exceptions import ConnectionClosed

from fairlead.protocol import cursor as cursors
from fairlead.protocol.cursor import Position
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.line import Nowhere, line_to
from support.system import V1, Edge, NatsServer, System, Worker, request, system, until

SMALL, BRIEF, LARGE = "small", "brief", "large"

MIB = 1024 * 1024


class Fleet:
    """Two edges and a worker; what is published goes straight to the rooms' streams."""

    def __init__(self, app: System, edges: list[Edge], worker: Worker) -> None:
        self.app = app
        self.edges = edges
        self.worker = worker
        self.nats = NatsClient()

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.app.app)

    async def publish(self, topic: str, channel: str, *words: str) -> None:
        """Returns when all of them are stored."""
        js = self.nats.jetstream()
        for word in words:
            await js.publish(self.subjects.log(topic, channel), word.encode())

    async def say_bytes(self, topic: str, channel: str, sizes: list[int]) -> None:
        """Messages that are no text, one right after the other."""
        js = self.nats.jetstream()
        room = self.subjects.log(topic, channel)
        await asyncio.gather(*(js.publish(room, b"\xff" * size) for size in sizes))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def processes(nats: NatsServer, tmp_path_factory: object) -> AsyncIterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("resume")  # type: ignore[attr-defined]  # pytest's own
    async with system(nats, folder) as app:
        one, two, worker = await asyncio.gather(app.edge(), app.edge(), app.worker("logs.py"))
        for edge in (one, two):
            await edge.serves(path(LARGE, "x"))
        yield Fleet(app, [one, two], worker)


@pytest_asyncio.fixture
async def fleet(processes: Fleet) -> AsyncIterator[Fleet]:
    processes.nats = await nats_client.connect(processes.app.nats.url)
    yield processes
    await processes.nats.close()


@pytest.fixture
def channel() -> str:
    """A room that nobody was in before."""
    return secrets.token_hex(4)


def path(topic: str, channel: str, cursor: str | None = None) -> str:
    """Of the websocket that is a member of a room."""
    return f"/logs/v1/{topic}?channel={channel}" + (f"&cursor={cursor}" if cursor else "")


async def heard(client: V1, count: int) -> list[str]:
    return [await client.hears() for _ in range(count)]


async def left(edge: Edge, topic: str, channel: str, *words: str, fleet: Fleet) -> str:
    """The cursor of a client that heard these words and was cut off."""
    async with edge.v1(path(topic, channel)) as client:
        await fleet.publish(topic, channel, *words)
        assert await heard(client, len(words)) == list(words)
        await client.cut()
    assert client.cursor is not None
    return client.cursor


@pytest.mark.parametrize("back_on", [0, 1], ids=["same edge", "other edge"])
async def test_what_was_missed_comes_once_and_in_order_before_anything_new(
    fleet: Fleet, channel: str, back_on: int
) -> None:
    one, back = fleet.edges[0], fleet.edges[back_on]
    cursor = await left(one, LARGE, channel, "heard", fleet=fleet)
    missed = [f"missed {n}" for n in range(30)]
    await fleet.publish(LARGE, channel, *missed)
    async with back.v1(path(LARGE, channel, cursor)) as client:
        assert client.welcome["recovered"] is True
        assert client.welcome["cursor"] == cursor, "nothing after it was sent yet"
        await fleet.publish(LARGE, channel, "new")
        assert await heard(client, 31) == [*missed, "new"]


async def test_a_quick_return_costs_the_stream_nothing(fleet: Fleet, channel: str) -> None:
    """The ring has it: the same frames, with the same cursors as the members got."""
    one = fleet.edges[0]
    async with one.v1(path(LARGE, channel)) as member:
        cursor = await left(one, LARGE, channel, "heard", fleet=fleet)
        await fleet.publish(LARGE, channel, "missed")
        live = [await member.until("message") for _ in range(2)]
        async with one.v1(path(LARGE, channel, cursor)) as client:
            assert await client.next() == live[1]


async def test_each_message_is_a_place_to_come_back_to(fleet: Fleet, channel: str) -> None:
    one, two = fleet.edges
    words = [str(n) for n in range(8)]
    async with one.v1(path(LARGE, channel)) as client:
        start = client.welcome["cursor"]
        await fleet.publish(LARGE, channel, *words)
        places = [start, *[(await client.until("message"))["id"] for _ in words]]
    for number, place in enumerate(places):
        async with two.v1(path(LARGE, channel, place)) as back:
            assert back.welcome["recovered"] is True
            await fleet.publish(LARGE, channel, f"after {number}")
            expected = [*words[number:], *[f"after {n}" for n in range(number + 1)]]
            assert await heard(back, len(expected)) == expected


async def test_a_client_that_comes_back_again_and_again_misses_nothing(
    fleet: Fleet, channel: str
) -> None:
    """Cut while messages come, on either edge, twenty times."""
    words = [str(n) for n in range(400)]
    async with fleet.edges[0].v1(path(LARGE, channel)) as first:
        cursor = first.welcome["cursor"]
    talking = asyncio.create_task(fleet.publish(LARGE, channel, *words))
    found: list[str] = []
    turn = 0
    while len(found) < len(words):
        turn += 1
        async with fleet.edges[turn % 2].v1(path(LARGE, channel, cursor)) as client:
            assert client.welcome["recovered"] is True
            found += await heard(client, min(20, len(words) - len(found)))
            cursor = client.cursor
            await client.cut()
    await talking
    assert found == words
    assert turn >= 20


async def test_more_than_one_page_is_read_as_the_client_takes_it(
    fleet: Fleet, channel: str
) -> None:
    one, two = fleet.edges
    cursor = await left(one, LARGE, channel, "heard", fleet=fleet)
    missed = [f"{n} " + "x" * 3000 for n in range(700)]
    await fleet.publish(LARGE, channel, *missed)
    async with two.v1(path(LARGE, channel, cursor)) as client:
        assert client.welcome["recovered"] is True
        assert await heard(client, 350) == missed[:350]
        await fleet.publish(LARGE, channel, "new")
        assert await heard(client, 351) == [*missed[350:], "new"]


# When it is a no: nothing is replayed, and the client is told


async def test_a_room_that_has_dropped_what_was_missed_says_so(fleet: Fleet, channel: str) -> None:
    """Five messages are kept; six were missed."""
    cursor = await left(fleet.edges[0], SMALL, channel, "heard", fleet=fleet)
    await fleet.publish(SMALL, channel, *"abcdef")
    async with fleet.edges[1].v1(path(SMALL, channel, cursor)) as client:
        assert client.welcome["recovered"] is False
        assert client.welcome["cursor"] not in (None, cursor)
        await fleet.publish(SMALL, channel, "new")
        assert await client.hears() == "new", "never a part of what was missed"


async def test_a_room_that_still_has_the_last_one_heard_has_all_that_followed(
    fleet: Fleet, channel: str
) -> None:
    cursor = await left(fleet.edges[0], SMALL, channel, "heard", fleet=fleet)
    await fleet.publish(SMALL, channel, *"abcd")
    async with fleet.edges[1].v1(path(SMALL, channel, cursor)) as client:
        assert client.welcome["recovered"] is True
        assert await heard(client, 4) == list("abcd")


async def test_a_cursor_that_is_older_than_what_the_room_keeps_is_refused(
    fleet: Fleet, channel: str
) -> None:
    """Two seconds are kept. The room is empty: it shows nothing of what may have been there."""
    cursor = await left(fleet.edges[0], BRIEF, channel, "heard", fleet=fleet)
    await fleet.publish(BRIEF, channel, "missed")
    await until(lambda: aged_out(fleet, BRIEF, channel), "the room has aged out")
    async with fleet.edges[1].v1(path(BRIEF, channel, cursor)) as client:
        assert client.welcome["recovered"] is False


async def test_a_quiet_room_is_no_gap(fleet: Fleet, channel: str) -> None:
    """A client that stays is told where the room stands, so it can come back though all is old."""
    async with fleet.edges[0].v1(path(BRIEF, channel)) as client:
        first = client.welcome["cursor"]
        frame = await client.until("cursor")
        while _time(frame["cursor"]) < _time(first) + 3000:
            frame = await client.until("cursor")
    async with fleet.edges[1].v1(path(BRIEF, channel, frame["cursor"])) as client:
        assert client.welcome["recovered"] is True


def _time(text: str) -> int:
    """Of a cursor, in ms: only this test may look inside."""
    import base64

    return int.from_bytes(base64.urlsafe_b64decode(text + "==")[-8:])


@pytest.mark.parametrize("kind", ["rubbish", "another room", "another stream", "the future"])
async def test_a_cursor_that_is_none_of_this_room_is_refused(
    fleet: Fleet, channel: str, kind: str
) -> None:
    edge = fleet.edges[0]
    mine = fleet.subjects.log(LARGE, channel)
    made = {
        "rubbish": "rubbish",
        "another room": await left(edge, LARGE, channel + "x", "hi", fleet=fleet),
        "another stream": cursors.encode(Position(1, 1, 1), mine),
        "the future": "",
    }
    async with edge.v1(path(LARGE, channel)) as client:
        here = cursors.decode(client.welcome["cursor"], mine)
        assert isinstance(here, Position)
        ahead = Position(here.created, here.sequence + 10**6, here.time)
        made["the future"] = cursors.encode(ahead, mine)
    async with edge.v1(path(LARGE, channel, made[kind])) as client:
        assert client.welcome["recovered"] is False


async def test_without_history_there_is_nothing_to_come_back_to(fleet: Fleet, channel: str) -> None:
    async with fleet.edges[0].v1(path("volatile", channel, "whatever")) as client:
        assert (client.welcome["recovered"], client.welcome["cursor"]) == (False, None)


async def test_a_stream_made_anew_is_another_log(fleet: Fleet, channel: str) -> None:
    """Its members are told that they have lost their place; old cursors mean nothing in it."""
    js = fleet.nats.jetstream()
    name = fleet.subjects.stream("doomed")
    config = (await js.stream_info(name)).config
    async with fleet.edges[0].v1(path("doomed", channel)) as client:
        old = client.welcome["cursor"]
        await js.delete_stream(name)
        await js.add_stream(config)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(DEADLINE):
                while True:
                    await client.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4003
    async with fleet.edges[0].v1(path("doomed", channel, old)) as client:
        assert client.welcome["recovered"] is False


async def test_an_edge_that_was_away_for_longer_than_a_room_keeps_anything_says_so(
    fleet: Fleet, channel: str
) -> None:
    """Two seconds are kept: what was said in the edge's absence is gone, and its members are closed."""
    async with line_to(fleet.app.nats) as line:
        edge = await fleet.app.edge(env={"FAIRLEAD_NATS": f"nats://127.0.0.1:{line.port}"})
        await edge.serves(path(BRIEF, channel))
        async with edge.v1(path(BRIEF, channel)) as client:
            await fleet.publish(BRIEF, channel, "heard")
            assert await client.hears() == "heard"
            line.edge = Nowhere()
            await line.cut()
            await fleet.publish(BRIEF, channel, "missed")
            await until(lambda: aged_out(fleet, BRIEF, channel), "the room has aged out")
            line.edge = fleet.app.nats
            with pytest.raises(ConnectionClosed) as closed:
                await client.hears()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4003
        async with edge.v1(path(BRIEF, channel, client.cursor)) as client:
            assert client.welcome["recovered"] is False
        await edge.stop()


async def aged_out(fleet: Fleet, topic: str, channel: str) -> bool:
    """Whether a room is empty."""
    room = fleet.subjects.log(topic, channel)
    stream = fleet.subjects.stream(topic)
    info = await fleet.nats.jetstream().stream_info(stream, subjects_filter=room)
    return not info.state.subjects


# What it costs: questions to the rooms' streams


@asynccontextmanager
async def counted(fleet: Fleet, topic: str) -> AsyncIterator[list[str]]:
    """The rooms that a topic's stream is asked for while the block runs."""
    asked: list[str] = []

    async def note(message: Msg) -> None:
        asked.append(json.loads(message.data)["next_by_subj"])

    subject = f"$JS.API.DIRECT.GET.{fleet.subjects.stream(topic)}"
    await fleet.nats.subscribe(subject, cb=note)
    await fleet.nats.flush()
    yield asked
    await fleet.nats.flush()


async def test_who_comes_back_to_an_edge_that_was_there_costs_no_read(
    fleet: Fleet, channel: str
) -> None:
    one = fleet.edges[0]
    async with one.v1(path(LARGE, channel)) as member:
        cursor = await left(one, LARGE, channel, "heard", fleet=fleet)
        await fleet.publish(LARGE, channel, "missed")
        assert await heard(member, 2) == ["heard", "missed"]
        async with counted(fleet, LARGE) as asked, one.v1(path(LARGE, channel, cursor)) as client:
            assert await client.hears() == "missed"
    assert asked == []


async def test_fifty_who_come_back_to_one_room_at_once_all_get_everything_by_one_read(
    fleet: Fleet, channel: str
) -> None:
    one, two = fleet.edges
    cursor = await left(one, LARGE, channel, "heard", fleet=fleet)
    missed = [str(n) for n in range(50)]
    await fleet.publish(LARGE, channel, *missed)

    async def back() -> None:
        async with two.v1(path(LARGE, channel, cursor)) as client:
            assert client.welcome["recovered"] is True
            assert await heard(client, 50) == missed

    async with counted(fleet, LARGE) as asked, two.v1(path(LARGE, channel)):
        await asyncio.gather(*(back() for _ in range(50)))
    assert asked == [fleet.subjects.log(LARGE, channel)]


# Server-sent events


def sse(channel: str) -> str:
    return f"/logs/v1/watch?channel={channel}"


async def next_of(stream: Any, *names: str) -> dict[str, str]:
    """The next event of one of these types; others, and pings, are passed over."""
    while True:
        event: dict[str, str] = await stream.next()
        if event.get("event", "message") in names and "data" in event:
            return event


@pytest.mark.parametrize("how", ["Last-Event-ID", "?cursor="])
async def test_an_event_stream_resumes_on_any_edge(fleet: Fleet, channel: str, how: str) -> None:
    one, two = fleet.edges
    async with one.events(sse(channel)) as stream:
        await fleet.publish(LARGE, channel, "heard")
        last = (await next_of(stream, "message"))["id"]
    await fleet.publish(LARGE, channel, "missed", "more")
    query = f"&cursor={last}" if how == "?cursor=" else ""
    headers = {"Last-Event-ID": last} if how == "Last-Event-ID" else {}
    async with two.events(sse(channel) + query, headers=headers) as stream:
        assert await stream.next() == {"event": "resumed", "data": '{"recovered":true}'}
        await fleet.publish(LARGE, channel, "new")
        words = [json.loads((await next_of(stream, "message"))["data"]) for _ in range(3)]
    assert words == ["missed", "more", "new"]


async def test_an_event_stream_that_cannot_resume_says_so(fleet: Fleet, channel: str) -> None:
    async with fleet.edges[0].events(sse(channel), headers={"Last-Event-ID": "x"}) as stream:
        assert await stream.next() == {"event": "resumed", "data": '{"recovered":false}'}
        await fleet.publish(LARGE, channel, "new")
        assert json.loads((await next_of(stream, "message"))["data"]) == "new"


async def test_who_comes_back_before_the_first_message_has_missed_nothing(
    fleet: Fleet, channel: str
) -> None:
    one, two = fleet.edges
    async with one.events(sse(channel)) as stream:
        first = await stream.next()
        assert (first["event"], json.loads(first["data"])) == ("cursor", {"cursor": first["id"]})
    await fleet.publish(LARGE, channel, "missed")
    async with two.events(sse(channel), headers={"Last-Event-ID": first["id"]}) as stream:
        assert json.loads((await stream.next())["data"]) == {"recovered": True}
        assert json.loads((await stream.next())["data"]) == "missed"


# Several rooms on one stream


def both(channel: str, *more: str) -> str:
    return sse(channel + "a") + "".join(f"&channel={channel}{each}" for each in ("b", *more))


@pytest.mark.parametrize(
    "sizes",
    [[MIB], [MIB, MIB, MIB], [400_000] * 8],
    ids=["the largest message", "some of them", "more than may wait"],
)
@pytest.mark.parametrize("replayed", [False, True], ids=["live", "replayed"])
async def test_an_event_stream_whose_client_reads_gets_messages_of_any_size(
    fleet: Fleet, channel: str, sizes: list[int], replayed: bool
) -> None:
    """Also bytes, which are a third more as base64."""
    one, two = fleet.edges
    async with one.events(sse(channel)) as stream:
        first = (await stream.next())["id"]
        if not replayed:
            await fleet.say_bytes(LARGE, channel, sizes)
            assert await lengths(stream, len(sizes)) == sizes
    if replayed:
        await fleet.say_bytes(LARGE, channel, sizes)
        async with two.events(sse(channel), headers={"Last-Event-ID": first}) as stream:
            assert await lengths(stream, len(sizes)) == sizes


async def lengths(stream: Any, count: int) -> list[int]:
    """Of the next messages of bytes."""
    return [len(base64.b64decode((await next_of(stream, "base64"))["data"])) for _ in range(count)]


async def test_several_rooms_come_on_one_stream_with_one_cursor(fleet: Fleet, channel: str) -> None:
    """Wherever it is cut, and on whatever edge it goes on: each message of each room once."""
    words = [f"{n}{room}" for n in range(6) for room in "ab"]
    found: list[str] = []
    last: str | None = None
    for turn in range(4):
        headers = {"Last-Event-ID": last} if last else {}
        async with fleet.edges[turn % 2].events(both(channel), headers=headers) as stream:
            first = await stream.next()
            assert first["event"] == ("resumed" if last else "cursor")
            assert last is None or json.loads(first["data"]) == {"recovered": True}
            for word in words[turn * 3 : turn * 3 + 3]:
                await fleet.publish(LARGE, channel + word[-1], word)
            # All but one are heard: the last one is missed, and comes first the next time.
            due = turn * 3 + 2 - len(found)
            for _ in range(due):
                event = await next_of(stream, "message")
                found.append(json.loads(event["data"]))
                last = event["id"]
    async with fleet.edges[0].events(both(channel), headers={"Last-Event-ID": last or ""}) as rest:
        found.append(json.loads((await next_of(rest, "message"))["data"]))
    for room in "ab":
        assert [word for word in found if word[-1] == room] == [w for w in words if w[-1] == room]


async def test_one_room_that_cannot_be_had_makes_it_a_no_for_all(
    fleet: Fleet, channel: str
) -> None:
    path = f"/logs/v1/glance?channel={channel}a&channel={channel}b"
    async with fleet.edges[0].events(path) as stream:
        last = (await stream.next())["id"]
    await fleet.publish(SMALL, channel + "a", *"abcdef")
    await fleet.publish(SMALL, channel + "b", "g")
    # The first edge still has it all in its ring.
    async with fleet.edges[1].events(path, headers={"Last-Event-ID": last}) as stream:
        assert json.loads((await stream.next())["data"]) == {"recovered": False}
        await fleet.publish(SMALL, channel + "b", "new")
        assert json.loads((await next_of(stream, "message"))["data"]) == "new"


async def test_a_cursor_of_several_rooms_means_nothing_in_others(
    fleet: Fleet, channel: str
) -> None:
    async with fleet.edges[0].events(both(channel)) as stream:
        last = (await stream.next())["id"]
    for other in (sse(channel + "a"), both(channel, "c")):
        async with fleet.edges[0].events(other, headers={"Last-Event-ID": last}) as stream:
            assert json.loads((await stream.next())["data"]) == {"recovered": False}


async def test_the_rooms_of_a_stream_have_a_limit(fleet: Fleet) -> None:
    """A hundred."""
    query = "&".join(f"channel=c{n}" for n in range(101))
    status, _, body = await request(fleet.edges[0].http(f"/logs/v1/watch?{query}"))
    assert status == 400
    assert json.loads(body)["detail"] == "101 channels are named; a stream shows at most 100"
