"""One trace from key-press to pixel: real processes export real OTLP over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.aio.msg
import pytest_asyncio

from fairlead.testing.program import SLOWER
from support.system import NatsServer, system, until
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
    async with traced_system(nats, tmp_path_factory.mktemp("traced"), workers=1) as made:
        yield made


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
    for trace in (first, second):
        spans = await traced.spans.trace(trace_id(trace), 5)
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
        quiet = Traced(app, traced.spans)
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


async def test_a_retry_after_a_kill_is_in_the_same_trace(nats: NatsServer, tmp_path: Path) -> None:
    """The next attempt hangs under the same `receive`, which says what was lost, and links to it."""
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        (edge,), (first,) = traced.edges, traced.workers
        parent = new_parent()
        async with edge.v1("/support/realtime/slow/a") as client:
            await client.send(str(tmp_path / "go"), traceparent=parent)
            assert (await client.until("message"))["data"] == 1
            second = await traced.worker()
            first.kill()
            assert (await client.until("message"))["data"] == 2
            (tmp_path / "go").touch()
            ack = await client.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 4)
        names = [await id_of(worker) for worker in (first, second)]
    receive, process = one(spans, "receive"), one(spans, "process")
    assert receive.parent == span_id(parent)
    assert (process.parent, process.links) == (receive.id, [receive.place])
    assert process.instance == names[1]
    assert process.attributes["fairlead.attempt"] == receive.attributes["fairlead.attempt"] == 2
    lost = {"fairlead.attempt": 1, "fairlead.reason": "no beat", "fairlead.worker": names[0]}
    assert [(event.name, event.attributes) for event in receive.events] == [("attempt lost", lost)]
    sent = process.start - process.attributes["fairlead.queue.wait"] * 1e9
    assert sent >= receive.events[0].at - 0.01e9, "it waited in this attempt alone"
    assert one(spans, "publish").parent == process.id
    assert one(spans, "publish").attributes["fairlead.attempt"] == 2
    assert one(spans, "deliver").parent == one(spans, "publish").id
    assert ack["trace"] == traceparent(receive)


async def test_a_message_that_waits_for_a_worker_says_so(nats: NatsServer, tmp_path: Path) -> None:
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        (edge,), (first,) = traced.edges, traced.workers
        parent = new_parent()
        async with edge.v1("/support/realtime/echo") as client:
            assert await first.stop() == 0
            await client.send("hello", traceparent=parent)
            await client.until("waiting")
            await traced.worker()
            await client.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert [event.name for event in receive.events] == ["no worker"]
    assert process.attributes["fairlead.attempt"] == 1, "nobody had it before"
    assert process.links == []
    waited = process.attributes["fairlead.queue.wait"]
    assert abs(process.start - waited * 1e9 - receive.start) < 0.1e9 * SLOWER, "all the while"


async def test_the_environment_names_an_instance(nats: NatsServer, tmp_path: Path) -> None:
    async with traced_system(nats, tmp_path, edges=0, workers=1) as traced:
        await traced.edge(env={"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7,zone=a"})
        (edge,) = traced.edges
        await edge.serves("/support/realtime/echo")
        parent = new_parent()
        async with edge.v1("/support/realtime/echo") as client:
            await client.send("hello", traceparent=parent)
            await client.until("ack")
        spans = await traced.spans.trace(trace_id(parent), 2)
        assert one(spans, "process").instance == await id_of(traced.workers[0])
    receive = one(spans, "receive")
    assert (receive.instance, receive.resource["zone"]) == ("pod-7", "a")


async def test_a_collector_that_hangs_is_nobodys_concern(nats: NatsServer, tmp_path: Path) -> None:
    """Everything is sampled and nothing can be exported: messages are answered, and processes end."""
    deaf = socket.create_server(("127.0.0.1", 0))  # takes connections, and answers nothing
    env = {
        "OTEL_SDK_DISABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "256",
    }
    with deaf:
        async with system(nats, tmp_path) as app:
            edge, worker = await asyncio.gather(app.edge(env=env), app.worker("traced.py", env=env))
            await edge.serves("/support/realtime/echo")
            async with edge.v1("/support/realtime/echo") as client:
                for _ in range(1000):  # four times what may wait to be exported
                    await client.send("hello")
                    assert "trace" in await client.until("ack")
            assert set(await asyncio.gather(edge.stop(), worker.stop())) == {0}


async def test_no_batch_is_so_large_that_it_could_hold_a_loop(traced: Traced) -> None:
    """64 spans at most, whatever there is to export; what that costs a loop, `make bench` measures."""
    async with traced.edges[0].v1("/support/realtime/echo") as client:
        for _ in range(400):
            await client.send("hello")
            await client.until("ack")
    await traced.settle()
    assert 32 <= traced.spans.largest <= 64
