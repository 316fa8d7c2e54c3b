"""One trace from key-press to pixel: real processes export real OTLP over HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nats
import nats.aio.msg
import pytest_asyncio
import websockets

from support.otlp import Collector, Span, collector
from support.system import Edge, NatsServer, System, request, system, until


@dataclass
class Traced:
    """Two edges and a worker that export to one collector."""

    app: System
    spans: Collector
    edges: list[Edge]

    def env(self, process: str) -> dict[str, str]:
        """For a process: its name shows in each of its spans."""
        return {**self.spans.env, "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={process}"}

    async def settle(self) -> None:
        """Wait until all that was sent before has been exported.

        Spans leave each process in order, so a trace that went through all of them and
        has arrived stands behind whatever was there before.
        """
        room = new_room()
        async with (
            self.edges[0].v1(room) as client,
            self.edges[1].v1(room) as other,
        ):
            parent = new_parent()
            await client.send("settle", traceparent=parent)
            await client.until("message")
            await other.until("message")
            await self.spans.trace(trace_id(parent), 5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(nats: NatsServer, tmp_path_factory: object) -> AsyncIterator[Traced]:
    folder: Path = tmp_path_factory.mktemp("traced")  # type: ignore[attr-defined]  # pytest's own
    with collector() as spans:
        async with system(nats, folder) as app:
            made = Traced(app, spans, [])
            first, second, _ = await asyncio.gather(
                app.edge(env=made.env("edge-0")),
                app.edge(env=made.env("edge-1")),
                app.worker("traced.py", env=made.env("worker")),
            )
            made.edges += [first, second]
            await served(made.edges, "/support/realtime/echo")
            yield made


async def served(edges: list[Edge], path: str) -> None:
    """Wait until edges know the routes of a worker that came beside them."""
    for edge in edges:
        await until(partial(is_served, edge, path), f"{path} is served")


async def is_served(edge: Edge, path: str) -> bool:
    return (await request(edge.http(path)))[0] != 404


def new_room() -> str:
    """A room that nobody was in before."""
    return f"/support/realtime/rooms/{secrets.token_hex(4)}"


def new_parent(sampled: bool = True) -> str:
    """A client's own traceparent."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


def span_id(traceparent: str) -> str:
    return traceparent.split("-")[2]


def one(spans: list[Span], operation: str) -> Span:
    """The only span of an operation."""
    (found,) = [span for span in spans if span.operation == operation]
    return found


@asynccontextmanager
async def overheard(traced: Traced, subject: str) -> AsyncIterator[list[nats.aio.msg.Msg]]:
    """What passes on a NATS subject of the app."""
    heard: list[nats.aio.msg.Msg] = []

    async def hear(message: nats.aio.msg.Msg) -> None:
        heard.append(message)

    client = await nats.connect(traced.app.nats.url)
    try:
        await client.subscribe(f"fl.{traced.app.app}.{subject}", cb=hear)
        await client.flush()
        yield heard
    finally:
        await client.close()


async def test_one_chat_message_is_one_trace_over_three_processes_and_two_edges(
    traced: Traced,
) -> None:
    """receive → process → publish → one deliver per edge, and the client's span above them."""
    first, second = traced.edges
    room = new_room()
    parent = new_parent()
    async with (
        first.v1(room) as client,
        second.v1(room) as member,
        second.raw(room) as raw,
    ):
        await client.send("hello", traceparent=parent)
        mine, ack = await client.each("message", "ack")
        theirs = await member.until("message")
        assert await raw.recv() == "hello"
    await traced.settle()
    spans = traced.spans.of(trace_id(parent))
    assert sorted(span.name for span in spans) == [
        "deliver rooms.{room}",
        "deliver rooms.{room}",
        "process rooms.{room}",
        "publish rooms.{room}",
        "receive rooms.{room}",
    ]
    receive, process, publish = (one(spans, name) for name in ("receive", "process", "publish"))
    delivers = {
        span.resource["service.instance.id"]: span for span in spans if span.operation == "deliver"
    }

    assert receive.parent == span_id(parent)
    assert process.parent == receive.id
    assert publish.parent == process.id
    assert {span.parent for span in delivers.values()} == {publish.id}

    assert delivers.keys() == {"edge-0", "edge-1"}, "one per edge"
    assert (receive.kind, receive.service) == ("server", "fairlead-edge")
    assert (process.kind, process.service) == ("consumer", "fairlead-worker")
    assert (publish.kind, publish.service) == ("producer", "fairlead-worker")
    for deliver in delivers.values():
        assert (deliver.kind, deliver.service) == ("consumer", "fairlead-edge")
        assert deliver.attributes["fairlead.slow"] == 0
    assert receive.resource["service.instance.id"] == "edge-0"
    assert delivers["edge-0"].attributes["fairlead.members"] == 1
    assert delivers["edge-1"].attributes["fairlead.members"] == 2
    assert receive.attributes["fairlead.attempt"] == process.attributes["fairlead.attempt"] == 1
    assert 0 <= process.attributes["fairlead.queue.wait"] < 10
    for span in spans:
        assert span.attributes["messaging.system"] == "nats"
        assert span.attributes["messaging.destination.template"] == "rooms.{room}"
        assert span.attributes["messaging.operation.name"] == span.operation
        assert span.start <= span.end
    assert receive.start <= process.start <= publish.start

    assert ack["trace"] == f"00-{trace_id(parent)}-{receive.id}-01"
    assert mine["trace"] == f"00-{trace_id(parent)}-{delivers['edge-0'].id}-01"
    assert theirs["trace"] == f"00-{trace_id(parent)}-{delivers['edge-1'].id}-01"


async def test_an_answer_names_the_span_that_received_the_question(traced: Traced) -> None:
    async with traced.edges[0].v1("/support/realtime/echo") as client:
        parent = new_parent()
        await client.send("hello", traceparent=parent)
        message, ack = await client.each("message", "ack")
    spans = await traced.spans.trace(trace_id(parent), 2)
    assert {span.name for span in spans} == {"receive echo", "process echo"}
    assert (
        message["trace"] == ack["trace"] == f"00-{trace_id(parent)}-{one(spans, 'receive').id}-01"
    )


async def test_a_plain_message_starts_a_trace_of_its_own(traced: Traced) -> None:
    room = new_room()
    async with traced.edges[0].raw(room) as client, traced.edges[1].v1(room) as member:
        await client.send("one")
        first = (await member.until("message"))["trace"]
        await client.send("two")
        second = (await member.until("message"))["trace"]
    assert trace_id(first) != trace_id(second)
    for traceparent in (first, second):
        spans = await traced.spans.trace(trace_id(traceparent), 5)
        assert one(spans, "receive").parent == ""
        assert one(spans, "process").parent == one(spans, "receive").id


async def test_a_malformed_traceparent_is_as_good_as_none(traced: Traced) -> None:
    async with traced.edges[0].v1("/support/realtime/echo") as client:
        await client.send("hello", traceparent=f"00-{'0' * 32}-{'1' * 16}-01")
        trace = (await client.until("ack"))["trace"]
    assert trace_id(trace) != "0" * 32
    spans = await traced.spans.trace(trace_id(trace), 2)
    assert one(spans, "receive").parent == ""


async def test_a_stream_says_its_trace_in_a_header_and_honours_the_requests(traced: Traced) -> None:
    parent = new_parent()
    async with traced.edges[0].events(
        "/support/stream/value", headers={"traceparent": parent}
    ) as stream:
        assert json.loads((await stream.next())["data"]) == trace_id(parent), "ctx.trace_id"
    spans = await traced.spans.trace(trace_id(parent), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert receive.name == "receive /support/stream/value", "the endpoint where there is no topic"
    assert process.name == "process /support/stream/value"
    assert (receive.parent, process.parent) == (span_id(parent), receive.id)
    assert stream.headers["fairlead-trace"] == f"00-{trace_id(parent)}-{receive.id}-01"


async def test_a_stream_without_a_traceparent_starts_a_trace(traced: Traced) -> None:
    async with traced.edges[0].events("/support/stream/value") as stream:
        trace = trace_id(stream.headers["fairlead-trace"])
        assert json.loads((await stream.next())["data"]) == trace
    spans = await traced.spans.trace(trace, 2)
    assert one(spans, "receive").parent == ""


async def test_an_unsampled_stream_keeps_the_clients_trace_id_for_the_logs(traced: Traced) -> None:
    parent = new_parent(sampled=False)
    async with traced.edges[0].events(
        "/support/stream/value", headers={"traceparent": parent}
    ) as stream:
        assert json.loads((await stream.next())["data"]) == trace_id(parent)
    header = stream.headers["fairlead-trace"]
    assert (trace_id(header), header[-2:]) == (trace_id(parent), "00")
    await traced.settle()
    assert traced.spans.of(trace_id(parent)) == []


async def test_what_a_client_does_not_want_traced_carries_nothing(traced: Traced) -> None:
    """Neither on the way to the worker nor to the room, nor back to the client."""
    room = new_room()
    subject = f"live.rooms.{room.rpartition('/')[2]}.-"
    silent, loud = new_parent(sampled=False), new_parent()
    async with (
        overheard(traced, subject) as published,
        overheard(traced, "in.>") as received,
        traced.edges[0].v1(room) as client,
    ):
        await client.send("silent", traceparent=silent)
        message, ack = await client.each("message", "ack")
        await client.send("loud", traceparent=loud)
        await client.until("ack")
        await until(lambda: len(published) == len(received) == 2, "both are overheard")
    assert "trace" not in message and "trace" not in ack
    assert "traceparent" not in (published[0].headers or {})
    assert trace_id((published[1].headers or {})["traceparent"]) == trace_id(loud)
    assert trace_id(silent).encode() not in received[0].data
    assert b"-00" not in received[0].data, "not even a flag"
    assert received[0].headers is None and received[1].headers is None
    await traced.settle()
    assert traced.spans.of(trace_id(silent)) == []


async def test_always_off_traces_nothing_whatever_a_client_says(
    traced: Traced, nats: NatsServer, tmp_path: Path
) -> None:
    off = {**traced.spans.env, "OTEL_TRACES_SAMPLER": "always_off"}
    async with system(nats, tmp_path) as app:
        await app.worker("traced.py", env=off)
        edge = await app.edge(env=off)
        room = new_room()
        quiet = Traced(app, traced.spans, [edge])
        parent = new_parent()
        async with (
            overheard(quiet, f"live.rooms.{room.rpartition('/')[2]}.-") as published,
            edge.v1(room) as client,
        ):
            await client.send("plain")
            for frame in await client.each("message", "ack"):
                assert "trace" not in frame
            await client.send("asked for", traceparent=parent)
            assert "trace" not in await client.until("ack")
            await until(lambda: len(published) == 2, "both are overheard")
        assert ["traceparent" in (message.headers or {}) for message in published] == [False] * 2
        async with edge.events("/support/stream/value") as stream:
            assert stream.headers["fairlead-trace"].endswith("-00")
        assert await edge.stop() == 0, "what was recorded is exported before the end"
    assert traced.spans.of(trace_id(parent)) == []


async def test_spans_of_the_users_own_are_children_of_process(traced: Traced) -> None:
    parent = new_parent()
    async with traced.edges[0].v1("/support/realtime/spans") as client:
        await client.send("go", traceparent=parent)
        assert (await client.until("message"))["data"] == trace_id(parent), "ctx.trace_id"
        await client.until("ack")
    spans = await traced.spans.trace(trace_id(parent), 5)
    by_name = {span.name: span for span in spans}
    process = one(spans, "process")
    assert by_name["outer"].parent == process.id
    assert by_name["inner"].parent == by_name["outer"].id
    assert by_name["after an item"].parent == process.id


async def test_spans_in_a_thread_are_children_of_process(traced: Traced) -> None:
    parent = new_parent()
    async with traced.edges[0].v1("/support/realtime/threads") as client:
        await client.send("go", traceparent=parent)
        await client.until("ack")
    spans = await traced.spans.trace(trace_id(parent), 3)
    (mine,) = [span for span in spans if span.name == "in a thread"]
    assert mine.parent == one(spans, "process").id


async def test_an_error_names_the_trace_and_its_spans_say_so(traced: Traced) -> None:
    parent = new_parent()
    async with traced.edges[0].v1("/support/realtime/raises") as client:
        await client.send("go", traceparent=parent)
        error = (await client.until("error"))["error"]
    assert error["trace"] == trace_id(parent)
    spans = await traced.spans.trace(trace_id(parent), 2)
    assert one(spans, "process").attributes["error.type"] == "RuntimeError"
    assert one(spans, "receive").attributes["error.type"] == "500"


async def test_deliver_counts_who_is_slow(traced: Traced) -> None:
    """A publisher's own traceparent is the parent; a member that does not read counts as slow."""
    room = new_room()
    subject = f"fl.{traced.app.app}.log.rooms.{room.rpartition('/')[2]}.-"
    slow = socket.create_connection(("127.0.0.1", traced.edges[0].port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    parent = new_parent()
    publisher = await nats.connect(traced.app.nats.url)
    connecting = websockets.connect(
        traced.edges[0].ws(room), sock=slow, compression=None, max_queue=1, max_size=None
    )
    async with connecting as client:
        for _ in range(60):
            await publisher.publish(subject, b"x" * 200_000, headers={"traceparent": parent})
        await publisher.flush()
        spans = await traced.spans.trace(trace_id(parent), 60)
        client.transport.abort()
    await publisher.close()
    assert {span.parent for span in spans} == {span_id(parent)}
    assert spans[0].attributes["fairlead.slow"] == 0
    assert any(
        span.attributes["fairlead.slow"] == span.attributes["fairlead.members"] == 1
        for span in spans
    )


async def test_a_retry_after_a_kill_is_in_the_same_trace(
    traced: Traced, nats: NatsServer, tmp_path: Path
) -> None:
    """The next attempt hangs under the same `receive`, and says which attempt it is."""
    async with system(nats, tmp_path) as app:
        first = await app.worker("traced.py", env=traced.env("worker-1"))
        edge = await app.edge(env=traced.env("edge"))
        parent = new_parent()
        async with edge.v1("/support/realtime/slow/a") as client:
            await client.send(str(tmp_path / "go"), traceparent=parent)
            assert (await client.until("message"))["data"] == 1
            await app.worker("traced.py", env=traced.env("worker-2"))
            first.kill()
            assert (await client.until("message"))["data"] == 2
            (tmp_path / "go").touch()
            ack = await client.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 4)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert process.parent == receive.id
    assert process.resource["service.instance.id"] == "worker-2"
    assert process.attributes["fairlead.attempt"] == receive.attributes["fairlead.attempt"] == 2
    assert receive.parent == span_id(parent)
    assert one(spans, "publish").parent == process.id
    assert one(spans, "deliver").parent == one(spans, "publish").id
    assert ack["trace"] == f"00-{trace_id(parent)}-{receive.id}-01"
