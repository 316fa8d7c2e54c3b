"""From the spans of one trace to the rows and the parts of its picture. Pure.

A row is a span, or what can be seen only between spans: the time a message waited for its worker
(`queue`), was under way in NATS (`broker`), waited for sockets that do not keep up (`slow`), or
was with a worker that is gone (`attempt 1`).

The parts say where the time went, and add up to the whole. Each moment belongs to one: that of the
innermost row that covers it. What an edge does while it only waits for others (`receive`), and
what slow sockets take, counts while nothing else goes on. A moment of nobody's is `other`, as are
spans that are neither ours nor below a `process`: those of a client, for example.

Any set of spans makes a picture: parents that are missing (the client's own, or one of a process
that was killed), several roots, circles, equal ids, clocks that disagree (`clocks.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypedDict

from fairlead_console.clocks import Clock, clock, corrections
from fairlead_console.family import Family
from fairlead_console.parts import shares
from fairlead_console.rows import Draft, drafts
from fairlead_console.spans import Span

S = 1_000_000_000
"""ns in a second."""


class Row(TypedDict):
    """One line of the picture; times in seconds from the start of the trace.

    `span` is None for a row that is no span.
    """

    name: str
    part: str
    service: str
    instance: str
    depth: int
    start: float
    duration: float
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]
    error: bool
    span: str | None


class Waterfall(TypedDict):
    """The picture of one trace; `start` in ns since the epoch, `duration` in seconds.

    `notes` are sentences for a reader: what was moved, what is missing.
    """

    trace: str
    name: str
    start: int
    duration: float
    spans: int
    error: bool
    rows: list[Row]
    parts: dict[str, float]
    notes: list[str]


def waterfall(trace: str, spans: Iterable[Span], more: int = 0) -> Waterfall:
    """The picture of a trace.

    Args:
        spans: at least one.
        more: spans of the trace that are not here, since they were too many.
    """
    family = Family(spans)
    moved = corrections(family.ordered(), family.spans)
    if moved:
        family = Family(_moved(span, moved) for span in family.spans.values())
    rows = drafts(family)
    start = min(row.start for row in rows)
    end = max(row.end for row in rows)
    found = shares([row.stretch() for row in rows], start, end)
    return {
        "trace": trace,
        "name": _name(family),
        "start": max(0, start),
        "duration": (end - start) / S,
        "spans": len(family.spans) + more,
        "error": any(span.error for span in family.spans.values()),
        "rows": [_shown(row, start) for row in rows],
        "parts": {part: ns / S for part, ns in found.items()},
        "notes": [*_of_clocks(moved), *_of_what_is_missing(rows, more)],
    }


def _moved(span: Span, moved: Mapping[Clock, int]) -> Span:
    by = moved.get(clock(span), 0)
    events = tuple(replace(event, time=event.time + by) for event in span.events)
    return replace(span, start=span.start + by, end=span.end + by, events=events) if by else span


def _name(family: Family) -> str:
    """Of the message, if there is one, whoever's span it came in."""
    ours = (span for span in family.ordered() if span.operation)
    return next(ours, family.roots[0]).name


def _shown(row: Draft, zero: int) -> Row:
    span = row.span
    return {
        "name": row.name,
        "part": row.part,
        "service": row.origin.service,
        "instance": row.origin.instance,
        "depth": row.depth,
        "start": (row.start - zero) / S,
        "duration": (row.end - row.start) / S,
        "attributes": dict(span.attributes if span else row.attributes),
        "events": [
            {
                "name": event.name,
                "time": (event.time - zero) / S,
                "attributes": dict(event.attributes),
            }
            for event in (span.events if span else ())
        ],
        "links": [
            {"trace": link.trace, "span": link.span, "attributes": dict(link.attributes)}
            for link in (span.links if span else ())
        ],
        "error": span.error if span else False,
        "span": span.id if span else None,
    }


def _of_clocks(moved: Mapping[Clock, int]) -> Iterator[str]:
    for (service, instance), by in moved.items():
        who = " ".join(word for word in (service, instance) if word) or "a process"
        direction, where = ("behind", "later") if by > 0 else ("ahead", "earlier")
        amount = f"{abs(by) / 1e6:.4g} ms"
        yield (
            f"the clock of {who} is {amount} or more {direction}; "
            f"what it did is shown {amount} {where}"
        )


def _why(row: Draft) -> str:
    reason = row.attributes.get("fairlead.reason")
    if not reason:
        return "its worker was killed or hung, or what it recorded has not arrived"
    who = f" of worker {row.origin.instance}" if row.origin.instance else ""
    return f"{reason}{who}"


def _of_what_is_missing(rows: Iterable[Draft], more: int) -> Iterator[str]:
    for row in rows:
        if row.lost:
            yield f"{row.name} left no span: {_why(row)}"
    if more:
        yield f"{more} more spans were not kept"
