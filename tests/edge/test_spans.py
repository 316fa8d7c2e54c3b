"""What an edge records of its clients; the whole of it, from real processes: tests/system."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import Route
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Tracing
from fairlead.testing.waiting import until
from fairlead_edge import spans
from fairlead_edge.admission import Left, Refused
from fairlead_edge.ring import Budget
from fairlead_edge.room import Room, RoomMessage
from fairlead_edge.spans import LINKS, Connected, Spans, ending
from fairlead_edge.tally import TopicTally

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = Traceparent(TRACE, "b7ad6b7169203331", True)
ROUTE = Route("support", "chat", "Support/chat", "websocket", "/chat", (), topic="chat")


@dataclass
class Client:
    """Who is connected."""

    id: str = "e1-1"
    route: Route = ROUTE


@dataclass
class Recorded:
    """Spans that stay here."""

    ratio: float = 1.0
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider, provider.get_tracer("t"), self.ratio)
        self.spans = Spans(self.tracing)

    @property
    def all(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def one(self) -> Any:
        (span,) = self.all
        return span


def room() -> Room:
    return Room("fl.a.log.chat.blue", "chat", "chat", "blue", None, Budget(), "", TopicTally())


def origin(number: int, flags: str = "01") -> str:
    """The traceparent of a message."""
    return f"00-{number + 1:032x}-{1:016x}-{flags}"


# Whether


def test_what_is_not_sampled_is_nothing() -> None:
    recorded = Recorded(ratio=0)
    assert recorded.spans.receive(ROUTE, "e1-1", None, 5) is None
    assert recorded.spans.connect(ROUTE, "e1-1", None, "raw") is None
    assert recorded.spans.receive(ROUTE, "e1-1", PARENT._replace(sampled=False), 5) is None
    assert recorded.all == []


@pytest.mark.parametrize("came_with", ["", "junk", origin(1, "00")])
async def test_a_rooms_message_without_a_sampled_trace_is_delivered_without_one(
    came_with: str,
) -> None:
    """Whatever any NATS client has put into the header."""
    recorded = Recorded()
    assert recorded.spans.deliver(room(), came_with, b"x", False) == ("", None)
    assert recorded.spans.direct("chat", "chat", came_with, 1) == ("", None)
    assert recorded.all == []


# Delivering


async def test_deliver_is_over_when_its_watch_is() -> None:
    recorded = Recorded()
    trace, watch = recorded.spans.deliver(room(), origin(1), b"hello", redelivered=True)
    assert watch is not None
    watch.queued(slow=True)
    watch.given(7, True)
    watch.shown()
    assert recorded.all == []
    watch.lost(slow=True)
    span = recorded.one()
    attributes = dict(span.attributes)
    assert 0 <= attributes.pop("fairlead.written") < 1
    assert attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "deliver",
        "messaging.operation.type": "receive",
        "messaging.destination.template": "chat",
        "messaging.destination.name": "chat.blue",
        "messaging.message.body.size": 5,
        "fairlead.redelivered": True,
        "fairlead.members": 1,
        "fairlead.slow": 1,
        "fairlead.bytes": 7,
        "fairlead.coalesced": 1,
        "fairlead.dropped": 1,
    }
    assert trace == f"00-{2:032x}-{span.context.span_id:016x}-01"


async def test_deliver_ends_without_those_who_do_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what comes of them later changes nothing."""
    monkeypatch.setattr(spans, "DELIVERED_WITHIN", 0.01)
    recorded = Recorded()
    _, watch = recorded.spans.deliver(room(), origin(1), b"hello", False)
    assert watch is not None
    watch.queued(slow=True)
    watch.given(7, True)
    watch.shown()
    await until(lambda: recorded.all, "the span has ended")
    watch.wrote(slow=True)
    assert recorded.one().attributes["fairlead.late"] == 1


# Closing


@pytest.mark.parametrize(
    ("code", "error", "status"),
    [
        (1000, None, StatusCode.UNSET),
        (1001, None, StatusCode.UNSET),
        (1005, None, StatusCode.UNSET),
        (1006, None, StatusCode.UNSET),
        (1012, None, StatusCode.UNSET),
        (1008, "1008", StatusCode.UNSET),
        (4501, "4501", StatusCode.UNSET),
        (1011, "1011", StatusCode.ERROR),
        (1013, "1013", StatusCode.ERROR),
        (4001, "4001", StatusCode.ERROR),
        (4003, "4003", StatusCode.ERROR),
    ],
)
async def test_the_end_of_a_connection(code: int, error: str | None, status: StatusCode) -> None:
    recorded = Recorded()
    connected = Connected(PARENT)
    connected.received = 3
    recorded.spans.close(Client(), connected, code)
    span = recorded.one()
    assert (span.name, span.parent) == ("close chat", None)
    assert [link.context.trace_id for link in span.links] == [int(TRACE, 16)]
    assert span.attributes["fairlead.close.code"] == code
    assert span.attributes["fairlead.received"] == 3
    assert (span.attributes.get("error.type"), span.status.status_code) == (error, status)


@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [
        (None, None, StatusCode.UNSET),
        (404, "404", StatusCode.UNSET),
        (503, "503", StatusCode.ERROR),
        (4001, "4001", StatusCode.ERROR),
    ],
)
async def test_the_end_of_an_event_stream(
    failure: int | None, error: str | None, status: StatusCode
) -> None:
    recorded = Recorded()
    recorded.spans.end(Client(), Connected(PARENT), failure)
    span = recorded.one()
    assert (span.name, span.parent) == ("close chat", None)
    assert "fairlead.close.code" not in span.attributes
    assert (span.attributes.get("error.type"), span.status.status_code) == (error, status)


# Replaying


def messages(*origins: str, hidden: bool = False) -> list[RoomMessage]:
    return [
        RoomMessage(DataType.TEXT, b"x", hidden=hidden, origin=each, trace="of its delivery")
        for each in origins
    ]


def test_a_replay_links_to_each_trace_once_and_to_so_many() -> None:
    recorded = Recorded()
    replaying = recorded.spans.replay(ROUTE, "e1-1", PARENT)
    sent = replaying.sent(messages("", "junk", origin(0), origin(0), origin(1, "00")))
    replaying.sent(messages(*map(origin, range(1, 50))))
    replaying.sent(messages("", hidden=True))
    replaying.end()
    span = recorded.one()
    linked = [link.context.trace_id for link in span.links]
    assert linked == list(range(1, LINKS + 1))
    assert span.attributes["fairlead.messages"] == 5 + 49, "a hidden one is shown to nobody"
    assert {message.trace for message in sent} == {f"00-{TRACE}-{span.context.span_id:016x}-01"}


def test_a_replay_of_several_rooms_ends_with_the_last_of_them() -> None:
    recorded = Recorded()
    replaying = recorded.spans.replay(ROUTE, "e1-1", PARENT, rooms=2)
    replaying.end()
    assert recorded.all == []
    replaying.end(4003)
    span = recorded.one()
    assert (span.attributes["error.type"], span.status.status_code) == ("4003", StatusCode.ERROR)


# A request


@pytest.mark.parametrize(
    ("raised", "error", "status"),
    [
        (Refused(403, "no"), "403", StatusCode.UNSET),
        (Refused(503, "no worker"), "503", StatusCode.ERROR),
        (Left(), "499", StatusCode.UNSET),
        (asyncio.CancelledError(), "499", StatusCode.UNSET),
        (RuntimeError("x"), "RuntimeError", StatusCode.ERROR),
    ],
)
def test_what_comes_of_a_request_is_in_its_span(
    raised: BaseException, error: str, status: StatusCode
) -> None:
    recorded = Recorded()
    with pytest.raises(type(raised)), ending(recorded.spans.connect(ROUTE, "e1-1", None, "raw")):
        raise raised
    span = recorded.one()
    assert (span.attributes["error.type"], span.status.status_code) == (error, status)
    refused = isinstance(raised, Refused)
    assert ("http.response.status_code" in span.attributes) == refused


def test_a_request_that_is_answered_or_not_sampled_says_nothing() -> None:
    recorded = Recorded()
    with ending(None):
        pass
    with ending(recorded.spans.connect(ROUTE, "e1-1", None, "raw")):
        pass
    assert "error.type" not in recorded.one().attributes
