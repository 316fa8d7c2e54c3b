"""What a worker records of one execution; the whole of it, from real processes: tests/system."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.manifest import Route
from fairlead.telemetry import Tracing
from fairlead_worker import spans
from fairlead_worker.spans import PUBLICATIONS, Processing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
ROUTE = Route("support", "chat", "Support/chat", "websocket", "/chat", (), topic="rooms.{room}")


@dataclass
class Run:
    """What is executed."""

    attempt: int = 1
    route: Route = ROUTE
    topic: str = "rooms.blue"
    channel: str = "-"
    connection: str = "e1-1"
    run_id: str = "e1-1-3"


@dataclass
class Recorded:
    """A Tracing whose spans stay here."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider, provider.get_tracer("t"), 1.0)

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def process(self, work: Work, run: Run | None = None, **more: str) -> Processing | None:
        return spans.process(self.tracing, run or Run(), work, **more)

    def processed(self, work: Work, run: Run | None = None, **more: str) -> Any:
        """The span of it."""
        found = self.process(work, run, **more)
        assert found is not None
        found.end()
        return self.spans[-1]


def work(kind: Kind = Kind.MESSAGE, trace: str = SAMPLED, **more: Any) -> Work:
    return Work(kind, DataType.TEXT, b"hello", trace=trace, **more)


@pytest.mark.parametrize("trace", ["", "junk", SAMPLED[:-1] + "0"])
def test_what_is_not_sampled_is_not_recorded(trace: str) -> None:
    assert Recorded().process(work(trace=trace)) is None


def test_what_a_message_is_said_to_be() -> None:
    span = Recorded().processed(work(id="m-1", sent=time.time() - 5))
    assert (span.name, span.parent.span_id) == ("process rooms.{room}", int(SPAN, 16))
    attributes = dict(span.attributes)
    assert 5 <= attributes.pop("fairlead.queue.wait") < 6
    assert attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": "rooms.{room}",
        "messaging.message.body.size": 5,
        "messaging.message.id": "m-1",
        "fairlead.workflow": "Support/chat",
        "fairlead.connection": "e1-1",
        "fairlead.run": "e1-1-3",
        "fairlead.attempt": 1,
        "fairlead.kind": "message",
    }
    assert span.links == ()


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.REOPEN, Kind.CHECK, Kind.ADMIT])
def test_the_id_of_what_is_no_message_is_nobodys_business(kind: Kind) -> None:
    """It is a run's token there, or its id."""
    attributes = Recorded().processed(work(kind, id="token")).attributes
    assert "messaging.message.id" not in attributes
    assert attributes["fairlead.kind"] == kind.name.lower()
    assert ("fairlead.run" in attributes) == (kind in (Kind.OPEN, Kind.REOPEN))


def test_nobody_waited_for_what_was_sent_at_no_time() -> None:
    assert "fairlead.queue.wait" not in Recorded().processed(work(sent=0.0)).attributes
    assert "fairlead.queue.wait" not in Recorded().processed(work(sent=1.0), kind="run").attributes


def test_another_attempt_links_to_the_one_before_or_else_to_the_beginning() -> None:
    recorded, previous = Recorded(), f"00-{TRACE}-{'3' * 16}-01"
    for known, linked in ((previous, "3" * 16), ("", SPAN)):
        span = recorded.processed(work(), Run(attempt=2), previous=known)
        assert [f"{link.context.span_id:016x}" for link in span.links] == [linked]


def test_of_the_items_of_a_stream_the_first_and_the_last_are_events() -> None:
    recorded = Recorded()
    processing = recorded.process(work())
    assert processing is not None
    for _ in range(5):
        processing.said()
    processing.end()
    (span,) = recorded.spans
    first, last = span.events
    assert (first.name, dict(first.attributes)) == ("first item", {"fairlead.item": 1})
    assert (last.name, dict(last.attributes)) == ("last item", {"fairlead.item": 5})
    assert span.start_time <= first.timestamp <= last.timestamp <= span.end_time


def test_of_what_it_says_to_a_room_so_much_has_spans_and_the_rest_is_counted() -> None:
    recorded, run = Recorded(), Run()
    processing = recorded.process(work())
    assert processing is not None
    made = [processing.publish(run, 5, direct=False) for _ in range(PUBLICATIONS + 2)]
    assert [hop is not None for hop in made] == [True] * PUBLICATIONS + [False] * 2
    processing.end()
    assert recorded.spans[-1].attributes["fairlead.untraced"] == 2


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [(None, "404", StatusCode.UNSET), (ValueError("x"), "ValueError", StatusCode.ERROR)],
)
def test_how_it_failed(error: Exception | None, said: str, code: StatusCode) -> None:
    recorded = Recorded()
    processing = recorded.process(work())
    assert processing is not None
    processing.failed(404, error)
    processing.end()
    (span,) = recorded.spans
    assert (span.attributes["error.type"], span.status.status_code) == (said, code)


@pytest.mark.parametrize("direct", [False, True])
def test_what_is_published_is_said_to_be(direct: bool) -> None:
    recorded = Recorded()
    spans.publish(recorded.tracing, Run(attempt=2), None, 5, direct).end()
    (span,) = recorded.spans
    expected = {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": "rooms.{room}",
        "messaging.destination.name": "rooms.blue" if direct else "rooms.blue.-",
        "messaging.message.body.size": 5,
        "fairlead.workflow": "Support/chat",
        "fairlead.attempt": 2,
    }
    assert dict(span.attributes) == expected | ({"fairlead.direct": True} if direct else {})
    assert (span.name, span.parent) == ("publish rooms.{room}", None)


def test_a_rooms_run_that_raised_is_a_trace_of_its_own() -> None:
    recorded = Recorded()
    broken = spans.broken(recorded.tracing, Run())
    broken.failed(500, RuntimeError("x"))
    broken.end()
    (span,) = recorded.spans
    assert (span.name, span.parent) == ("process rooms.{room}", None)
    assert span.attributes["fairlead.kind"] == "room"
    assert span.attributes["error.type"] == "RuntimeError"
