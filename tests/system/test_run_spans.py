"""Runs of event streams, of rooms, and those that are kept: one span each, however much they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.otlp import Span
from support.system import Events, NatsServer, request, until
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

STREAM = "/support/stream"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(nats: NatsServer, tmp_path_factory: Any) -> AsyncIterator[Traced]:
    async with traced_system(nats, tmp_path_factory.mktemp("traced")) as made:
        yield made


def of_parent(parent: str, **more: str) -> dict[str, Any]:
    """The options of a request with a traceparent."""
    return {"headers": {"traceparent": parent, **more}}


def events_of(span: Span) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, event.attributes) for event in span.events]


def items(last: int) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream with so many items."""
    return [("first item", {"fairlead.item": 1}), ("last item", {"fairlead.item": last})]


async def data(stream: Events) -> str:
    """The data of the next event that is an item."""
    while True:
        event = await stream.next()
        if "event" not in event and "data" in event:
            return str(json.loads(event["data"]))


# Event streams


async def test_receive_ends_with_the_head_and_process_with_the_run(
    traced: Traced, tmp_path: Path
) -> None:
    parent = new_parent()
    path = f"{STREAM}/count?n=3&go={tmp_path}/go"
    async with traced.edges[0].events(path, **of_parent(parent)) as stream:
        for number in range(3):
            assert await data(stream) == str(number)
        (receive,) = await traced.spans.trace(trace_id(parent), 1)
        assert receive.operation == "receive", "while the stream is open"
        (tmp_path / "go").touch()
        assert (await stream.next())["event"] == "end"
        spans = await traced.spans.trace(trace_id(parent), 2)
    process = one(spans, "process")
    run = stream.headers["fairlead-run"]
    assert receive.name == "receive /support/stream/count"
    assert receive.parent == span_id(parent)
    assert receive.attributes["fairlead.kind"] == process.attributes["fairlead.kind"] == "open"
    assert receive.attributes["http.response.status_code"] == 200
    assert receive.attributes["fairlead.run"] == process.attributes["fairlead.run"] == run
    connection = run.rpartition("-")[0]
    assert receive.attributes["fairlead.connection"] == connection
    assert process.attributes["fairlead.connection"] == connection
    assert process.parent == receive.id
    close = await traced.spans.wait(
        "the end of the stream",
        lambda span: (
            span.operation == "close" and span.attributes["fairlead.connection"] == connection
        ),
    )
    assert (close.name, close.parent, close.links) == (
        "close /support/stream/count", "", [receive.place],
    )  # fmt: skip
    assert close.attributes["fairlead.connected"] > 0
    assert "error.type" not in close.attributes
    assert events_of(process) == items(3), "three items, two events: never one per item"
    assert process.start <= process.events[0].at <= process.events[1].at <= process.end
    assert receive.end < process.end


async def test_a_run_that_fails_after_its_head_says_so_in_process(traced: Traced) -> None:
    parent = new_parent()
    async with traced.edges[0].events(f"{STREAM}/refused", **of_parent(parent)) as stream:
        assert await data(stream) == "a"
        assert (await stream.next())["event"] == "error"
        spans = await traced.spans.trace(trace_id(parent), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert (process.attributes["error.type"], process.failed) == ("RuntimeError", True)
    assert [name for name, _ in events_of(process)] == ["first item", "exception", "last item"]
    assert "error.type" not in receive.attributes, "its client had its head"


async def test_who_hangs_up_has_its_run_cancelled_which_is_no_error(
    traced: Traced, tmp_path: Path
) -> None:
    parent = new_parent()
    path = f"{STREAM}/count?n=1&go={tmp_path}/never"
    async with traced.edges[0].events(path, **of_parent(parent)) as stream:
        assert await data(stream) == "0"
    spans = await traced.spans.trace(trace_id(parent), 2)
    process = one(spans, "process")
    assert (process.attributes["error.type"], process.failed) == ("499", False)


async def test_a_stream_of_a_room_alone_is_received_and_nothing_runs(traced: Traced) -> None:
    parent = new_parent()
    path = f"{STREAM}/follow/{new_room().rpartition('/')[2]}"
    async with traced.edges[0].events(path, **of_parent(parent)):
        (receive,) = await traced.spans.trace(trace_id(parent), 1)
    assert receive.name == "receive rooms.{room}"
    assert receive.attributes["http.response.status_code"] == 200


async def test_a_lost_worker_before_the_head_is_an_event_and_its_run_is_started_anew(
    nats: NatsServer, tmp_path: Path
) -> None:
    """The second `process` is a child of `receive`, and links to it: its first one is nowhere."""
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        (edge,), (first,) = traced.edges, traced.workers
        parent = new_parent()
        path = f"{STREAM}/count?n=1&go={tmp_path}/go"
        async with edge.events(path, **of_parent(parent)) as stream:
            assert await data(stream) == "0"
            second = await traced.worker()
            first.kill()
            assert (await stream.next())["event"] == "restart"
            assert await data(stream) == "0"
            (tmp_path / "go").touch()
            assert (await stream.next())["event"] == "end"
        spans = await traced.spans.trace(trace_id(parent), 2)
        assert one(spans, "process").instance == await id_of(second)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert (process.parent, process.links) == (receive.id, [receive.place])
    assert process.attributes["fairlead.attempt"] == 2
    sent = process.start - process.attributes["fairlead.queue.wait"] * 1e9
    assert sent > receive.end, "it waited in this attempt alone"


async def test_a_run_whose_worker_is_lost_is_an_error_of_its_stream(
    nats: NatsServer, tmp_path: Path
) -> None:
    """`on_worker_lost="error"`: its `process` died with it, so the end of the stream says it."""
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        parent = new_parent()
        path = f"{STREAM}/once?go={tmp_path}/never"
        async with traced.edges[0].events(path, **of_parent(parent)) as stream:
            assert await data(stream) == "0"
            await traced.worker()
            traced.workers[0].kill()
            assert (await stream.next())["event"] == "error"
            close = await traced.spans.wait("the end", lambda span: span.operation == "close")
        (receive,) = traced.spans.of(trace_id(parent))
    assert (close.attributes["error.type"], close.failed) == ("503", True)
    assert close.links == [receive.place]


# Runs that are kept


async def test_a_kept_run_is_one_span_over_all_its_readers(traced: Traced, tmp_path: Path) -> None:
    """Who reads it later is received, and brought up to the present, in a trace that links to it."""
    first, second = traced.edges
    begun, attached = new_parent(), new_parent()
    path = f"{STREAM}/kept?go={tmp_path}/go"
    async with first.events(path, **of_parent(begun)) as stream:
        assert [await data(stream) for _ in range(2)] == ["1:0", "1:1"]
        run, key = (stream.headers[f"fairlead-run{each}"] for each in ("", "-token"))
        again = f"{STREAM}/kept?run={run}&key={key}"
        async with second.events(again, **of_parent(attached)) as reader:
            assert [await data(reader) for _ in range(2)] == ["1:0", "1:1"]
            there = await traced.spans.trace(trace_id(attached), 2)
            (tmp_path / "go").touch()
            assert [await data(stream) for _ in range(2)] == ["1:2", "1:3"]
            assert [await data(reader) for _ in range(2)] == ["1:2", "1:3"]
        spans = await traced.spans.trace(trace_id(begun), 2)
    receive, process = one(spans, "receive"), one(spans, "process")
    assert process.parent == receive.id
    assert events_of(process) == items(4)
    assert process.attributes["fairlead.run"] == run
    assert "messaging.message.id" not in process.attributes, "the run's token is nobody's business"
    assert stream.headers["fairlead-trace"] == traceparent(receive)

    other, replay = one(there, "receive"), one(there, "replay")
    assert (other.parent, replay.parent) == (span_id(attached), other.id)
    assert other.attributes["fairlead.kind"] == "attach"
    assert other.attributes["fairlead.run"] == run
    assert replay.name == "replay /support/stream/kept"
    assert replay.links == [receive.place]
    assert replay.attributes["fairlead.messages"] >= 2
    assert reader.headers["fairlead-trace"] == traceparent(other)
    for span in (*spans, *there):
        assert key not in str(span), "a token is in no span"


async def test_a_kept_run_that_is_taken_up_goes_on_in_its_trace(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Killed, then told to stop: each attempt is a child of the opening, and links to the one before."""
    async with traced_system(nats, tmp_path, edges=1, workers=1) as traced:
        (edge,), (first,) = traced.edges, traced.workers
        parent = new_parent()
        async with edge.events(f"{STREAM}/kept?go={tmp_path}/go", **of_parent(parent)) as stream:
            assert [await data(stream) for _ in range(2)] == ["1:0", "1:1"]
            second = await traced.worker(env={"FAIRLEAD_DRAIN_GRACE": "200ms"})
            first.kill()
            assert [await data(stream) for _ in range(2)] == ["2:0", "2:1"]
            third = await traced.worker()
            assert await second.stop() == 0
            assert [await data(stream) for _ in range(2)] == ["3:0", "3:1"]
            (tmp_path / "go").touch()
            assert [await data(stream) for _ in range(2)] == ["3:2", "3:3"]
        spans = await traced.spans.trace(trace_id(parent), 3)
        names = [await id_of(worker) for worker in (second, third)]
    receive = one(spans, "receive")
    two, three = sorted(all_of(spans, "process"), key=lambda span: span.start)
    assert [two.instance, three.instance] == names
    assert [two.parent, three.parent] == [receive.id] * 2
    assert [span.attributes["fairlead.attempt"] for span in (two, three)] == [2, 3]
    (before,) = two.links
    assert before.startswith(f"{receive.trace}-"), "the attempt that was killed, in this trace"
    assert before != receive.place
    assert three.links == [two.place]
    assert events_of(two) == [
        ("first item", {"fairlead.item": 1}),
        ("handed over", {}),
        ("last item", {"fairlead.item": 2}),
    ]
    assert events_of(three) == items(4)
    assert not any("fairlead.queue.wait" in span.attributes for span in (two, three))


async def test_who_ends_a_run_is_received_too(traced: Traced, tmp_path: Path) -> None:
    begun, ending = new_parent(), new_parent()
    edge = traced.edges[0]
    async with edge.events(f"{STREAM}/kept?go={tmp_path}/never", **of_parent(begun)) as stream:
        assert await data(stream) == "1:0"
        run, key = (stream.headers[f"fairlead-run{each}"] for each in ("", "-token"))
        status, _, _ = await request(
            edge.http(f"{STREAM}/kept?run={run}&key={key}"),
            method="DELETE",
            headers={"traceparent": ending},
        )
        assert status == 204
        spans = await traced.spans.trace(trace_id(begun), 2)
    (receive,) = await traced.spans.trace(trace_id(ending), 1)
    assert receive.attributes["fairlead.kind"] == "cancel"
    assert receive.attributes["fairlead.run"] == run
    process = one(spans, "process")
    assert (process.attributes["error.type"], process.failed) == ("499", False)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_who_asks_for_a_run_that_is_not_there_is_refused(traced: Traced, method: str) -> None:
    parent = new_parent()
    status, _, _ = await request(
        traced.edges[0].http(f"{STREAM}/kept?run=none&key=none"),
        method=method,
        headers={"traceparent": parent},
    )
    assert status == 404
    (receive,) = await traced.spans.trace(trace_id(parent), 1)
    assert receive.attributes["http.response.status_code"] == 404
    assert (receive.attributes["error.type"], receive.failed) == ("404", False)


# Runs of rooms


async def test_each_item_of_a_rooms_run_begins_a_trace(traced: Traced) -> None:
    async with traced.edges[0].v1(new_room("ticks")) as client:
        tick = await client.until("message")
        spans = await traced.spans.trace(trace_id(tick["trace"]), 2)
    publish, deliver = one(spans, "publish"), one(spans, "deliver")
    assert (publish.parent, deliver.parent) == ("", publish.id)
    assert publish.name == "publish ticks.{room}"


async def test_a_rooms_run_that_fails_has_a_trace_for_that(traced: Traced) -> None:
    """It has no span of its own; the trace is the one that its worker's log names."""
    async with traced.edges[0].raw("/support/realtime/ticks/broken"):
        failed = await traced.spans.wait(
            "the failure", lambda span: span.attributes.get("fairlead.kind") == "room"
        )
    assert (failed.name, failed.parent) == ("process ticks.{room}", "")
    assert (failed.attributes["error.type"], failed.failed) == ("RuntimeError", True)

    def logged() -> bool:
        lines = [line for worker in traced.workers for line in worker.program.lines]
        return any(failed.trace in line for line in lines)

    await until(logged, "a worker's log names the trace")


async def test_a_ratio_of_a_rooms_items_is_sampled_and_those_are_whole(
    nats: NatsServer, tmp_path: Path
) -> None:
    """At 0 nothing is; and a ticker's trace does not begin with a parent that nobody recorded."""
    none = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    async with traced_system(nats, tmp_path, edges=1, workers=0) as traced:
        await traced.worker(env=none)
        await traced.edges[0].serves("/support/realtime/echo")
        async with traced.edges[0].v1(new_room("ticks")) as client:
            assert "trace" not in await client.until("message")
