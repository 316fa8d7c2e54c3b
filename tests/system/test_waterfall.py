"""The whole waterfall: from a client's own span to the sockets of two edges, and back to the clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from fairlead.testing.program import SLOWER
from support.kick import KICKABLE, kick
from support.system import NatsServer, frame, nats_server, request, upgraded
from support.tracing import (
    Traced,
    all_of,
    id_of,
    new_parent,
    new_room,
    one,
    span_id,
    trace_id,
    traced_system,
    traceparent,
)

MUCH = 60
"""Messages of 100 KB: more than kernels take for one client, and than waits for it (1 MiB)."""

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(nats: NatsServer, tmp_path_factory: Any) -> AsyncIterator[Traced]:
    async with traced_system(nats, tmp_path_factory.mktemp("traced")) as made:
        yield made


async def test_a_chat_message_from_the_key_that_was_pressed_to_every_socket(traced: Traced) -> None:
    """client → receive → process → publish → deliver on each edge; every parent, link and attribute."""
    first, second = traced.edges
    room, parent = new_room(), new_parent()
    name = f"rooms.{room.rpartition('/')[2]}.-"
    body = json.dumps("hello")
    async with (
        first.v1(room) as ann,
        second.v1(room) as ben,
        second.raw(room) as cat,
    ):
        await ann.send("hello", id="m-1", traceparent=parent)
        mine, ack = await ann.each("message", "ack")
        theirs = await ben.until("message")
        assert await cat.recv() == "hello"
        spans = await traced.spans.trace(trace_id(parent), 5)
    receive, process, publish = (one(spans, name) for name in ("receive", "process", "publish"))
    delivers = {span.instance: span for span in all_of(spans, "deliver")}
    edges = [await id_of(edge) for edge in traced.edges]
    workers = [await id_of(worker) for worker in traced.workers]
    assert len(spans) == 5

    assert [receive.parent, process.parent, publish.parent] == [
        span_id(parent), receive.id, process.id,
    ]  # fmt: skip
    assert {span.parent for span in delivers.values()} == {publish.id}
    assert delivers.keys() == set(edges), "one per edge; an instance is its process"
    assert receive.instance == edges[0]
    assert process.instance in workers
    assert publish.instance == process.instance

    connect = await traced.spans.wait(
        "the handshake",
        lambda span: (
            span.attributes.get("fairlead.connection") == ann.id and span.operation == "connect"
        ),
    )
    assert receive.links == [connect.place]
    assert [span.links for span in (process, publish, *delivers.values())] == [[]] * 4

    assert receive.name == "receive rooms.{room}"
    assert (receive.kind, receive.service) == ("server", "fairlead-edge")
    assert receive.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.destination.template": "rooms.{room}",
        "messaging.message.id": "m-1",
        "messaging.message.body.size": len(body) - 2,
        "fairlead.workflow": "Support/everyone",
        "fairlead.connection": ann.id,
        "fairlead.kind": "message",
        "fairlead.run": f"{ann.id}-1",
        "fairlead.attempt": 1,
    }
    assert (process.kind, process.service) == ("consumer", "fairlead-worker")
    wait = process.attributes.pop("fairlead.queue.wait")
    assert 0 <= wait < 10 * SLOWER
    assert process.attributes == {
        **receive.attributes,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    assert (publish.kind, publish.service) == ("producer", "fairlead-worker")
    assert publish.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": "rooms.{room}",
        "messaging.destination.name": name,
        "messaging.message.body.size": 5,
        "fairlead.workflow": "Support/everyone",
        "fairlead.attempt": 1,
    }
    raw = len(b"\x81\x05hello")
    for edge, members, size in [
        (edges[0], 1, len(_frame(mine))),
        (edges[1], 2, len(_frame(theirs)) + raw),
    ]:
        deliver = delivers[edge]
        assert (deliver.kind, deliver.service) == ("consumer", "fairlead-edge")
        assert 0 <= deliver.attributes.pop("fairlead.written") <= deliver.seconds
        assert deliver.attributes == {
            "messaging.system": "nats",
            "messaging.operation.name": "deliver",
            "messaging.operation.type": "receive",
            "messaging.destination.template": "rooms.{room}",
            "messaging.destination.name": name,
            "messaging.message.body.size": 5,
            "fairlead.members": members,
            "fairlead.slow": 0,
            "fairlead.bytes": size,
            "fairlead.coalesced": 1,
        }
    assert not any(span.failed or span.events for span in spans)

    assert receive.start <= process.start <= publish.start <= publish.end <= process.end
    assert all(publish.start <= span.start for span in delivers.values())
    # The wait is a part of the picture: it ends where `process` begins, and began in `receive`.
    assert process.start - wait * 1e9 >= receive.start - 0.01e9 * SLOWER

    assert ack["trace"] == traceparent(receive)
    assert mine["trace"] == traceparent(delivers[edges[0]])
    assert theirs["trace"] == traceparent(delivers[edges[1]])


def _frame(message: dict[str, Any]) -> bytes:
    """The whole frame that a v1 client was sent: its head and its JSON, which was written compactly."""
    body = json.dumps(message, separators=(",", ":"))
    return (b"\x81\x7e\x00\x00" if len(body) > 125 else b"\x81\x00") + body.encode()


async def test_neighbours_in_one_room_are_each_traced_or_not(traced: Traced) -> None:
    """What is not sampled is in the same write as what is, and leaves no trace; they are counted."""
    room, parent, silent = new_room("plain"), new_parent(), new_parent(sampled=False)
    async with traced.edges[0].v1(room) as member, _publisher(traced) as publisher:
        # In one turn of the edge's loop: the client library writes what it has at once.
        for number, trace in enumerate([silent, parent, silent]):
            await publisher.publish(
                _subject(traced, room), b"%d" % number, headers={"traceparent": trace}
            )
        await publisher.flush()
        heard = [await member.until("message") for _ in range(3)]
    assert [message["data"] for message in heard] == ["0", "1", "2"]
    assert ["trace" in message for message in heard] == [False, True, False]
    (deliver,) = await traced.spans.trace(trace_id(parent), 1)
    assert deliver.parent == span_id(parent), "a publisher's own span"
    assert heard[1]["trace"] == traceparent(deliver)
    assert deliver.attributes["fairlead.coalesced"] in (1, 2, 3)
    assert deliver.attributes["fairlead.bytes"] == len(_frame(heard[1]))
    await traced.settle()
    assert traced.spans.of(trace_id(silent)) == []


async def test_whom_a_message_leaves_out_is_not_counted(traced: Traced) -> None:
    room, parent = new_room("plain"), new_parent()
    edge = traced.edges[0]
    async with edge.v1(room) as ann, edge.raw(room) as ben, _publisher(traced) as publisher:
        headers = {"traceparent": parent, "Fl-Exclude": ann.id}
        await publisher.publish(_subject(traced, room), b"for others", headers=headers)
        await publisher.flush()
        assert await ben.recv() == "for others"
        (deliver,) = await traced.spans.trace(trace_id(parent), 1)
    assert deliver.attributes["fairlead.members"] == 1
    assert deliver.attributes["fairlead.bytes"] == 2 + len(b"for others")


async def test_deliver_ends_when_the_slowest_member_has_it(traced: Traced) -> None:
    """Who keeps up has it at once, which `written` says; the span goes on until the slow one reads."""
    edge, room, parent = traced.edges[0], new_room("plain"), new_parent()
    async with upgraded(edge, room, receive_buffer=SMALL) as (reader, _), edge.raw(room) as quick:
        await _clog(traced, room, quick)
        await _say(traced, room, b"last", parent)
        while await quick.recv() != "last":
            pass
        await traced.settle()
        assert traced.spans.of(trace_id(parent)) == [], "one of them does not have it"
        while (await frame(reader))[1] != b"last":
            pass
        (deliver,) = await traced.spans.trace(trace_id(parent), 1)
    assert (deliver.attributes["fairlead.members"], deliver.attributes["fairlead.slow"]) == (2, 1)
    assert deliver.attributes["fairlead.written"] < deliver.seconds
    assert "fairlead.dropped" not in deliver.attributes
    assert "fairlead.late" not in deliver.attributes


async def test_what_is_dropped_for_a_slow_member_is_said(traced: Traced) -> None:
    """Here `overflow="drop_oldest"`; a slow member that is closed has lost what waited, too."""
    edge, room, parent = traced.edges[0], new_room("plain"), new_parent()
    async with upgraded(edge, room, receive_buffer=SMALL) as (_, writer), edge.raw(room) as quick:
        # Not a byte: for each that is read the edge's kernel takes several more, and a megabyte for 200 KB.
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a ReadTransport
        await _clog(traced, room, quick)
        await _say(traced, room, b"lost", parent)
        assert await quick.recv() == "lost"
        # The kernel has what it takes: now more than an edge keeps for one client, and not for long, or the span
        # ends by its time.
        await _clog(traced, room, quick, 16)
        (dropped,) = await traced.spans.trace(trace_id(parent), 1)
        closed = new_parent()
        await _say(traced, room, b"waits", closed)
        assert await quick.recv() == "waits"
        writer.transport.abort()
        (left,) = await traced.spans.trace(trace_id(closed), 1)
    for deliver in (dropped, left):
        assert "fairlead.late" not in deliver.attributes
        assert deliver.attributes["fairlead.members"] == 2
        assert deliver.attributes["fairlead.slow"] == deliver.attributes["fairlead.dropped"] == 1
        assert "fairlead.written" in deliver.attributes


async def test_deliver_waits_ten_seconds_at_most(traced: Traced) -> None:
    edge, room, parent = traced.edges[0], new_room("plain"), new_parent()
    async with upgraded(edge, room, receive_buffer=SMALL), edge.raw(room) as quick:
        await _clog(traced, room, quick)
        await _say(traced, room, b"last", parent)
        (deliver,) = await traced.spans.trace(trace_id(parent), 1)
    assert 9.9 < deliver.seconds < 12 * SLOWER
    assert deliver.attributes["fairlead.late"] == 1
    assert deliver.attributes["fairlead.members"] == 2


@asynccontextmanager
async def _publisher(traced: Traced) -> AsyncIterator[Client]:
    """Any NATS client."""
    client = await nats.connect(traced.app.nats.url)
    try:
        yield client
    finally:
        await client.close()


def _subject(traced: Traced, room: str) -> str:
    return f"fl.{traced.app.app}.log.plain.{room.rpartition('/')[2]}.-"


async def _say(traced: Traced, room: str, data: bytes, parent: str) -> None:
    async with _publisher(traced) as publisher:
        await publisher.publish(_subject(traced, room), data, headers={"traceparent": parent})
        await publisher.flush()


async def _clog(traced: Traced, room: str, quick: Any, much: int = MUCH) -> None:
    """Say so much in the room that a member that does not read is slow; `quick` reads it."""
    async with _publisher(traced) as publisher:
        for _ in range(much):
            await publisher.publish(_subject(traced, room), b"x" * 100_000)
        await publisher.flush()
    for _ in range(much):
        await quick.recv()


async def test_an_event_stream_that_shows_rooms_is_a_member_like_others(traced: Traced) -> None:
    """One room, and several at once: each message's `deliver` counts it, and its bytes."""
    room = new_room()
    name = room.rpartition("/")[2]
    edge = traced.edges[0]
    path = f"/support/stream/follow/{name}"
    several = f"{path}?channel=a&channel=-"
    async with edge.events(path) as single, edge.events(several) as both, edge.v1(room) as client:
        parent = new_parent()
        await client.send("hello", traceparent=parent)
        frame = await client.until("message")
        events = []
        for stream in (single, both):
            while "hello" not in (event := await stream.bytes()).decode():
                pass
            events.append(event)
        spans = await traced.spans.trace(trace_id(parent), 4)
    deliver = one(spans, "deliver")
    assert deliver.attributes["fairlead.members"] == 3
    assert deliver.attributes["fairlead.bytes"] == len(_frame(frame)) + sum(map(len, events))


async def test_a_letter_to_one_of_the_topic_is_published_and_delivered(traced: Traced) -> None:
    """`direct` over two edges, by subject; the one who gets it learns of the trace."""
    first, second = traced.edges
    path = new_room("letters")
    parent = new_parent()
    async with first.v1(f"{path}?name=ann") as ann, second.v1(f"{path}?name=ben") as ben:
        letter = {"to": "ben", "text": "dear"}
        await ann.send(letter, traceparent=parent)
        heard = await ben.until("message")
        await ann.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 4)
    process, publish, deliver = (one(spans, each) for each in ("process", "publish", "deliver"))
    assert (publish.parent, deliver.parent) == (process.id, publish.id)
    assert publish.attributes["fairlead.direct"] and deliver.attributes["fairlead.direct"]
    assert deliver.instance == await id_of(second)
    assert deliver.attributes["fairlead.members"] == 1
    assert deliver.attributes["messaging.destination.template"] == "letters.{box}"
    assert deliver.attributes["fairlead.bytes"] == len(_frame(heard))
    assert heard["trace"] == traceparent(deliver)
    assert heard["from"] == "ann"


async def test_a_letter_to_nobody_says_so_in_its_spans(traced: Traced) -> None:
    path, parent = new_room("letters"), new_parent()
    async with traced.edges[0].v1(f"{path}?name=ann") as ann:
        await ann.send({"to": "nobody", "text": "dear"}, traceparent=parent)
        assert (await ann.until("error"))["error"]["status"] == 404
        spans = await traced.spans.trace(trace_id(parent), 3)
    for operation in ("receive", "process", "publish"):
        span = one(spans, operation)
        assert (span.attributes["error.type"], span.failed) == ("404", False), "no fault of ours"


@pytest.mark.parametrize("process", ["edge", "worker"])
async def test_what_is_posted_is_published_by_who_was_asked(traced: Traced, process: str) -> None:
    """`POST /publish`, with the caller's own span above it."""
    asked = traced.edges[0] if process == "edge" else traced.workers[0]
    room, parent = new_room(), new_parent()
    said = {"topic": f"rooms.{room.rpartition('/')[2]}", "data": "hello"}
    async with traced.edges[1].v1(room) as member:
        status, _, _ = await request(
            f"http://127.0.0.1:{asked.admin_port}/publish",
            json.dumps(said).encode(),
            headers={"traceparent": parent},
        )
        assert status == 200
        heard = await member.until("message")
        spans = await traced.spans.trace(trace_id(parent), 2)
    publish, deliver = one(spans, "publish"), one(spans, "deliver")
    assert (publish.parent, deliver.parent) == (span_id(parent), publish.id)
    assert (publish.name, publish.kind) == ("publish rooms.{room}", "producer")
    assert publish.instance == await id_of(asked)
    assert publish.attributes["messaging.destination.name"] == f"{said['topic']}.-"
    assert heard["trace"] == traceparent(deliver)


async def test_what_is_posted_by_nobody_who_is_traced_is_sampled_by_the_ratio(
    traced: Traced,
) -> None:
    room = new_room()
    said = {"topic": f"rooms.{room.rpartition('/')[2]}", "data": "hello"}
    url = f"http://127.0.0.1:{traced.edges[0].admin_port}/publish"
    async with traced.edges[0].v1(room) as member:
        await request(url, json.dumps(said).encode())
        heard = await member.until("message")
        spans = await traced.spans.trace(trace_id(heard["trace"]), 2)
        silent = {"traceparent": new_parent(sampled=False)}
        await request(url, json.dumps(said).encode(), headers=silent)
        assert "trace" not in await member.until("message")
    assert one(spans, "publish").parent == ""


async def test_of_a_long_answer_to_a_room_the_first_hundred_items_have_spans(
    traced: Traced,
) -> None:
    """Never one per chunk without end: the rest is counted, and travels untraced."""
    path, parent = new_room("many"), new_parent()
    async with traced.edges[0].v1(path) as client:
        await client.send("103", traceparent=parent)
        frames = [await client.until("message") for _ in range(103)]
        spans = await traced.spans.trace(trace_id(parent), 202)
    assert ["trace" in message for message in frames] == [True] * 100 + [False] * 3
    assert len(all_of(spans, "publish")) == len(all_of(spans, "deliver")) == 100
    process = one(spans, "process")
    assert process.attributes["fairlead.untraced"] == 3
    assert [(event.name, event.attributes) for event in process.events] == [
        ("first item", {"fairlead.item": 1}),
        ("last item", {"fairlead.item": 103}),
    ]


async def test_what_clients_send_and_who_they_are_is_in_no_span(traced: Traced) -> None:
    """Marked data, inputs, headers and subjects, by every way that has spans."""
    edge, mark = traced.edges[0], "marked-7f3a"
    headers = {"authorization": f"Bearer {mark}", "cookie": f"session={mark}"}
    path = new_room("letters")
    async with edge.v1(f"{path}?name={mark}", additional_headers=headers) as client:
        await client.send({"to": mark, "text": mark}, traceparent=new_parent())
        await client.each("message", "ack")
        await client.send({"to": f"no {mark}", "text": mark}, traceparent=new_parent())
        assert (await client.until("error"))["error"]["status"] == 404
    async with edge.v1(f"{new_room('talk')}?name={mark}", additional_headers=headers) as client:
        await client.send(mark, traceparent=new_parent())
        await client.until("ack")
    async with edge.events(f"/support/stream/count?n=1&mark={mark}", headers=headers) as stream:
        while "end" not in (await stream.next()).get("event", ""):
            pass
        token = stream.headers["fairlead-run-token"]
    await traced.settle()
    everything = [str(span) for span in traced.spans.spans]
    assert len(everything) > 20
    assert not any(secret in span for span in everything for secret in (mark, token))


@pytest.mark.parametrize(
    ("endpoint", "status", "process_type", "failed"),
    [("raises", "500", "RuntimeError", True), ("rejects", "402", "402", False)],
)
async def test_errors_are_marked_in_every_span_that_saw_them(
    traced: Traced, endpoint: str, status: str, process_type: str, failed: bool
) -> None:
    """`error.type` always; the status where it is the program's fault, and not the client's."""
    parent = new_parent()
    async with traced.edges[0].v1(f"/support/realtime/{endpoint}") as client:
        await client.send("go", traceparent=parent)
        assert str((await client.until("error"))["error"]["status"]) == status
        spans = await traced.spans.trace(trace_id(parent), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert (receive.attributes["error.type"], receive.failed) == (status, failed)
    assert (process.attributes["error.type"], process.failed) == (process_type, failed)
    assert [event.name for event in process.events] == (["exception"] if failed else [])


async def test_a_room_that_missed_messages_gets_them_redelivered_and_says_so(
    tmp_path: Path,
) -> None:
    """NATS has cut an edge off for a moment: what it reads from the room's stream is marked."""
    async with (
        nats_server(tmp_path / "nats", KICKABLE) as server,
        traced_system(server, tmp_path, workers=1) as traced,
    ):
        first, second = traced.edges
        room, parent = new_room(), new_parent()
        system_account = await nats.connect(server.url.replace("//", "//sys:sys@"))
        async with first.v1(room) as ann, second.v1(room) as ben:
            second.freeze()
            try:
                await kick(system_account, f"fairlead-edge-{await id_of(second)}")
                await ann.send("missed", traceparent=parent)
                await ann.until("ack")
            finally:
                second.thaw()
            heard = await ben.until("message", data="missed")
            spans = await traced.spans.trace(trace_id(parent), 5)
        await system_account.close()
        delivers = {span.instance: span for span in all_of(spans, "deliver")}
        again, before = delivers[await id_of(second)], delivers[await id_of(first)]
    assert again.attributes["fairlead.redelivered"] is True
    assert again.parent == one(spans, "publish").id
    assert heard["trace"] == traceparent(again)
    assert "fairlead.redelivered" not in before.attributes
