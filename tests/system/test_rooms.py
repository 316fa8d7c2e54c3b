"""Rooms: each broadcast reaches every member on every edge once, wherever it was published."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType
from nats.js.errors import NotFoundError

from fairlead.protocol import cursor
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.system import MS, V1, Edge, NatsServer, System, Worker, request, system, until

VOLATILE = "/support/realtime/volatile"


@dataclass
class Fleet:
    """Two edges, two workers, and a NATS client that is none of Fairlead's."""

    app: System
    edges: list[Edge]
    workers: list[Worker]
    nats: NatsClient

    def log(self, room: str, channel: str = "-") -> str:
        """Where anyone publishes to a room."""
        return f"fl.{self.app.app}.log.{room}.{channel}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet_processes(nats: NatsServer, tmp_path_factory: object) -> AsyncIterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("rooms")  # type: ignore[attr-defined]  # pytest's own
    async with system(nats, folder) as app:
        first, second, *workers = await asyncio.gather(
            app.edge(), app.edge(), app.worker(), app.worker()
        )
        edges = [first, second]
        for edge in edges:
            await until(partial(_serves, edge), "the routes are served")
        yield Fleet(app, edges, workers, NatsClient())


async def _serves(edge: Edge) -> bool:
    return (await request(edge.http(VOLATILE)))[0] == 426


@pytest_asyncio.fixture
async def fleet(fleet_processes: Fleet) -> AsyncIterator[Fleet]:
    """The same processes for all tests; the client belongs to the test's loop."""
    client = await nats.connect(fleet_processes.app.nats.url)
    yield Fleet(fleet_processes.app, fleet_processes.edges, fleet_processes.workers, client)
    await client.close()


def new_name() -> str:
    """Of a room that nobody was in before."""
    return secrets.token_hex(4)


def path(name: str, tag: str = "realtime") -> str:
    return f"/support/{tag}/rooms/{name}"


async def heard(client: Any, count: int) -> list[str]:
    """The next messages of a raw client."""
    async with asyncio.timeout(DEADLINE):
        return [await client.recv() for _ in range(count)]


class Talker:
    """A v1 member that says some things at once and hears until it has heard them all."""

    def __init__(self, client: V1, words: list[str]) -> None:
        self.client = client
        self.words = words
        self.heard: list[str] = []
        self.ids: list[str | None] = []
        self.senders: dict[str, str] = {}

    async def talk(self, total: int) -> None:
        for word in self.words:
            await self.client.send(word)
        acks = 0
        while acks < len(self.words) or len(self.heard) < total:
            frame = await self.client.next()
            assert frame["type"] in ("ack", "message"), frame
            if frame["type"] == "ack":
                acks += 1
            else:
                self.heard.append(frame["data"])
                self.ids.append(frame["id"])
                self.senders[frame["data"]] = frame["from"]


async def converse(fleet: Fleet, where: str) -> tuple[list[Talker], list[list[str]]]:
    """Six talkers of 15 words and two who only listen, over both edges; then one last word.

    The last word shows that nothing came twice behind the rest.
    """
    first, second = fleet.edges
    async with (
        first.v1(where) as a, first.v1(where) as b, first.v1(where) as c,
        second.v1(where) as d, second.v1(where) as e, second.v1(where) as f,
        first.raw(where) as ear, second.raw(where) as other_ear,
    ):  # fmt: skip
        talkers = [
            Talker(client, [f"{n}.{word}" for word in range(15)])
            for n, client in enumerate((a, b, c, d, e, f))
        ]
        total = 15 * len(talkers)
        await asyncio.gather(*(talker.talk(total) for talker in talkers))
        await a.send("last")
        for talker in talkers:
            talker.heard.append((await talker.client.until("message"))["data"])
        ears = [await heard(each, total + 1) for each in (ear, other_ear)]
    for talker in talkers:
        for word in talker.words:
            for listener in talkers:
                assert listener.senders[word] == talker.client.id, "each message says whose it is"
    return talkers, ears


async def test_every_member_hears_each_broadcast_once_and_all_in_one_order(fleet: Fleet) -> None:
    talkers, ears = await converse(fleet, path(new_name()))
    told = sorted(word for talker in talkers for word in talker.words)
    order = talkers[0].heard
    assert sorted(order[:-1]) == told and order[-1] == "last"
    for listener in [*(talker.heard for talker in talkers), *ears]:
        assert listener == order
    for talker in talkers:
        assert talker.ids == talkers[0].ids, "the same cursors on both edges"
        mine = [word for word in order if word in talker.words]
        assert mine == talker.words, "what one connection said stays in its order"
    assert len(set(talkers[0].ids)) == len(talkers[0].ids)


async def test_without_history_every_member_hears_each_broadcast_once(fleet: Fleet) -> None:
    talkers, ears = await converse(fleet, VOLATILE)
    told = sorted([word for talker in talkers for word in talker.words] + ["last"])
    for listener in [*(talker.heard for talker in talkers), *ears]:
        assert sorted(listener) == told
        for talker in talkers:
            assert [word for word in listener if word in talker.words] == talker.words
    for talker in talkers:
        assert talker.client.welcome["cursor"] is None
        assert set(talker.ids) == {None}


async def test_others_do_not_include_the_sender(fleet: Fleet) -> None:
    name = new_name()
    async with (
        fleet.edges[0].v1(path(name, "others")) as sender,
        fleet.edges[0].v1(path(name, "others")) as near,
        fleet.edges[1].raw(path(name)) as far,
    ):
        await sender.send("from me")
        await sender.until("ack")
        assert (await near.until("message"))["from"] == sender.id
        assert await heard(far, 1) == ["from me"]
        await near.send("from near")
        assert (await sender.until("message"))["data"] == "from near", "its own never came"
        assert await heard(far, 1) == ["from near"]


@pytest.mark.parametrize("itself", [True, False])
async def test_broadcast_can_exclude_the_sender(fleet: Fleet, itself: bool) -> None:
    where = f"/support/realtime/talk?channel={new_name()}"
    async with fleet.edges[0].v1(where) as sender, fleet.edges[1].v1(where) as other:
        await sender.send({"broadcast": "news", "self": itself})
        assert (await other.until("message"))["data"] == "news"
        await other.send({"broadcast": "more", "self": True})
        expected = ["news", "more"] if itself else ["more"]
        assert [await said_in_room(sender) for _ in expected] == expected


async def said_in_room(client: V1) -> str:
    """The next message of the room; answers to the client's own are passed over."""
    while "ref" in (frame := await client.until("message")):
        pass
    return str(frame["data"])


async def test_rooms_are_separate(fleet: Fleet) -> None:
    """A room is a topic's name and a channel; another of either is another room."""
    name, other = new_name(), new_name()
    rooms = [path(name), f"{path(name)}?channel=a", f"{path(name)}?channel=b", path(other)]
    async with (
        fleet.edges[0].raw(rooms[0]) as plain,
        fleet.edges[0].raw(rooms[1]) as a,
        fleet.edges[0].raw(rooms[2]) as b,
        fleet.edges[0].raw(rooms[3]) as elsewhere,
        fleet.edges[1].raw(f"{path(name)}?channel=-") as default,
    ):
        members = [plain, a, b, elsewhere]
        for text in ("hello", "bye"):
            for number, member in enumerate(members):
                await member.send(f"{text} in {number}")
            for number, member in enumerate(members):
                assert await heard(member, 1) == [f"{text} in {number}"]
            assert await heard(default, 1) == [f"{text} in 0"], "`-` is the default by name, too"


# Publishing from outside

FOREIGN = {
    "text when nothing is declared": ({}, "grüß".encode(), "grüß", None),
    "nothing at all": ({}, b"", "", None),
    "binary when it is not UTF-8": ({}, b"\xff\x00", "/wA=", "base64"),
    "JSON when declared": ({"Fl-Type": "j"}, b'{"a": [1, null]}', {"a": [1, None]}, None),
    "text when declared": ({"Fl-Type": "t"}, b'{"a": 1}', '{"a": 1}', None),
    "binary when declared": ({"Fl-Type": "b"}, b"abc", "YWJj", "base64"),
    "text when it is not the JSON it says": ({"Fl-Type": "j"}, b"{oops", "{oops", None),
    "text when it says an empty JSON": ({"Fl-Type": "j"}, b"", "", None),
    "text when it is a number JSON lacks": ({"Fl-Type": "j"}, b"NaN", "NaN", None),
    "binary when neither JSON nor UTF-8": ({"Fl-Type": "j"}, b"\xff", "/w==", "base64"),
    "binary when not the text it says": ({"Fl-Type": "t"}, b"\xc3(", "wyg=", "base64"),
    "text when the type is unknown": ({"Fl-Type": "zip"}, b"abc", "abc", None),
}


async def test_headers_of_the_stream_cannot_be_forged(fleet: Fleet) -> None:
    """... so that no publisher can move a room's position."""
    name = new_name()
    subject = fleet.log(f"rooms.{name}")
    forged = {"Nats-Sequence": "999999", "Nats-Time-Stamp": "then", "traceparent": "00-x"}
    async with fleet.edges[0].v1(path(name)) as client:
        for headers in (forged, None):
            await fleet.nats.publish(subject, b"hello", headers=headers)
        first, second = await client.until("message"), await client.until("message")
        created, sequence = position(first["id"], subject)
        assert position(second["id"], subject) == (created, sequence + 1)
        assert sequence < 999999
    async with fleet.edges[0].v1(VOLATILE) as client:
        await fleet.nats.publish(fleet.log("volatile"), b"hello", headers=forged)
        frame = await client.until("message")
        assert (frame["id"], frame["data"]) == (None, "hello")


@pytest.mark.parametrize("kept", [True, False], ids=["history", "no history"])
@pytest.mark.parametrize("case", FOREIGN)
async def test_what_any_nats_client_publishes_reaches_the_room(
    fleet: Fleet, case: str, kept: bool
) -> None:
    """... as what it says it is, or else as what it can be: no frame is ever invalid."""
    headers, payload, data, encoding = FOREIGN[case]
    name = new_name()
    where, subject = (path(name), f"rooms.{name}") if kept else (VOLATILE, "volatile")
    async with fleet.edges[0].v1(where) as client, fleet.edges[1].raw(where) as raw:
        await fleet.nats.publish(fleet.log(subject), payload, headers=headers or None)
        frame = await client.until("message")
        assert (frame["data"], frame.get("encoding")) == (data, encoding)
        assert "from" not in frame and "ref" not in frame
        assert (frame["id"] is not None) == kept
        (received,) = await heard(raw, 1)
        expected = payload if encoding else payload.decode()
        assert received == expected and type(received) is type(expected)


async def test_the_command_publishes_to_a_room_that_is_stored(fleet: Fleet) -> None:
    name = new_name()
    async with fleet.edges[0].v1(f"{path(name)}?channel=c") as client:
        told = fleet.app.start("publish", f"rooms.{name}", "hello", "--channel", "c")
        assert await told.ended() == 0
        frame = await client.until("message")
        assert frame["data"] == "hello"
        (printed,) = told.program.lines
        assert position(printed, fleet.log(f"rooms.{name}", "c")) == position(
            frame["id"], fleet.log(f"rooms.{name}", "c")
        )


async def test_the_command_publishes_to_a_room_that_is_not_stored(fleet: Fleet) -> None:
    async with fleet.edges[1].raw(VOLATILE) as client:
        told = fleet.app.start("publish", "volatile", '{"a":1}')
        assert await told.ended() == 0
        assert await heard(client, 1) == ['{"a":1}'], "the text, as it is"
        assert told.program.lines == ["sent"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere", "x"], "topic 'nowhere' is not declared"),
        (["volatile", "x", "--channel", "a.b"], "a.b"),
    ],
)
async def test_the_command_refuses_what_is_no_room(
    fleet: Fleet, argv: list[str], said: str
) -> None:
    told = fleet.app.start("publish", *argv)
    assert await told.ended() == 2
    (line,) = told.program.lines
    assert line.startswith("fairlead: ") and said in line


def position(text: str, subject: str) -> tuple[int, int]:
    """(stream, sequence) that a cursor of a room says."""
    found = cursor.decode(text, subject)
    assert isinstance(found, cursor.Position)
    return found.created, found.sequence


Post = Callable[[object], Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture(params=["edge", "worker"])
def post(fleet: Fleet, request: pytest.FixtureRequest) -> Post:
    """`POST /publish` on the admin port of either."""
    process = fleet.edges[0] if request.param == "edge" else fleet.workers[0]

    async def ask(body: object) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{process.admin_port}/publish"
        status, headers, answer = await ask_over_http(url, data)
        expected = "application/json" if status == 200 else "application/problem+json"
        assert headers["content-type"] == expected
        return status, json.loads(answer)

    return ask


ask_over_http = request


async def test_post_publish_reaches_the_room_and_answers_its_cursor(
    fleet: Fleet, post: Post
) -> None:
    name = new_name()
    subject = fleet.log(f"rooms.{name}", "c")
    async with fleet.edges[1].v1(f"{path(name)}?channel=c") as client:
        for data in ("text", {"a": [1, None]}, 7, None, ""):
            status, body = await post({"topic": f"rooms.{name}", "channel": "c", "data": data})
            frame = await client.until("message")
            assert frame["data"] == data
            assert status == 200 and list(body) == ["cursor"]
            assert position(body["cursor"], subject) == position(frame["id"], subject)


async def test_post_publish_answers_null_for_a_room_without_history(
    fleet: Fleet, post: Post
) -> None:
    async with fleet.edges[1].v1(VOLATILE) as client:
        assert await post({"topic": "volatile", "data": "hello"}) == (200, {"cursor": None})
        assert (await client.until("message"))["data"] == "hello"


async def test_post_publish_with_an_id_stores_it_once(fleet: Fleet, post: Post) -> None:
    name = new_name()
    body = {"topic": f"rooms.{name}", "data": "once", "id": "an id of mine"}
    async with fleet.edges[0].raw(path(name)) as client:
        first, second = await post(body), await post(body)
        subject = fleet.log(f"rooms.{name}")
        assert first[0] == second[0] == 200
        assert position(first[1]["cursor"], subject) == position(second[1]["cursor"], subject)
        assert (await post({**body, "id": "another"}))[0] == 200
        await post({"topic": f"rooms.{name}", "data": "end"})
        assert await heard(client, 3) == ["once", "once", "end"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{oops", b"[]", b'"text"', b'{"topic":"volatile","data":"\xff"}',
        {"data": "x"}, {"topic": 1, "data": "x"}, {"topic": "volatile"},
        {"topic": "volatile", "data": "x", "id": 7},
        {"topic": "volatile", "data": "x", "channel": 7},
        *({"topic": "volatile", "data": "x", "channel": c} for c in
          ("a.b", ">", "*", "a b", "", "x" * 65, "ä")),
    ],
    ids=repr,
)  # fmt: skip
async def test_post_publish_refuses_bad_input_with_400(post: Post, body: object) -> None:
    status, problem = await post(body)
    assert (status, problem["status"]) == (400, 400)
    assert problem["detail"]


async def test_post_publish_of_what_is_no_json_says_what_is_expected(post: Post) -> None:
    _, problem = await post(b"{oops")
    assert re.fullmatch(
        r'the body is no JSON: .* line 1 column 2 .*; expected \{"topic": "...", "data": ...\}',
        problem["detail"],
    )


@pytest.mark.parametrize("topic", ["nowhere", "rooms", "rooms.*", "rooms.>", "rooms.a.b", "", "."])
async def test_post_publish_answers_404_for_an_unknown_topic(post: Post, topic: str) -> None:
    status, problem = await post({"topic": topic, "data": "x"})
    assert (status, problem["status"]) == (404, 404)


async def test_post_publish_takes_1_mib_of_data_and_not_a_byte_more(
    fleet: Fleet, post: Post
) -> None:
    name = new_name()
    most = "x" * 1024 * 1024
    async with fleet.edges[0].raw(path(name), max_size=None) as client:
        assert (await post({"topic": f"rooms.{name}", "data": most}))[0] == 200
        assert await heard(client, 1) == [most]
    assert (await post({"topic": f"rooms.{name}", "data": most + "x"}))[0] == 413


async def test_a_body_that_is_announced_too_big_is_not_waited_for(fleet: Fleet) -> None:
    for port in (fleet.edges[0].admin_port, fleet.workers[0].admin_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            assert (await reader.readline()).split()[1] == b"413"
        writer.close()
        await writer.wait_closed()


async def test_publish_is_for_post(fleet: Fleet) -> None:
    for port in (fleet.edges[0].admin_port, fleet.workers[0].admin_port):
        status, _, _ = await request(f"http://127.0.0.1:{port}/publish")
        assert status == 405


# What is stored


async def test_a_topic_has_one_stream_with_nothing_that_could_make_holes(fleet: Fleet) -> None:
    """No TTL, rollup, delete or limit over the whole stream; the options say the topic's history."""
    subjects = Subjects(fleet.app.app)
    info = await fleet.nats.jetstream().stream_info(subjects.stream("rooms.{room}"))
    config = info.config
    root = f"fl.{fleet.app.app}"
    assert config.subjects == [f"{root}.log.rooms.*.*"]
    assert config.storage == StorageType.FILE
    assert (config.max_msgs_per_subject, config.max_age) == (100, 60)
    assert config.republish is not None
    assert (config.republish.src, config.republish.dest) == (f"{root}.log.>", f"{root}.live.>")
    assert not config.republish.headers_only
    assert config.retention == RetentionPolicy.LIMITS
    assert config.discard == DiscardPolicy.OLD and not config.discard_new_per_subject
    assert (config.max_msgs, config.max_bytes) == (-1, -1)
    assert config.deny_delete and not config.allow_rollup_hdrs and not config.allow_msg_ttl
    assert config.allow_direct
    assert config.metadata is not None
    assert int(config.metadata["fairlead-generation"]) >= 1


async def test_a_stream_knows_ids_for_two_minutes(fleet: Fleet) -> None:
    """... or for as long as it keeps messages: nats-server refuses a window beyond that."""
    subjects = Subjects(fleet.app.app)
    jetstream = fleet.nats.jetstream()
    default = (await jetstream.stream_info(subjects.stream("talk"))).config
    assert (default.max_msgs_per_subject, default.max_age) == (1000, 300)
    assert default.duplicate_window == 120
    short = (await jetstream.stream_info(subjects.stream("rooms.{room}"))).config
    assert short.duplicate_window == 60


async def test_a_topic_without_history_has_no_stream(fleet: Fleet) -> None:
    with pytest.raises(NotFoundError):
        await fleet.nats.jetstream().stream_info(Subjects(fleet.app.app).stream("volatile"))


async def test_a_room_keeps_the_bytes_untouched_and_the_rest_in_headers(fleet: Fleet) -> None:
    name = new_name()
    async with fleet.edges[0].v1(path(name)) as client:
        await client.send({"a": 1})
        await client.until("ack")
        stream = Subjects(fleet.app.app).stream("rooms.{room}")
        stored = await fleet.nats.jetstream().get_last_msg(stream, fleet.log(f"rooms.{name}"))
        assert stored.data == b'{"a":1}'
        assert stored.headers is not None
        assert stored.headers.keys() == {"Fl-Type", "Fl-From", "Nats-Msg-Id"}
        assert (stored.headers["Fl-Type"], stored.headers["Fl-From"]) == ("j", client.id)


async def test_a_client_that_resends_an_id_causes_no_second_room_message(fleet: Fleet) -> None:
    """Whatever connection and edge it comes through; in another room it is another message."""
    name, other = new_name(), new_name()
    unique = secrets.token_hex(16)
    async with (
        fleet.edges[0].raw(path(name)) as ear,
        fleet.edges[0].raw(path(other)) as other_ear,
        fleet.edges[0].v1(path(name)) as first,
        fleet.edges[1].v1(path(name)) as second,
        fleet.edges[1].v1(path(other)) as elsewhere,
    ):
        await first.send("once", id=unique)
        await first.until("ack")
        await first.send("twice", id=unique)
        await first.until("ack")
        await second.send("thrice", id=unique)
        await second.until("ack")
        await elsewhere.send("once more", id=unique)
        await second.send("end")
        assert await heard(ear, 2) == ["once", "end"]
        assert await heard(other_ear, 1) == ["once more"]


# Reading


async def test_a_room_can_be_read_over_sse(fleet: Fleet) -> None:
    """What `execute` says first, then the room for as long as the client stays."""
    name = new_name()
    async with (
        fleet.edges[0].events(f"/support/stream/rooms/{name}?channel=c") as stream,
        fleet.edges[1].v1(f"{path(name)}?channel=c") as member,
    ):
        assert await stream.next() == {"data": f'"you read rooms.{name}"'}
        await member.send("text")
        assert (told := await member.until("message"))["data"] == "text"
        assert await stream.next() == {"id": told["id"], "data": '"text"'}
        await fleet.nats.publish(fleet.log(f"rooms.{name}", "c"), b"\xff")
        told = await member.until("message")
        assert await stream.next() == {"event": "base64", "id": told["id"], "data": "/w=="}


class Joiner:
    """A client that joins in the middle of a stream of numbers, and stays to its end.

    Attributes:
        bound: the first number that was published after the client knew that it is a member.
    """

    def __init__(self) -> None:
        self.bound = 0
        self.numbers: list[int] = []

    def check(self, end: int, who: str) -> None:
        first = self.numbers[0]
        assert self.numbers == list(range(first, end)), f"{who} has a hole"
        assert first <= self.bound, f"{who} joined before {self.bound}, and hears from {first} on"


async def test_who_joins_gets_everything_stored_from_then_on(fleet: Fleet) -> None:
    """The 101, the welcome and the SSE head mean membership: no hole between them and the first.

    A program publishes 0, 1, 2, … without a pause while clients of every kind come.
    """
    name = new_name()
    subject = fleet.log(f"rooms.{name}")
    published = 0
    joined = asyncio.Event()

    async def publish() -> None:
        nonlocal published
        while not joined.is_set():
            number, published = published, published + 1
            await fleet.nats.publish(subject, b"%d" % number)
            await asyncio.sleep(3 * MS)  # more would be a test of the clients
        await fleet.nats.publish(subject, b"end")

    async def raw(edge: Edge) -> Joiner:
        joiner = Joiner()
        async with edge.raw(path(name)) as client:
            joiner.bound = published
            arrived()
            while (text := await client.recv()) != "end":
                joiner.numbers.append(int(text))
        return joiner

    async def v1(edge: Edge) -> Joiner:
        joiner = Joiner()
        async with edge.v1(path(name)) as client:
            joiner.bound = published
            arrived()
            (_, seen) = position(client.welcome["cursor"], subject)
            first = await client.until("message")
            assert position(first["id"], subject)[1] <= seen + 1, "nothing between cursor and first"
            joiner.numbers.append(int(first["data"]))
            while (frame := await client.until("message"))["data"] != "end":
                joiner.numbers.append(int(frame["data"]))
        return joiner

    async def sse(edge: Edge) -> Joiner:
        joiner = Joiner()
        async with edge.events(f"/support/stream/rooms/{name}") as stream:
            joiner.bound = published
            arrived()
            while (text := json.loads((await stream.next())["data"])) != "end":
                if not text.startswith("you read"):
                    joiner.numbers.append(int(text))
        return joiner

    async def more() -> None:
        before = published
        await until(lambda: published > before + 5, "numbers flow on")

    arrivals = 0

    def arrived() -> None:
        nonlocal arrivals
        arrivals += 1

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        await until(lambda: published > 20, "numbers flow")
        clients = []
        for _ in range(4):
            for kind in (raw, v1, sse):
                clients += [group.create_task(kind(edge)) for edge in fleet.edges]
            await more()
        await until(lambda: arrivals == len(clients), "all have joined")
        await more()
        joined.set()
        await publishing
    for number, client in enumerate(clients):
        client.result().check(published, f"client {number}")
