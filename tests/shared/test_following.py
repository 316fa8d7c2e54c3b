"""A span that stands for the one of the message that a long run works on just now."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN_CONTEXT, StatusCode

from fairlead.following import Following
from fairlead.telemetry import Hop

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("t")


def opened() -> tuple[Hop, Any]:
    span = TRACER.start_span("process chat")
    return Hop(span), span


def test_it_is_whatever_is_worked_on() -> None:
    (first, one), (second, other) = opened(), opened()
    now: list[Hop | None] = [first]
    following = Following(lambda: now[0])
    assert following.get_span_context() == one.get_span_context()
    assert following.is_recording()
    now[0] = second
    assert following.get_span_context() == other.get_span_context()


def test_between_two_messages_it_is_none() -> None:
    hop, _ = opened()
    for nothing in (Following(lambda: None), Following(lambda: hop)):
        hop.end()
        assert nothing.get_span_context() == INVALID_SPAN_CONTEXT
        assert not nothing.is_recording()
        nothing.set_attribute("a", 1)


def test_what_user_code_says_of_it_is_said_of_that_one() -> None:
    """`trace.get_current_span().set_attribute(…)` in the run of a connection."""
    hop, span = opened()
    linked = opened()[1].get_span_context()
    following = Following(lambda: hop)
    following.set_attribute("a", 1)
    following.set_attributes({"b": 2})
    following.add_event("seen", {"c": 3}, 5)
    following.add_link(linked)
    following.update_name("mine")
    following.set_status(StatusCode.ERROR, "so")
    following.record_exception(KeyError("x"))
    assert (dict(span.attributes), span.name) == ({"a": 1, "b": 2}, "mine")
    assert [event.name for event in span.events] == ["seen", "exception"]
    assert [link.context for link in span.links] == [linked]
    assert span.status.description == "so"


def test_user_code_does_not_end_it() -> None:
    hop, span = opened()
    Following(lambda: hop).end()
    assert span.is_recording()
