"""What a workflow may be, and what it may return or yield: over real sockets and processes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection

from fairlead.testing.program import DEADLINE
from support.system import (
    V1,
    Edge,
    Events,
    NatsServer,
    Worker,
    edge_and_worker,
    system,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Worker]]:
    async with edge_and_worker(nats, tmp_path_factory.mktemp("declaring")) as both:
        yield both


@pytest.fixture
def edge(running: tuple[Edge, Worker]) -> Edge:
    return running[0]


@pytest.fixture
def worker(running: tuple[Edge, Worker]) -> Worker:
    return running[1]


async def received(client: ClientConnection) -> str | bytes:
    async with asyncio.timeout(DEADLINE):
        return await client.recv()


async def answers(client: V1) -> list[dict[str, Any]]:
    """Every frame up to the ack or the error, and that."""
    frames = [await client.next()]
    while frames[-1]["type"] not in ("ack", "error"):
        frames.append(await client.next())
    return frames


async def data_of(client: V1) -> list[Any]:
    """The data of all answers; the last one was an ack."""
    *messages, last = await answers(client)
    assert last["type"] == "ack"
    return [frame["data"] for frame in messages]


async def wire(stream: Events) -> list[bytes]:
    """All events but the end, which has an id of its own."""
    found = []
    while event := await stream.bytes():
        found.append(event)
    assert found[-1].startswith(b"event: end\nid: ")
    assert found[-1].endswith(b"\ndata: {}\n\n")
    return found[:-1]


# Values


async def test_raw_clients_get_each_yielded_value_as_a_frame_of_its_own_kind(edge: Edge) -> None:
    async with edge.raw("/support/realtime/kinds") as client:
        await client.send(b"\x01\x02")
        expected = [
            "text",
            b"\x00\xff",
            '{"a":1}',
            "[1,null]",
            "7",
            '{"name":"x"}',
            '{"number":3}',
            b"\x01\x02",  # the message, as it came
            "end",  # and nothing for the None before it
        ]
        assert [await received(client) for _ in expected] == expected


async def test_v1_clients_get_each_yielded_value_in_a_message_with_the_ref(edge: Edge) -> None:
    async with edge.v1("/support/realtime/kinds") as client:
        ref = await client.send({"my": "own"})
        frames = await answers(client)
    run = frames[0]["run"]
    expected: list[dict[str, Any]] = [
        {"data": "text"},
        {"data": "AP8=", "encoding": "base64"},
        {"data": {"a": 1}},
        {"data": [1, None]},
        {"data": 7},
        {"data": {"name": "x"}},
        {"data": {"number": 3}},
        {"data": {"my": "own"}},
        {"data": "end"},
    ]
    common = {"type": "message", "id": None, "run": run, "ref": ref}
    assert frames == [*({**common, **each} for each in expected), {"type": "ack", "ref": ref}]


async def test_sse_clients_get_each_yielded_value_in_exactly_these_bytes(edge: Edge) -> None:
    async with edge.events("/support/stream/kinds") as stream:
        assert await wire(stream) == [
            b'data: "text"\n\n',
            b"event: base64\ndata: AP8=\n\n",
            b'data: {"a":1}\n\n',
            b': note\nretry: 500\nevent: named\ndata: {"b":2}\n\n',
            b": only a note\n\n",
        ]


async def test_format_text_splits_a_str_into_data_lines_and_leaves_json_json(edge: Edge) -> None:
    async with edge.events("/support/stream/text") as stream:
        assert await wire(stream) == [
            b"data: one\ndata: two\ndata: three\n\n",
            b'data: {"a":1}\n\n',
        ]


RETURNED = [
    ("text", ["text"]),
    ("bytes", [b"\x00\xff"]),
    ("object", [{"a": 1}]),
    ("model", [{"name": "x"}]),
    ("dataclass", [{"number": 3}]),
    ("none", []),
    ("iterator", ["one", 2]),
    ("reply", [{"b": 2}]),
    ("reply none", []),
]


@pytest.mark.parametrize(("what", "values"), RETURNED)
async def test_a_returned_value_is_sent_as_a_yielded_one(
    edge: Edge, what: str, values: list[Any]
) -> None:
    plain = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in values]
    async with edge.v1("/support/realtime/returns") as client:
        await client.send(json.dumps(what))
        assert await data_of(client) == plain
    async with edge.raw("/support/realtime/returns") as raw:
        await raw.send(json.dumps(what))
        for value in values:
            frame = value if isinstance(value, str | bytes) else _json(value)
            assert await received(raw) == frame
    async with edge.events(f"/support/stream/returns?what={what.replace(' ', '%20')}") as stream:
        assert await wire(stream) == [
            b"event: base64\ndata: %b\n\n" % base64.b64encode(value)
            if isinstance(value, bytes)
            else b"data: %b\n\n" % _json(value).encode()
            for value in values
        ]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


async def test_a_workflow_that_returns_nothing_is_acknowledged_and_says_nothing(
    edge: Edge,
) -> None:
    async with edge.v1("/support/realtime/nothing") as client:
        ref = await client.send("x")
        assert await client.next() == {"type": "ack", "ref": ref}


# Where it goes


async def test_reply_and_broadcast_beside_each_other_and_who_gets_them(edge: Edge) -> None:
    async with (
        edge.v1("/support/realtime/talk") as sender,
        edge.v1("/support/realtime/talk") as other,
        edge.v1("/support/realtime/talk?channel=elsewhere") as elsewhere,
    ):
        ref = await sender.send({"broadcast": "to all", "self": True})
        reply = await sender.until("message", ref=ref)
        assert reply["data"] == "done"
        seen = await other.next()
        assert (seen["data"], seen["from"]) == ("to all", sender.id)
        assert "ref" not in seen
        assert "run" not in seen

        await sender.send({"broadcast": "to the others", "self": False})
        assert (await other.next())["data"] == "to the others"
        # What reaches the sender next is from the third message: the second passed it by.
        await sender.until("ack", ref=2)
        await sender.send({"broadcast": "again", "self": True})
        frames = [await sender.until("message", **{"from": sender.id})]
        assert [frame["data"] for frame in frames] == ["again"]
        assert (await other.next())["data"] == "again"

        await elsewhere.send({"broadcast": "here only", "self": True})
        own = await elsewhere.until("message", **{"from": elsewhere.id})
        assert own["data"] == "here only"


async def test_ctx_channel_sends_to_the_client_and_to_its_room(edge: Edge) -> None:
    path = "/support/realtime/talk?channel=handle"
    async with edge.v1(path) as sender, edge.raw(path) as other:
        ref = await sender.send({"channel": "hey"})
        assert (await sender.until("message", ref=ref))["data"] == "to you: hey"
        assert await received(other) == "to all: hey"


async def test_deliver_topic_reaches_the_sender_and_deliver_others_does_not(edge: Edge) -> None:
    async with (
        edge.raw("/support/realtime/rooms/deliver") as topic,
        edge.raw("/support/others/rooms/deliver") as others,
    ):
        await topic.send("one")
        assert [await received(topic), await received(others)] == ["one", "one"]
        await others.send("two")
        await topic.send("three")
        assert [await received(topic), await received(topic)] == ["two", "three"]
        assert await received(others) == "three"


async def test_reply_broadcast_and_direct_override_deliver_when_returned(edge: Edge) -> None:
    path = "/support/rooms/returns?channel=override"
    async with edge.v1(path) as client, edge.v1(path) as peer:
        ref = await client.send({"reply": "you"})
        assert [await client.next(), await client.next()] == [
            {"type": "message", "id": None, "data": "you", "run": f"{client.id}-1", "ref": ref},
            {"type": "ack", "ref": ref},
        ]
        await client.send({"direct": peer.id})
        assert (await peer.next())["data"] == "directly"
        await client.send({"others": "them"})
        assert (await peer.next())["data"] == "them"
        await client.send({"broadcast": "all"})
        assert (await peer.next())["data"] == "all"
        assert (await client.until("message"))["data"] == "all"


# direct


async def test_direct_reaches_a_connection_on_another_edge_with_its_sender_stamped(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with system(nats, tmp_path) as app:
        await app.worker()
        here, there = await asyncio.gather(app.edge(), app.edge())
        async with (
            here.v1("/support/realtime/talk") as sender,
            there.v1("/support/realtime/talk?channel=other") as peer,
            there.raw("/support/realtime/talk") as raw,
        ):
            ref = await sender.send({"direct": peer.id, "text": "psst"})
            frame = await peer.next()
            assert frame == {
                "type": "message",
                "id": None,
                "data": {"text": "psst"},
                "from": sender.id,
            }
            assert (await sender.until("message", ref=ref))["data"] == "sent"
            # A raw client learns its id from nobody but a workflow; here it is the sender.
            await raw.send(json.dumps({"direct": sender.id, "text": "back"}))
            assert (await sender.until("message", data={"text": "back"}))["from"]
            assert await received(raw) == "sent"


async def gone(edge: Edge) -> str:
    """The id of a connection that has left."""
    async with edge.v1("/support/realtime/talk") as client:
        return client.id


async def test_direct_to_a_peer_that_left_raises_in_the_generator(edge: Edge) -> None:
    left = await gone(edge)
    async with edge.v1("/support/realtime/talk") as client:
        await client.send({"try": left})
        assert await data_of(client) == [f"nobody: {left}"]


async def test_direct_to_a_connection_in_another_topic_raises(edge: Edge) -> None:
    async with (
        edge.v1("/support/realtime/echo") as elsewhere,
        edge.v1("/support/realtime/talk") as client,
    ):
        await client.send({"try": elsewhere.id})
        assert await data_of(client) == [f"nobody: {elsewhere.id}"]
        await elsewhere.send("still here")
        assert (await elsewhere.next())["data"] == "still here"


@pytest.mark.parametrize("to", [">", "*", "a.b", "", " ", "x" * 100, "no-such", "\r\nPUB a 1"])
async def test_direct_to_garbage_raises_no_such_peer(edge: Edge, to: str) -> None:
    async with edge.v1("/support/realtime/talk") as client:
        await client.send({"try": to})
        assert await data_of(client) == [f"nobody: {to}"]


async def test_no_such_peer_is_raised_in_a_plain_generator_too(edge: Edge) -> None:
    async with edge.raw("/support/realtime/plainly") as client:
        await client.send("nobody-1")
        assert await received(client) == "nobody: nobody-1"


async def test_no_such_peer_that_is_not_caught_is_a_404_and_items_before_it_stay(
    edge: Edge,
) -> None:
    async with edge.v1("/support/realtime/talk") as client:
        ref = await client.send({"first": "hey", "direct": "a.b"})
        item, error = await answers(client)
        assert (item["data"], item["ref"]) == ("hey", ref)
        assert (error["type"], error["ref"]) == ("error", ref)
        assert (error["error"]["status"], error["error"]["title"]) == (404, "Not Found")
        await client.send({"channel": "the connection stays"})
        await client.until("ack", ref=2)


# Plain functions


async def test_a_plain_function_runs_in_a_thread_and_blocks_nobody(edge: Edge) -> None:
    async with (
        edge.raw("/support/realtime/blocking") as blocked,
        edge.raw("/support/realtime/blocking") as another,
        edge.raw("/support/realtime/echo") as quick,
    ):
        await blocked.send("1.0")
        slow = asyncio.ensure_future(received(blocked))
        await another.send("0.01")
        assert await received(another) == "slept 0.01"
        await quick.send("meanwhile")
        assert await received(quick) == "meanwhile"
        assert not slow.done(), "others were answered while it slept"
        assert await slow == "slept 1.0"


async def test_a_plain_generator_is_sent_item_by_item(edge: Edge) -> None:
    async with edge.v1("/support/realtime/plain") as client:
        await client.send("x")
        assert await data_of(client) == ["one", "two"]
    async with edge.events("/support/stream/plain") as stream:
        assert await wire(stream) == [b'data: "one"\n\n', b'data: "two"\n\n']


async def test_any_iterator_is_sent_item_by_item(edge: Edge) -> None:
    """Not generators alone; one that nothing can be thrown into ends with a peer that is nowhere."""
    async with edge.v1("/support/realtime/iterators") as client:
        await client.send("list")
        assert await data_of(client) == [1, 2]
        await client.send("3")
        assert await data_of(client) == [2, 1, 0]
        await client.send("9")
        item, error = await answers(client)
        assert (item["data"], error["error"]["status"]) == (8, 404)


async def test_a_plain_generator_is_closed_when_its_thread_comes_back_from_it(
    edge: Edge, worker: Worker, tmp_path: Path
) -> None:
    """Its client has left meanwhile: that is no error, and its `finally` runs."""
    note = tmp_path / "note"
    seen = len(worker.program.lines)
    async with edge.events(f"/support/stream/dozing?note={note}") as stream:
        assert (await stream.next())["data"] == '"dozes"'
        await until((tmp_path / "note.dozes").exists, "it is in its thread")
    await until(lambda: note.exists() and note.read_text(), "its `finally`")
    await edge_works(edge)
    assert [line for line in worker.program.lines[seen:] if "failed" in line] == []


async def edge_works(edge: Edge) -> None:
    async with edge.raw("/support/realtime/echo") as client:
        await client.send("on")
        assert await received(client) == "on"


# What it is told


async def test_sse_is_served_by_get_and_by_post_with_a_body(edge: Edge) -> None:
    async with edge.events("/support/stream/value?a=1&b=&a=2") as stream:
        assert await wire(stream) == [b'data: {"query":{"a":"2","b":""},"body":""}\n\n']
    body = "ä".encode() * 50
    async with edge.events(
        "/support/stream/post", method="POST", body=body, headers={"x-tesT": "here"}
    ) as stream:
        expected = {"size": 100, "start": "äääää", "header": "here"}
        assert json.loads((await stream.next())["data"]) == expected
    async with edge.events("/support/stream/kinds", method="POST", body=b"x") as stream:
        assert await stream.bytes() == b'data: "text"\n\n'


async def test_ctx_says_who_asked_how_and_where(edge: Edge) -> None:
    headers = {"X-Test": "yes"}
    async with edge.v1(
        "/support/realtime/context/n%2Fa?channel=blue&q=%C3%A4&q=last", additional_headers=headers
    ) as client:
        await client.send("x")
        found = (await client.until("message"))["data"]
        await client.send("y")
        again = (await client.until("message"))["data"]
    assert found["query"] == {"channel": "blue", "q": "last"}
    assert found["path"] == {"name": "n/a"}
    assert found["header"] == "yes"
    assert (found["topic"], found["channel"]) == ("context", "blue")
    assert found["connection"] == found["sender"] == client.id
    assert found["attempt"] == 1
    assert len(found["trace"]) == 32
    assert found["run"] != again["run"], "each message has a run of its own"


# Windows


async def test_with_a_window_of_four_a_connections_messages_run_four_at_once(edge: Edge) -> None:
    async with edge.v1("/support/realtime/wide") as client:
        # The slowest comes first: only if all four run at once is it the last to end.
        for seconds in ("0.4", "0.3", "0.2", "0.1", "0"):
            await client.send(seconds)
        ended = [(await client.until("ack"))["ref"] for _ in range(5)]
    # The fifth had to wait for the first to end, and that was the fourth.
    assert ended == [4, 5, 3, 2, 1]


async def test_with_a_window_of_one_messages_run_in_order(edge: Edge) -> None:
    async with edge.v1("/support/realtime/blocking") as client:
        for seconds in ("0.15", "0.05", "0"):
            await client.send(seconds)
        ended = []
        for _ in range(3):
            message, ack = await client.next(), await client.next()
            assert message["ref"] == ack["ref"], "nothing of the next before the ack"
            ended.append(ack["ref"])
    assert ended == [1, 2, 3]
