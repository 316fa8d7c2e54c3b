"""Traces from real processes and real OTLP programs, through a real console, to the command."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from fairlead.dev import ports
from fairlead_console.collector import MAX_BODY
from fairlead_console.spans import Span
from fairlead_console.waterfall import Waterfall
from support.console import Console, start_console
from support.export import export
from support.spans import CLIENT, EDGE_1, TRACE, chat, span
from support.system import NatsServer, System, request, system, until

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@dataclass
class Traced:
    """A console, and an app whose spans it has."""

    app: System
    console: Console

    async def fairlead(self, *argv: str) -> tuple[int, list[str]]:
        """Exit code and lines of `fairlead trace …`, at this console."""
        env = {"FAIRLEAD_FROM": self.console.url(""), "COLUMNS": "120"}
        process = self.app.start("trace", *argv, env=env)
        return await process.ended(), process.program.lines

    async def get(self, path: str) -> tuple[int, Any]:
        status, _, body = await request(self.console.url(path))
        return status, json.loads(body)

    async def post(self, body: bytes, headers: dict[str, str] = PROTOBUF) -> tuple[int, str, bytes]:
        status, answered, answer = await request(
            self.console.url("/v1/traces"), body, headers=headers
        )
        return status, answered.get("content-type", ""), answer

    async def show(self, id: str) -> Waterfall:
        status, found = await self.get(f"/api/traces/{id}")
        assert status == 200, found
        whole: Waterfall = found
        return whole


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Traced]:
    async with system(nats, tmp_path_factory.mktemp("traces")) as app:
        yield Traced(app, await start_console(app))


def new_id() -> str:
    return secrets.token_hex(16)


def body(spans: list[Span], trace: str) -> bytes:
    return export(spans, trace).SerializeToString()


# What programs send


async def test_an_export_in_protobuf_is_there_at_once(traced: Traced) -> None:
    id = new_id()
    status, kind, answer = await traced.post(body(chat(), id))
    assert (status, kind, answer) == (200, "application/x-protobuf", b"")
    assert (await traced.show(id))["spans"] == 6


async def test_an_export_in_json_is_answered_in_json(traced: Traced) -> None:
    id = new_id()
    sent = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": id, "spanId": "0af7651916cd43dd", "name": "pay",
                                "startTimeUnixNano": "1000", "endTimeUnixNano": "3000",
                            }
                        ]
                    }
                ],
            }
        ]
    }  # fmt: skip
    status, kind, answer = await traced.post(
        json.dumps(sent).encode(), {"content-type": "application/json; charset=utf-8"}
    )
    assert (status, kind, json.loads(answer)) == (200, "application/json", {})
    (row,) = (await traced.show(id))["rows"]
    assert (row["service"], row["name"], row["duration"]) == ("shop", "pay", 2e-6)


async def test_gzip_is_unpacked(traced: Traced) -> None:
    id = new_id()
    packed = gzip.compress(body(chat(), id))
    status, _, _ = await traced.post(packed, PROTOBUF | {"content-encoding": "gzip"})
    assert status == 200
    assert (await traced.show(id))["spans"] == 6


async def test_the_exporter_of_any_program_may_send(traced: Traced) -> None:
    exporter = OTLPSpanExporter(traced.console.url("/v1/traces"))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("shop").start_as_current_span("buy") as buy:
        id = f"{buy.get_span_context().trace_id:032x}"
    await asyncio.to_thread(provider.shutdown)
    assert [row["name"] for row in (await traced.show(id))["rows"]] == ["buy"]


async def test_spans_that_are_of_no_use_are_counted_in_the_answer(traced: Traced) -> None:
    id = new_id()
    request = export(chat(), id)
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b"short"
    status, _, answer = await traced.post(request.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, partial.rejected_spans) == (200, 1)
    assert "span_id 8" in partial.error_message
    assert (await traced.show(id))["spans"] == 5, "the others are kept"


@pytest.mark.parametrize(
    ("sent", "headers", "status", "why"),
    [
        (b"garbage", PROTOBUF, 400, b"not an ExportTraceServiceRequest in protobuf"),
        (body(chat(), TRACE)[:-9], PROTOBUF, 400, b"not an ExportTraceServiceRequest"),
        (b"{", JSON, 400, b"not JSON"),
        (b'{"resourceSpans": 1}', JSON, 400, b"resourceSpans"),
        (b"garbage", PROTOBUF | {"content-encoding": "gzip"}, 400, b"not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-4], JSON | {"content-encoding": "gzip"}, 400, b"ends in the middle"),
        (b"{}", JSON | {"content-encoding": "br"}, 415, b"Content-Encoding: gzip"),
        (b"{}", {"content-type": "text/plain"}, 415, b"application/x-protobuf or application/json"),
        (bytes(MAX_BODY + 1), PROTOBUF, 413, b"at most 8388608 bytes"),
        (
            gzip.compress(bytes(MAX_BODY + 1), mtime=0), JSON | {"content-encoding": "gzip"}, 413,
            b"at most 8388608 bytes",
        ),
    ],
)  # fmt: skip
async def test_what_is_no_export_is_refused_with_the_reason(
    traced: Traced, sent: bytes, headers: dict[str, str], status: int, why: bytes
) -> None:
    answered, kind, answer = await traced.post(sent, headers)
    assert (answered, why in answer) == (status, True), answer
    if status != 415:  # nobody knows then which form would be read
        assert kind == headers["content-type"]
    if kind == "application/json":
        assert json.loads(answer)["code"] in (3, 8), "as a google.rpc.Status, as OTLP has it"
    assert (await traced.get("/livez"))[0] == 200


async def test_nobody_is_told_what_was_sent_but_the_sender(traced: Traced) -> None:
    seen = len(traced.console.program.lines)
    await traced.post(b'{"resourceSpans": "a secret"}', JSON)
    await traced.console.says(r'an export was refused.*"status":400', seen)
    assert "a secret" not in "\n".join(traced.console.program.lines)


# What the interface shows


async def test_a_trace_is_found_by_the_first_digits_of_its_id(traced: Traced) -> None:
    one, two = "ab" * 16, "ab" * 15 + "00"
    await traced.post(body(chat(), one))
    await traced.post(body(chat(), two))
    assert (await traced.show(one.upper()))["trace"] == one
    assert (await traced.show(one[:-1]))["trace"] == one
    status, problem = await traced.get(f"/api/traces/{one[:9]}")
    assert (status, sorted(problem["traces"])) == (409, sorted([one, two]))


@pytest.mark.parametrize(("id", "status"), [("f" * 32, 404), ("xyz", 400), ("f" * 33, 400)])
async def test_a_trace_that_is_not_there(traced: Traced, id: str, status: int) -> None:
    answered, problem = await traced.get(f"/api/traces/{id}")
    assert (answered, problem["status"]) == (status, status)
    assert problem["detail"]


@pytest_asyncio.fixture
async def alone(app: System) -> Traced:
    """A console that nobody else sends to; it has little memory."""
    return Traced(app, await start_console(app, "--trace-memory", str(1024 * 1024)))


async def test_lists_are_of_the_newest_or_the_slowest_without_their_rows(alone: Traced) -> None:
    slowest, newest = new_id(), new_id()
    await alone.post(body([span("a1", "receive t", 0, 900, EDGE_1)], slowest))
    await alone.post(body([span("a1", "receive t", 100, 200, EDGE_1)], newest))
    for order, id in (("last", newest), ("slow", slowest)):
        status, found = await alone.get(f"/api/traces?order={order}&limit=1")
        assert (status, found["held"]) == (200, 2)
        (trace,) = found["traces"]
        assert trace["trace"] == id
        assert "rows" not in trace
        assert sum(trace["parts"].values()) == pytest.approx(trace["duration"])
    assert len((await alone.get("/api/traces"))[1]["traces"]) == 2
    assert (await alone.get("/api/traces?order=best"))[0] == 400


async def test_memory_is_bounded(alone: Traced) -> None:
    large = replace(span("a1", "x", 0, 1, CLIENT), attributes={"x": "y" * 100_000})
    first = new_id()
    await alone.post(body([large], first))
    for _ in range(11):
        await alone.post(body([large], new_id()))
    assert (await alone.get(f"/api/traces/{first}"))[0] == 404
    assert (await alone.get("/api/traces"))[1]["held"] == 10


# The whole way


def exporting(console: Console) -> dict[str, str]:
    """What sends the spans of a process to a console, and soon."""
    return {
        "OTEL_SDK_DISABLED": "false",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": console.url("/v1/traces"),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


async def test_the_last_message_of_a_real_system(alone: Traced) -> None:
    """Two edges, a worker and a console; one message; `fairlead trace --last`."""
    app, env = alone.app, exporting(alone.console)
    edge, other, _ = await asyncio.gather(
        app.edge(env=env), app.edge(env=env), app.worker("traced.py", env=env)
    )
    for each in (edge, other):
        await each.serves("/support/realtime/rooms/blue")
    async with (
        edge.v1("/support/realtime/rooms/blue") as sender,
        other.v1("/support/realtime/rooms/blue") as member,
    ):
        await sender.send("hello")
        frame, _ = await sender.each("message", "ack")
        await member.until("message")
    id = frame["trace"].split("-")[1]
    await until(lambda: whole(alone, id, 5), "all spans have come")

    code, lines = await alone.fairlead("--last")
    assert (code, lines[1]) == (0, f"{id}  5 spans")
    assert [line[:26].rstrip() for line in lines[3:-2]] == [
        "receive rooms.{room}",
        "  queue",
        "  process rooms.{room}",
        "    publish rooms.{room}",
        "      broker",
        "      deliver rooms.{room}",
        "      broker",
        "      deliver rooms.{room}",
    ]
    for part in ("edge", "broker", "worker queue", "user code"):
        assert f"{part} " in lines[-1]
    assert "other" not in lines[-1], "every moment is somebody's"
    assert (await alone.fairlead(id[:10]))[1] == lines
    shown = json.loads((await alone.fairlead("--slow", "--json"))[1][0])
    assert shown == await alone.show(id)
    assert (await alone.fairlead("--last", "5"))[1][0].startswith(f"{id[:8]}  ")


async def test_what_is_published_through_the_console_is_traced_too(
    nats: NatsServer, tmp_path: Path
) -> None:
    """By itself, to itself, as in `fairlead dev`: its own spans come last, and are not lost."""
    async with system(nats, tmp_path) as app:
        port = str(ports.free_port())
        own = f"http://127.0.0.1:{port}/v1/traces"
        env = {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": own}
        it = Traced(app, await start_console(app, "--open-publish", "--port", port, env=env))
        await app.worker("traced.py")
        body = json.dumps({"topic": "rooms.blue", "data": "hello"}).encode()

        async def published() -> bool:
            return (await request(it.console.url("/publish"), body))[0] == 200

        await until(published, "the topic is known")

        async def seen() -> bool:
            return bool((await it.get("/api/traces"))[1]["traces"])

        await until(seen, "its span has come")
        (trace,) = (await it.get("/api/traces"))[1]["traces"]
        (row,) = (await it.show(trace["trace"]))["rows"]
        assert (row["name"], row["service"]) == ("publish rooms.{room}", "fairlead-console")
        assert await it.console.stop() == 0


async def test_an_attempt_whose_worker_was_killed_is_seen_as_a_gap(
    alone: Traced, tmp_path: Path
) -> None:
    app, env = alone.app, exporting(alone.console)
    edge, worker = await asyncio.gather(app.edge(env=env), app.worker("traced.py", env=env))
    await edge.serves("/support/realtime/slow/blue")
    go = tmp_path / "go"
    async with edge.v1("/support/realtime/slow/blue") as client:
        await client.send(str(go))
        assert (await client.until("message"))["data"] == 1, "the first attempt"
        await app.worker("traced.py", env=env)
        worker.kill()
        assert (await client.until("message"))["data"] == 2
        go.touch()
        ack = await client.until("ack")
    id = ack["trace"].split("-")[1]
    await until(lambda: whole(alone, id, 4), "all spans have come")
    rows = {row["name"]: row for row in (await alone.show(id))["rows"]}
    lost, second = rows["attempt 1"], rows["process slow.{room}"]
    assert (lost["part"], lost["span"]) == ("other", None)
    assert lost["start"] + lost["duration"] <= second["start"]
    assert lost["duration"] > 1, "two beats were missed"
    assert (await alone.fairlead(id))[1][-1] == (
        f"attempt 1 left no span: no beat of worker {lost['instance']}"
    )


async def whole(traced: Traced, id: str, spans: int) -> bool:
    status, found = await traced.get(f"/api/traces/{id}")
    return status == 200 and found["spans"] >= spans
