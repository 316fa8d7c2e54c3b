"""From what a real Jaeger answered: answers/jaeger-search.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fairlead_console import jaeger
from fairlead_console.spans import Event, Link, Span
from support.spans import TRACE, chat
from support.tracestores import ANSWERS

LOST = "0af7651916cd43dd8448eb211c80319c"


def recorded() -> dict[str, list[Span]]:
    return dict(jaeger.traces(json.loads((ANSWERS / "jaeger-search.json").read_text())))


def placed(spans: list[Span]) -> list[Span]:
    """By id, from 0 on, ids as short as those of `chat`."""
    zero = min(span.start for span in spans)
    made = [
        replace(
            span, id=span.id.lstrip("0"), parent=span.parent.lstrip("0"), start=span.start - zero,
            end=span.end - zero, events=(),
        )
        for span in spans
    ]  # fmt: skip
    return sorted(made, key=lambda span: span.id)


def test_spans_come_back_as_they_were_sent() -> None:
    assert placed(recorded()[TRACE]) == placed(chat())


def test_events_and_links() -> None:
    spans = {span.name: span for trace in recorded().values() for span in trace if span.parent}
    (process,) = [span for span in recorded()[TRACE] if span.operation == "process"]
    assert process.events == (Event("first item", process.start + 1_000_000, {"n": 1}),)
    assert spans["process rooms.{room}"].links == (Link(LOST, "b7ad6b7169203331"),)


def test_errors() -> None:
    assert {span.id[-2:] for span in recorded()[LOST] if span.error} == {"a1", "b1"}


def one(**span: Any) -> Span:
    whole = {
        "traceID": "ABC", "spanID": "D", "operationName": "x", "startTime": 5, "duration": 7,
        "processID": "p1", **span,
    }  # fmt: skip
    found = {"data": [{"traceID": "ABC", "spans": [whole], "processes": {}}]}
    ((trace, (made,)),) = jaeger.traces(found)
    assert trace == "abc".rjust(32, "0")
    return made


def test_what_may_be_left_out() -> None:
    """Zeros at the beginning of ids, lists that are empty, a process that is not named."""
    assert one() == Span("d".rjust(16, "0"), "", "x", 5000, 12000)
    assert one(tags=None, logs=None, references=None) == one()


def test_the_old_way_to_name_a_parent() -> None:
    assert one(parentSpanID="e").parent == "e".rjust(16, "0")


def test_a_child_of_another_trace_is_linked() -> None:
    made = one(references=[{"refType": "CHILD_OF", "traceID": "1", "spanID": "2"}])
    assert (made.parent, made.links) == ("", (Link("1".rjust(32, "0"), "2".rjust(16, "0")),))


def test_no_traces() -> None:
    assert jaeger.traces({"data": None}) == jaeger.traces({"data": []}) == jaeger.traces([]) == []
