"""Tracing: when it is on, what is sampled, and what a span holds."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fairlead import telemetry
from fairlead.protocol import traceparent
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = Traceparent(TRACE, SPAN, True)
UNSAMPLED = Traceparent(TRACE, SPAN, False)


class Recorded:
    """A Tracing whose spans stay here."""

    def __init__(self, ratio: float) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        processor = SimpleSpanProcessor(self.exporter)
        self.provider.add_span_processor(processor)
        self.tracing = Tracing(self.provider, self.provider.get_tracer("t"), ratio, processor)

    def one(self) -> Any:
        (span,) = self.exporter.get_finished_spans()
        return span


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's own environment says is not what is tested."""
    for variable in list(os.environ):
        if variable.startswith("OTEL_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(telemetry, "time", clock)
    return clock


def setup(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Tracing | None:
    """`telemetry.setup` of an edge; the exporter itself reads the real environment."""
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    return telemetry.setup("edge", "e1", environ)


@pytest.fixture
def stopped() -> Iterator[list[Tracing]]:
    """Put a Tracing in here to have its threads stopped."""
    made: list[Tracing] = []
    yield made
    for tracing in made:
        tracing.shutdown()


# When it is on


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "shop", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true", **ENDPOINT},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "none", **ENDPOINT},
        {"OTEL_TRACES_SAMPLER": "always_off", **ENDPOINT},
    ],
)
def test_tracing_is_off_unless_the_standard_variables_ask_for_it(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert telemetry.setup("edge", "e1", environ) is None
    assert caplog.records == []


def test_an_exporter_that_is_not_built_in_is_said_and_tracing_stays_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert telemetry.setup("edge", "e1", {"OTEL_TRACES_EXPORTER": "zipkin", **ENDPOINT}) is None
    assert caplog.messages == [
        "OTEL_TRACES_EXPORTER: only otlp (over HTTP) is built in; tracing is off found=zipkin"
    ]


@pytest.mark.parametrize(
    "environ",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_SDK_DISABLED": "false", **ENDPOINT},
    ],
)
def test_an_endpoint_or_the_exporters_name_turns_it_on(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    stopped: list[Tracing],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing = setup(environ, monkeypatch)
    assert tracing is not None
    stopped.append(tracing)
    assert caplog.records == []


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]
)
def test_a_protocol_that_is_not_built_in_is_said_and_http_is_used(
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    stopped: list[Tracing],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing = setup({variable: "grpc", **ENDPOINT}, monkeypatch)
    assert tracing is not None
    stopped.append(tracing)
    assert caplog.messages == ["OTLP protocol is not built in; http/protobuf is used found=grpc"]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "fairlead-edge"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=desk,team=a"}, "desk"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=a"}, "fairlead-edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=desk", "OTEL_SERVICE_NAME": "shop"}, "shop"),
    ],
)
def test_the_name_of_the_service(
    environ: dict[str, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    stopped: list[Tracing],
) -> None:
    tracing = setup({**environ, **ENDPOINT}, monkeypatch)
    assert tracing is not None
    stopped.append(tracing)
    assert tracing._provider.resource.attributes["service.name"] == name


@pytest.mark.parametrize(
    ("told", "instance"),
    [
        ("", "e1"),
        ("team=a", "e1"),
        ("service.instance.id=pod-7", "pod-7"),
        ("team=a, service.instance.id=pod-7", "pod-7"),
        ("other.service.instance.id=x", "e1"),
    ],
)
def test_the_instance_is_the_process_unless_the_environment_names_another(
    told: str,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
    stopped: list[Tracing],
) -> None:
    tracing = setup({"OTEL_RESOURCE_ATTRIBUTES": told, **ENDPOINT}, monkeypatch)
    assert tracing is not None
    stopped.append(tracing)
    assert tracing._provider.resource.attributes["service.instance.id"] == instance


def test_a_worker_is_where_user_code_looks_for_its_tracer() -> None:
    """In a process of its own: OpenTelemetry lets it be set once."""
    code = (
        "from fairlead import telemetry\n"
        "from opentelemetry import trace\n"
        "tracing = telemetry.setup('worker', 'w1')\n"
        "assert trace.get_tracer_provider() is tracing._provider\n"
        "print(tracing._provider.resource.attributes['service.name'])\n"
        "spans = [trace.get_tracer('mine').start_span('x') for _ in range(50)]\n"
        "print(any(span.is_recording() for span in spans))\n"
    )
    environ = {
        **os.environ,
        **ENDPOINT,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environ
    )
    assert (done.stdout.split(), done.stderr) == (["fairlead-worker", "False"], "")


# What is sampled


@pytest.mark.parametrize(
    ("environ", "ratio"),
    [
        ({}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "TraceIdRatio"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "-1"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 1.0),
    ],
)
def test_the_ratio_is_the_standard_samplers(
    environ: dict[str, str], ratio: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert telemetry._ratio(environ) == ratio
    assert caplog.records == []


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1%"},
            "OTEL_TRACES_SAMPLER_ARG is no number; everything is sampled found=1%",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "sometimes"},
            "OTEL_TRACES_SAMPLER is unknown; everything is sampled found=sometimes",
        ),
    ],
)
def test_a_sampler_that_is_no_sampler_is_said_and_everything_is_sampled(
    environ: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert telemetry._ratio(environ) == 1.0
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, said)
    ]


def test_a_client_that_samples_is_followed_20_times_a_second(clock: Clock) -> None:
    tracing = Recorded(ratio=0).tracing
    assert [tracing.sampled(SAMPLED) for _ in range(25)] == [True] * 20 + [False] * 5
    clock.now += 0.999
    assert not tracing.sampled(SAMPLED)
    clock.now += 0.001
    assert [tracing.sampled(SAMPLED) for _ in range(21)] == [True] * 20 + [False]


def test_beyond_that_the_ratio_decides(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = Recorded(ratio=0.25).tracing
    for _ in range(20):
        assert tracing.sampled(SAMPLED)
    dice = iter([0.1, 0.3, 0.249, 0.25])
    monkeypatch.setattr(telemetry, "random", SimpleNamespace(random=lambda: next(dice)))
    assert [tracing.sampled(SAMPLED) for _ in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_client_that_does_not_sample_is_not_sampled(clock: Clock, ratio: float) -> None:
    tracing = Recorded(ratio).tracing
    assert not any(tracing.sampled(UNSAMPLED) for _ in range(100))
    assert tracing.sampled(SAMPLED), "which uses up nothing of the 20"


def test_without_a_clients_word_the_ratio_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(Recorded(1.0).tracing.sampled(None) for _ in range(100))
    assert not any(Recorded(0.0).tracing.sampled(None) for _ in range(100))
    dice = iter([0.1, 0.3])
    monkeypatch.setattr(telemetry, "random", SimpleNamespace(random=lambda: next(dice)))
    tracing = Recorded(0.25).tracing
    assert [tracing.sampled(None) for _ in range(2)] == [True, False]


# Spans


def test_a_span_has_its_parent_and_is_the_parent_of_the_next() -> None:
    recorded = Recorded(1.0)
    hop = recorded.tracing.start("process chat", "consumer", SAMPLED, {"fairlead.attempt": 2})
    hop.set("fairlead.members", 5)
    hop.end()
    span = recorded.one()
    assert (span.name, span.kind) == ("process chat", SpanKind.CONSUMER)
    assert span.context.trace_id == int(TRACE, 16)
    assert (span.parent.span_id, span.parent.is_remote) == (int(SPAN, 16), True)
    assert dict(span.attributes) == {
        "messaging.system": "nats",
        "fairlead.attempt": 2,
        "fairlead.members": 5,
    }
    assert hop.parent == Traceparent(TRACE, f"{span.context.span_id:016x}", True)
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("server", SpanKind.SERVER),
        ("producer", SpanKind.PRODUCER),
        ("consumer", SpanKind.CONSUMER),
        ("internal", SpanKind.INTERNAL),
    ],
)
def test_the_kinds_of_spans(kind: telemetry.SpanKind, expected: SpanKind) -> None:
    recorded = Recorded(1.0)
    recorded.tracing.start("x", kind, None).end()
    assert recorded.one().kind is expected


async def test_a_span_without_a_parent_starts_a_trace_whatever_is_current() -> None:
    recorded = Recorded(1.0)
    outer = recorded.tracing.start("outer", "consumer", None)
    outer.activate()
    recorded.tracing.start("inner", "consumer", None).end()
    assert recorded.one().parent is None
    outer.end()


async def test_what_is_active_is_the_parent_of_what_user_code_opens() -> None:
    """Each test has a task of its own, so nothing is left active."""
    recorded = Recorded(1.0)
    hop = recorded.tracing.start("process chat", "consumer", SAMPLED)
    hop.activate()
    recorded.provider.get_tracer("mine").start_span("query").end()
    span = recorded.one()
    assert f"{span.parent.span_id:016x}" == hop.parent.span_id
    hop.end()


def test_a_failure_is_in_its_span() -> None:
    recorded = Recorded(1.0)
    hop = recorded.tracing.start("process chat", "consumer", None)
    hop.fail(KeyError("x"))
    hop.end()
    span = recorded.one()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert span.attributes["error.type"] == "KeyError"
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(
    ("status", "broken", "code"),
    [
        (499, None, StatusCode.UNSET),
        (500, None, StatusCode.ERROR),
        (503, None, StatusCode.ERROR),
        (1008, False, StatusCode.UNSET),
        (4001, True, StatusCode.ERROR),
    ],
)
def test_what_is_refused_says_why_and_is_an_error_where_it_is_our_doing(
    status: int, broken: bool | None, code: StatusCode
) -> None:
    recorded = Recorded(1.0)
    hop = recorded.tracing.start("receive chat", "server", None)
    hop.refuse(status, broken)
    hop.end()
    span = recorded.one()
    assert (span.attributes["error.type"], span.status.status_code) == (str(status), code)


def test_a_span_has_events_and_links() -> None:
    recorded = Recorded(1.0)
    other = Traceparent("1" * 32, "2" * 16, True)
    hop = recorded.tracing.start("process chat", "consumer", None, links=[SAMPLED])
    hop.link(other)
    hop.event("first item", {"fairlead.item": 1}, 5)
    hop.end()
    span = recorded.one()
    linked = [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]
    assert linked == [f"{TRACE}-{SPAN}", f"{'1' * 32}-{'2' * 16}"]
    ((name, attributes, at),) = [(e.name, dict(e.attributes), e.timestamp) for e in span.events]
    assert (name, attributes, at) == ("first item", {"fairlead.item": 1}, 5)


def test_a_span_can_be_told_when_it_was() -> None:
    recorded = Recorded(1.0)
    recorded.tracing.start("nats n1", "internal", None, at=5).end(7)
    assert (recorded.one().start_time, recorded.one().end_time) == (5, 7)


def test_what_has_ended_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever learns last what came of a request ends its span; others need not know."""
    recorded = Recorded(1.0)
    hop = recorded.tracing.start("receive chat", "server", None)
    hop.end()
    hop.set("fairlead.run", "r")
    hop.event("late")
    hop.link(SAMPLED)
    hop.refuse(500)
    hop.fail(KeyError("x"))
    hop.end()
    span = recorded.one()
    assert (span.attributes, span.events, span.links) == ({"messaging.system": "nats"}, (), ())
    assert span.status.status_code is StatusCode.UNSET
    assert hop.span is None
    assert caplog.records == []


def test_a_block_ends_its_span_with_what_comes_of_it() -> None:
    recorded = Recorded(1.0)
    with recorded.tracing.start("fine", "producer", None).ending():
        pass
    with pytest.raises(KeyError), recorded.tracing.start("raised", "producer", None).ending():
        raise KeyError("x")
    with (
        pytest.raises(asyncio.CancelledError),
        recorded.tracing.start("cancelled", "producer", None).ending(),
    ):
        raise asyncio.CancelledError
    ended = {
        span.name: (span.status.status_code, (span.attributes or {}).get("error.type"))
        for span in recorded.exporter.get_finished_spans()
    }
    assert ended == {
        "fine": (StatusCode.UNSET, None),
        "raised": (StatusCode.ERROR, "KeyError"),
        "cancelled": (StatusCode.UNSET, "499"),
    }


async def test_what_is_followed_is_the_parent_also_in_tasks_and_threads_that_began_before() -> None:
    recorded = Recorded(1.0)
    mine = recorded.provider.get_tracer("mine")
    first = recorded.tracing.start("first", "consumer", None)
    second = recorded.tracing.start("second", "consumer", None)
    now: list[telemetry.Hop | None] = [first]
    telemetry.follow(lambda: now[0])
    turn = asyncio.Event()

    async def later() -> None:
        await turn.wait()
        await asyncio.to_thread(lambda: mine.start_span("in a thread").end())

    task = asyncio.ensure_future(later())
    mine.start_span("at first").end()
    now[0] = second
    turn.set()
    await task
    now[0] = None
    mine.start_span("of none").end()
    parents = {
        span.name: span.parent and f"{span.parent.span_id:016x}"
        for span in recorded.exporter.get_finished_spans()
    }
    assert parents == {
        "at first": first.parent.span_id,
        "in a thread": second.parent.span_id,
        "of none": None,
    }


def test_another_process_is_recorded_beside_ours() -> None:
    """As a service of its own, through the same exporter."""
    recorded = Recorded(1.0)
    server = recorded.tracing.beside("nats", "n1")
    server.start("nats n1", "internal", SAMPLED).end()
    span = recorded.one()
    named = [span.resource.attributes[f"service.{each}"] for each in ("name", "instance.id")]
    assert named == ["nats", "n1"]
    assert f"{span.parent.span_id:016x}" == SPAN


def test_shutdown_exports_what_is_left() -> None:
    ended: list[bool] = []
    recorded = Recorded(1.0)
    recorded.exporter.shutdown = lambda: ended.append(True)  # type: ignore[method-assign]
    recorded.tracing.shutdown()
    assert ended == [True]


# Ids


def test_what_is_not_sampled_still_has_an_id_to_be_found_by() -> None:
    one, other = telemetry.unsampled(), telemetry.unsampled()
    assert traceparent.parse(str(one)) == one
    assert not one.sampled
    assert one.trace_id != other.trace_id
    assert telemetry.logged(one) == {"trace_id": one.trace_id}
    assert telemetry.logged(None) == {}


def test_what_a_client_does_not_sample_keeps_the_clients_id() -> None:
    hop = telemetry.unsampled(UNSAMPLED)
    assert (hop.trace_id, hop.sampled) == (TRACE, False)
    assert hop.span_id != SPAN


@pytest.mark.parametrize(
    ("text", "parent"), [("", None), ("junk", None), (f"00-{TRACE}-{SPAN}-01", SAMPLED)]
)
def test_the_parent_that_a_peer_names(text: str, parent: Traceparent | None) -> None:
    assert telemetry.parent_of(text) == parent


@pytest.mark.parametrize(("text", "number"), [("", 100), ("250", 250), ("fast", 100), ("-1", 100)])
def test_a_number_that_is_none_leaves_the_default(text: str, number: int) -> None:
    assert telemetry._number({"OTEL_BSP_SCHEDULE_DELAY": text}, "OTEL_BSP_SCHEDULE_DELAY", 100) == (
        number
    )
