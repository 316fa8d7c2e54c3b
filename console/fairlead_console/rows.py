"""The rows of a picture: the spans of a trace, and what can be seen only between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_console.family import Family
from fairlead_console.parts import OTHER, Layer, Stretch
from fairlead_console.spans import NOBODY, Event, Origin, Span

PART_OF = {
    "receive": "edge",
    "deliver": "edge",
    "connect": "edge",
    "close": "edge",
    "replay": "edge",
    "process": "user",
    "publish": "broker",
    "nats": "broker",
}


ASKERS = frozenset({"receive", "connect"})
"""Spans of an edge that asks a worker, again if need be."""


@dataclass(slots=True)
class Draft:
    """One row; times in ns since the epoch.

    Attributes:
        span: None where there is none.
        children: spans below it.
        user: whether those are of user code, unless they are ours.
        working: where its part ends, if before its end.
        place: where it stands among its siblings.
        lost: an attempt without a span.
    """

    name: str
    part: str
    start: int
    end: int
    place: int
    layer: Layer = Layer.WORKS
    origin: Origin = NOBODY
    span: Span | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    children: Sequence[Span] = ()
    user: bool = False
    working: int | None = None
    lost: bool = False
    depth: int = 0

    def stretch(self) -> Stretch:
        end = self.end if self.working is None else self.working
        return Stretch(self.start, end, self.part, self.layer, self.depth)


def drafts(family: Family) -> list[Draft]:
    """All rows from top to bottom, each below its parent, siblings in the order of their start."""
    lost = {span.id: _lost_attempts(span, family) for span in family.ordered()}
    groups = _adrift(family)
    adrift = {span.id for group in groups.values() for span in group}
    top = [root for root in family.roots if root.id not in adrift]
    for span in family.ordered(top):
        for row in lost[span.id]:
            _adopt(row, groups)
    first = _rows(top, None, False, family) + [_missing(group) for group in groups.values()]
    made: list[Draft] = []
    left = sorted(first, key=_place)[::-1]
    while left:
        row = left.pop()
        made.append(row)
        below = _rows(row.children, row.span, row.user, family)
        if row.span is not None:
            below += lost[row.span.id]
        for each in below:
            each.depth = row.depth + 1
        left += sorted(below, key=_place)[::-1]
    return made


def _place(row: Draft) -> int:
    return row.place


def _rows(spans: Iterable[Span], parent: Span | None, user: bool, family: Family) -> list[Draft]:
    """The rows of siblings; what is seen before a span stands before it."""
    made: list[Draft] = []
    for span in spans:
        row = _row(span, user, family)
        between = _between(span, parent)
        if between is not None:
            row.place = between.place
            made.append(between)
        made.append(row)
    if parent is not None and (slow := _slow(parent)) is not None:
        made.append(slow)
    return made


def _row(span: Span, user: bool, family: Family) -> Draft:
    operation = span.operation
    part = PART_OF.get(operation) or ("user" if user else OTHER)
    slow = _slow(span)
    return Draft(
        name=span.name,
        part=part,
        start=span.start,
        end=max(span.start, span.end),
        place=span.start,
        layer=Layer.WAITS if operation in ASKERS or part == OTHER else Layer.WORKS,
        origin=span.origin,
        span=span,
        children=family.children(span),
        user=operation == "process" or (user and not operation),
        working=slow.start if slow else None,
    )


def _between(span: Span, parent: Span | None) -> Draft | None:
    """What happened before a span, and after whoever caused it."""
    if span.operation == "process":
        wait = _number(span, "fairlead.queue.wait")
        since = span.start - round(wait * 1e9)
        if parent is not None and parent.operation in ASKERS:
            since = max(since, min(parent.start, span.start))
        return Draft("queue", "queue", since, span.start, since) if since < span.start else None
    published = parent if parent is not None and parent.operation == "publish" else None
    if span.operation == "deliver" and published is not None and published.start < span.start:
        return Draft("broker", "broker", published.start, span.start, span.start)
    return None


def _slow(span: Span) -> Draft | None:
    """What a delivery took for those who do not keep up, after all others had it."""
    if span.operation != "deliver" or "fairlead.written" not in span.attributes:
        return None
    since = span.start + round(_number(span, "fairlead.written") * 1e9)
    if since >= span.end or not _number(span, "fairlead.slow"):
        return None
    return Draft("slow", "slow", since, span.end, since, Layer.SLOW, span.origin)


def _lost_attempts(asker: Span, family: Family) -> list[Draft]:
    """Those of an edge's attempts that no span tells of, from what was known before them on."""
    if asker.operation not in ASKERS:
        return []
    known: dict[int, Span] = {}
    for span in family.children(asker):
        if span.operation == "process" and (attempt := int(_number(span, "fairlead.attempt"))):
            known.setdefault(attempt, span)
    told = {
        int(_number(event, "fairlead.attempt")): event
        for event in asker.events
        if event.name == "attempt lost"
    }
    last = max([int(_number(asker, "fairlead.attempt")), *known])
    rows: list[Draft] = []
    first, since = 1, asker.start
    for attempt in [*sorted(known), last + 1]:
        following = known.get(attempt)
        until = asker.end if following is None else _sent(following)
        for row in _between_attempts(range(first, attempt), since, max(since, until), told):
            rows.append(row)
            since = row.end
        first = attempt + 1
        since = (
            max(since, until) if following is None else max(since, min(following.end, asker.end))
        )
    return rows


def _between_attempts(
    lost: range, since: int, until: int, told: Mapping[int, Event]
) -> Iterator[Draft]:
    """A row for each lost attempt whose end the edge told, and one for all others."""
    first = lost.start
    for attempt in sorted(attempt for attempt in told if attempt in lost):
        event = told[attempt]
        end = min(max(since, event.time), until)
        yield _lost(first, attempt, since, end, event.attributes)
        first, since = attempt + 1, end
    if first < lost.stop:
        yield _lost(first, lost.stop - 1, since, until, {})


def _lost(first: int, last: int, start: int, end: int, attributes: Mapping[str, Any]) -> Draft:
    worker = str(attributes.get("fairlead.worker") or "")
    return Draft(
        f"attempt {first}" if first == last else f"attempts {first}-{last}",
        OTHER,
        start,
        end,
        start,
        origin=Origin("fairlead-worker", worker) if worker else NOBODY,
        attributes=attributes,
        user=True,
        lost=True,
    )


def _sent(process: Span) -> int:
    """When the edge gave the attempt to NATS."""
    return process.start - round(_number(process, "fairlead.queue.wait") * 1e9)


def _adrift(family: Family) -> dict[str, list[Span]]:
    """Spans whose parent was never sent, by that parent.

    The parent of the very first is its client's, and nobody misses it.
    """
    groups: dict[str, list[Span]] = {}
    for root in family.roots:
        if root.parent and root.parent not in family.spans:
            groups.setdefault(root.parent, []).append(root)
    groups.pop(family.roots[0].parent, None)
    return groups


def _adopt(row: Draft, groups: dict[str, list[Span]]) -> None:
    """Put under a lost attempt what it did send before it was killed."""
    for parent, group in list(groups.items()):
        if all(row.start <= span.start <= row.end for span in group):
            row.children = groups.pop(parent)
            return


def _missing(group: Sequence[Span]) -> Draft:
    start = min(span.start for span in group)
    end = max(span.end for span in group)
    return Draft(
        "a span that is not here", OTHER, start, max(start, end), start, Layer.WAITS,
        children=group,
    )  # fmt: skip


def _number(of: Span | Event, attribute: str) -> float:
    """An attribute of ours; 0 where it is missing, or nonsense."""
    value = of.attributes.get(attribute)
    if not isinstance(value, int | float) or value != value:
        return 0.0
    return min(max(0.0, float(value)), 1e9)
