"""Connections: a short span when they open and one when they close; what they say links to the first.

No span is open as long as a connection, its run included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets

from fairlead.testing.program import SLOWER
from support.otlp import Span
from support.system import NatsServer, request
from support.tracing import (
    Traced,
    id_of,
    new_parent,
    new_room,
    one,
    span_id,
    trace_id,
    traced_system,
    traceparent,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(nats: NatsServer, tmp_path_factory: Any) -> AsyncIterator[Traced]:
    async with traced_system(nats, tmp_path_factory.mktemp("traced"), edges=1) as made:
        yield made


def with_parent(parent: str) -> dict[str, Any]:
    """A handshake with a traceparent."""
    return {"additional_headers": {"traceparent": parent}}


async def of(traced: Traced, connection: str, operation: str) -> Span:
    """The span of an operation that a connection has one of."""
    return await traced.spans.wait(
        f"{operation} of {connection}",
        lambda span: (
            span.operation == operation and span.attributes.get("fairlead.connection") == connection
        ),
    )


# Opening and closing


async def test_a_connection_is_two_short_spans_that_its_messages_link_to(traced: Traced) -> None:
    edge, parent = traced.edges[0], new_parent()
    async with edge.v1("/support/realtime/echo", **with_parent(parent)) as client:
        opened = [await traced.spans.trace(trace_id(parent), 1)]
        for _ in range(2):
            await client.send("hello")
            await client.until("ack")
        await client.socket.close(1000)
    ((connect,),) = opened
    close = await of(traced, client.id, "close")
    receives = [
        span
        for span in traced.spans.spans
        if span.operation == "receive" and span.attributes.get("fairlead.connection") == client.id
    ]
    assert connect.name == "connect echo", "while the connection is open"
    assert (connect.kind, connect.parent) == ("server", span_id(parent))
    assert connect.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "connect",
        "messaging.destination.template": "echo",
        "network.protocol.name": "websocket",
        "http.response.status_code": 101,
        "fairlead.protocol": "fairlead.v1",
        "fairlead.workflow": "Support/echo",
        "fairlead.connection": client.id,
    }
    assert [span.links for span in receives] == [[connect.place]] * 2
    assert len({connect.trace, close.trace, *(span.trace for span in receives)}) == 4
    assert (close.name, close.kind, close.parent, close.links) == (
        "close echo", "internal", "", [connect.place],
    )  # fmt: skip
    connected = close.attributes.pop("fairlead.connected")
    assert 0 < connected <= (close.start - connect.start) / 1e9 + 0.1
    assert close.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "close",
        "messaging.destination.template": "echo",
        "fairlead.workflow": "Support/echo",
        "fairlead.connection": client.id,
        "fairlead.close.code": 1000,
        "fairlead.received": 2,
    }
    for span in (connect, close):
        assert span.seconds < 5 * SLOWER
        assert not span.failed
        assert span.instance == await id_of(edge)


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [("away", 1001, None), ("cut", 1006, None), ("binary", 1003, "1003")],
)
async def test_how_a_connection_ended(
    traced: Traced, end: str, code: int, error: str | None
) -> None:
    """By whoever was first: the client, the network, or the edge that was told nonsense."""
    async with traced.edges[0].v1("/support/realtime/echo") as client:
        if end == "away":
            await client.socket.close(1001)
        elif end == "cut":
            await client.cut()
        else:
            await client.socket.send(b"no frame of fairlead.v1")
            await client.socket.wait_closed()
    close = await of(traced, client.id, "close")
    assert close.attributes["fairlead.close.code"] == code
    assert close.attributes.get("error.type") == error
    assert not close.failed, "none of it is the server's fault"


async def test_a_run_that_fails_closes_its_connection_with_an_error(traced: Traced) -> None:
    path = f"{new_room('talk')}?name=ann"
    parent, said = new_parent(), new_parent()
    async with traced.edges[0].v1(path, **with_parent(parent)) as client:
        await client.send("raise", traceparent=said)
        error = (await client.until("error"))["error"]
        await client.socket.wait_closed()
    assert error["trace"] == trace_id(said), "of the message that it had in hand"
    close = await of(traced, client.id, "close")
    assert (close.attributes["error.type"], close.failed) == ("1011", True)
    spans = await traced.spans.trace(trace_id(said), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert (process.attributes["error.type"], process.failed) == ("RuntimeError", True)
    assert (receive.attributes["error.type"], receive.failed) == ("500", True)


async def test_policies_are_a_part_of_the_handshake(traced: Traced) -> None:
    """Asked on a worker, whose span is a child of `connect`; the user's own are children of that."""
    parent = new_parent()
    path = f"{new_room('letters')}?name=ann"
    async with traced.edges[0].v1(path, **with_parent(parent)):
        spans = await traced.spans.trace(trace_id(parent), 3)
    connect, process = one(spans, "connect"), one(spans, "process")
    (policy,) = [span for span in spans if span.name == "in a policy"]
    assert (connect.parent, process.parent, policy.parent) == (
        span_id(parent), connect.id, process.id,
    )  # fmt: skip
    assert process.name == "process letters.{box}"
    assert process.attributes["fairlead.kind"] == "check"
    assert connect.start <= process.start <= process.end <= connect.end


@pytest.mark.parametrize(
    ("query", "status", "failed"), [("", 403, False), ("?name=broken", 500, True)]
)
async def test_who_is_refused_leaves_a_connect_that_says_so(
    traced: Traced, query: str, status: int, failed: bool
) -> None:
    parent = new_parent()
    path = f"{new_room('letters')}{query}"
    with pytest.raises(websockets.InvalidStatus):
        async with traced.edges[0].raw(path, **with_parent(parent)):
            pass
    spans = await traced.spans.trace(
        trace_id(parent), lambda spans: {"connect", "process"} <= {s.operation for s in spans}
    )
    connect = one(spans, "connect")
    assert connect.attributes["http.response.status_code"] == status
    assert (connect.attributes["error.type"], connect.failed) == (str(status), failed)
    process = one(spans, "process")
    assert (process.attributes["error.type"], process.failed) == (
        ("RuntimeError", True) if failed else ("403", False)
    )


async def test_an_unsampled_connection_leaves_nothing_and_its_messages_link_to_nothing(
    traced: Traced,
) -> None:
    silent, said = new_parent(sampled=False), new_parent()
    path = f"{new_room('talk')}?name=ann"
    async with traced.edges[0].v1(path, **with_parent(silent)) as client:
        await client.send("hello", traceparent=said)
        await client.until("ack")
    spans = await traced.spans.trace(trace_id(said), 5)
    assert one(spans, "receive").links == []
    await traced.settle()
    assert traced.spans.of(trace_id(silent)) == []
    closed = [
        span
        for span in traced.spans.spans
        if span.operation in ("connect", "close")
        and span.attributes.get("fairlead.connection") == client.id
    ]
    assert closed == []


# The run of a connection


async def test_each_message_that_a_run_reads_is_a_trace_of_its_own(traced: Traced) -> None:
    """`process` from when the run reads it until it asks for the next; all of it beneath."""
    path = f"{new_room('talk')}?name=ann"
    opening, first, second = new_parent(), new_parent(), new_parent()
    async with traced.edges[0].v1(path, **with_parent(opening)) as client:
        assert await client.hears() == "hello"
        await client.send("one", id="m-1", traceparent=first)
        one_heard, ack = await client.each("message", "ack")
        await client.send("two", traceparent=second)
        two_heard, _ = await client.each("message", "ack")
        traces = [await traced.spans.trace(trace_id(each), 5) for each in (first, second)]
        opened = await traced.spans.trace(trace_id(opening), 3)
    connect = one(opened, "connect")
    admitted = one(opened, "process")
    assert admitted.attributes["fairlead.kind"] == "open"
    assert admitted.parent == connect.id
    assert admitted.end <= traces[0][0].start, "it ends when the run is accepted"
    for spans, parent, heard in zip(traces, (first, second), (one_heard, two_heard), strict=True):
        receive, process, publish, deliver = (
            one(spans, each) for each in ("receive", "process", "publish", "deliver")
        )
        (thought,) = [span for span in spans if span.name == "thinking"]
        assert [receive.parent, process.parent, publish.parent, deliver.parent] == [
            span_id(parent), receive.id, process.id, publish.id,
        ]  # fmt: skip
        assert thought.parent == process.id
        assert receive.links == [connect.place]
        assert process.name == "process talk.{room}"
        assert process.attributes["fairlead.kind"] == "message"
        assert process.attributes["fairlead.run"] == f"{client.id}-1"
        assert receive.attributes["fairlead.run"] == f"{client.id}-1"
        assert 0 <= process.attributes["fairlead.queue.wait"] < 10 * SLOWER
        assert process.start <= thought.start <= publish.start <= process.end <= receive.end
        assert [(event.name, event.attributes) for event in process.events] == [
            ("first item", {"fairlead.item": 1}), ("last item", {"fairlead.item": 1}),
        ]  # fmt: skip
        assert heard["trace"] == traceparent(deliver)
    assert one(traces[0], "process").attributes["messaging.message.id"] == "m-1"
    assert ack["trace"] == traceparent(one(traces[0], "receive"))


async def test_a_message_is_followed_into_the_task_that_reads_it_and_the_one_that_speaks(
    traced: Traced,
) -> None:
    """`merge` reads in a task that began before the message came: its context is the run's."""
    parent = new_parent()
    async with traced.edges[0].v1(new_room("merged")) as client:
        assert await client.hears() == "ready"
        await client.send("hello", traceparent=parent)
        await client.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 6)
    process = one(spans, "process")
    for name in ("reading", "speaking", "publish merged.{room}"):
        (span,) = [span for span in spans if span.name == name]
        assert span.parent == process.id


async def test_what_a_run_says_by_itself_begins_a_trace(traced: Traced) -> None:
    """Not of any message, so it belongs to none; sampled by the ratio, which is 1 here."""
    path = f"{new_room('talk')}?name=ann"
    opening = new_parent()
    async with traced.edges[0].v1(path, **with_parent(opening)) as client:
        hello = await client.until("message", data="hello")
        spans = await traced.spans.trace(trace_id(hello["trace"]), 2)
    publish, deliver = one(spans, "publish"), one(spans, "deliver")
    assert (publish.parent, deliver.parent) == ("", publish.id)
    assert publish.trace != trace_id(opening)


async def test_an_unsampled_message_among_sampled_ones_leaves_nothing(traced: Traced) -> None:
    path = f"{new_room('talk')}?name=ann"
    silent, loud = new_parent(sampled=False), new_parent()
    async with traced.edges[0].v1(path) as client:
        assert await client.hears() == "hello"
        await client.send("silent", traceparent=silent)
        frames = await client.each("message", "ack")
        await client.send("loud", traceparent=loud)
        heard, _ = await client.each("message", "ack")
    assert not any("trace" in frame for frame in frames)
    assert trace_id(heard["trace"]) == trace_id(loud)
    await traced.settle()
    assert traced.spans.of(trace_id(silent)) == []


async def test_a_message_is_read_again_by_the_worker_that_takes_the_run_over(
    nats: NatsServer, tmp_path: Path
) -> None:
    """After SIGKILL: `receive` says what was lost, and the second `process` links to it."""
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        (edge,), (first,) = traced.edges, traced.workers
        opening, said = new_parent(), new_parent()
        path = f"{new_room('talk')}?name=ann"
        async with edge.v1(path, **with_parent(opening)) as client:
            assert await client.hears() == "hello"
            await client.send(str(tmp_path / "go"), traceparent=said)
            assert await client.hears() == 1
            second = await traced.worker()
            first.kill()
            await client.until("restart")
            # One to the room, one to this client: each of the two ways keeps its own order.
            assert {await client.hears(), await client.hears()} == {"hello", 2}
            (tmp_path / "go").touch()
            await client.until("ack")
        spans = await traced.spans.trace(trace_id(said), 5)
        names = [await id_of(worker) for worker in (first, second)]
        again = await traced.spans.wait(
            "the run on the second worker",
            lambda span: span.trace == trace_id(opening) and span.instance == names[1],
        )
        connect = one(traced.spans.of(trace_id(opening)), "connect")
    receive, process = one(spans, "receive"), one(spans, "process")
    assert process.instance == names[1]
    assert (process.parent, process.links) == (receive.id, [receive.place])
    assert process.attributes["fairlead.attempt"] == 2
    lost = {"fairlead.attempt": 1, "fairlead.reason": "no beat", "fairlead.worker": names[0]}
    assert [(event.name, event.attributes) for event in receive.events] == [("attempt lost", lost)]
    assert connect.events == [], "it had ended long before"
    assert (again.operation, again.parent, again.links) == (
        "process", connect.id, [connect.place],
    )  # fmt: skip
    assert again.attributes["fairlead.kind"] == "reopen"
    assert again.attributes["fairlead.attempt"] == 2


# Coming back


async def test_who_comes_back_has_a_replay_that_links_to_what_it_missed(traced: Traced) -> None:
    edge, room = traced.edges[0], new_room()
    missed = [new_parent() for _ in range(3)] + [new_parent(sampled=False)]
    async with edge.v1(room) as ann:
        async with edge.v1(room) as ben:
            cursor = ben.welcome["cursor"]
        for parent in missed:
            await ann.send("hello", traceparent=parent)
            await ann.until("ack")
        back = new_parent()
        async with edge.v1(f"{room}?cursor={cursor}", **with_parent(back)) as ben:
            assert ben.welcome["recovered"] is True
            replayed = [await ben.until("message") for _ in missed]
            spans = await traced.spans.trace(trace_id(back), 2)
    connect, replay = one(spans, "connect"), one(spans, "replay")
    assert connect.attributes["fairlead.recovered"] is True
    assert (replay.name, replay.kind, replay.parent) == (
        "replay rooms.{room}", "consumer", connect.id,
    )  # fmt: skip
    assert replay.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "replay",
        "messaging.operation.type": "receive",
        "messaging.destination.template": "rooms.{room}",
        "fairlead.workflow": "Support/everyone",
        "fairlead.connection": ben.id,
        "fairlead.messages": 4,
    }
    publishes = [
        one(await traced.spans.trace(trace_id(parent), 4), "publish") for parent in missed[:3]
    ]
    assert replay.links == [publish.place for publish in publishes]
    assert {message["trace"] for message in replayed} == {traceparent(replay)}


async def test_of_many_missed_messages_a_replay_links_to_32(traced: Traced) -> None:
    """From the stream and the ring alike; here over an event stream, as an EventSource comes back."""
    edge, room, back = traced.edges[0], new_room(), new_parent()
    path = f"/support/stream/follow/{room.rpartition('/')[2]}"
    async with edge.v1(room) as ann:
        cursor = ann.welcome["cursor"]
        for number in range(40):
            await ann.send(number)
            await ann.until("ack")
        headers = {"traceparent": back, "Last-Event-ID": str(cursor)}
        async with edge.events(path, headers=headers) as stream:
            assert (await stream.next())["event"] == "resumed"
            while (await stream.next())["data"] != "39":
                pass
            spans = await traced.spans.trace(trace_id(back), 2)
    receive, replay = one(spans, "receive"), one(spans, "replay")
    assert replay.parent == receive.id
    assert replay.attributes["fairlead.messages"] == 40
    assert len(set(replay.links)) == len(replay.links) == 32
    assert stream.headers["fairlead-trace"] == traceparent(receive)


async def test_who_cannot_be_told_what_it_missed_has_no_replay(traced: Traced) -> None:
    back = new_parent()
    async with traced.edges[0].v1(f"{new_room()}?cursor=junk", **with_parent(back)) as client:
        assert client.welcome["recovered"] is False
        (connect,) = await traced.spans.trace(trace_id(back), 1)
    assert connect.attributes["fairlead.recovered"] is False
    await traced.settle()
    assert len(traced.spans.of(trace_id(back))) == 1


async def test_a_browser_that_asks_why_it_was_refused_is_no_message(traced: Traced) -> None:
    """A plain GET of a WebSocket's path: 426, or what its policy says; it receives nothing."""
    parent = new_parent()
    url = traced.edges[0].http(f"{new_room('letters')}?name=ann")
    status, _, _ = await request(url, headers={"traceparent": parent})
    assert status == 426
    await traced.settle()
    assert traced.spans.of(trace_id(parent)) == []
