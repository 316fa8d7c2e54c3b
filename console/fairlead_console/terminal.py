"""The picture of a trace, as a terminal can show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from rich.console import Console
from rich.text import Text

from fairlead_console.parts import PARTS
from fairlead_console.pen import COLOURS, Column, Pen
from fairlead_console.waterfall import Row, Waterfall

CALLED = {"queue": "worker queue", "user": "user code", "slow": "slow socket"}
"""What a reader calls a part, where it has more than its one word."""

MOST_ROWS = 200

DEEPEST = 15
"""Steps to the right; what is deeper stands below."""

ID = 8
"""Digits of a trace's id that tell it from the others, in a list."""


def draw(console: Console, trace: Waterfall, zone: tzinfo | None = None) -> None:
    """Show a trace: its rows over time, and where the time went.

    Args:
        zone: of the times that are shown; None is the machine's own.
    """
    pen = Pen(console)
    failed = f"{pen.failed} " if trace["error"] else ""
    title = Text(failed + pen.clean(trace["name"]), "bold red" if failed else "bold")
    pen.wrapped([title, Text(_when(trace["start"], zone))], "  ")
    spans = _count(trace["spans"], "span")
    pen.wrapped([Text(trace["trace"], "dim"), Text(spans, "dim")], "  ")
    pen.line()
    _rows(pen, trace["rows"][:MOST_ROWS], trace["duration"])
    if len(trace["rows"]) > MOST_ROWS:
        pen.said(f"{len(trace['rows']) - MOST_ROWS} more rows; --json has them all", "dim")
    pen.line()
    _where_the_time_went(pen, trace)
    for note in trace["notes"]:
        pen.said(note, "italic")


def draw_list(
    console: Console, traces: Sequence[Mapping[str, Any]], zone: tzinfo | None = None
) -> None:
    """Show several traces, a line each.

    Args:
        traces: as `waterfall` makes them; their rows are not looked at.
    """
    pen = Pen(console)
    longest = max(trace["duration"] for trace in traces)
    failed = [f"{pen.failed} " if trace["error"] else "" for trace in traces]
    columns = [
        Column([trace["trace"][:ID] for trace in traces]),
        Column([_when(trace["start"], zone) for trace in traces], "dim", may_go=2),
        Column(
            [mark + pen.clean(trace["name"]) for mark, trace in zip(failed, traces, strict=True)],
            may_be_cut=True,
        ),
        Column([pen.duration(trace["duration"]) for trace in traces], right=True),
        Column([_mostly(trace["parts"]) for trace in traces], "dim", after=True, may_go=1),
    ]
    width = pen.fit(columns)
    for i, trace in enumerate(traces):
        share = trace["duration"] / longest if longest else 1.0
        bar = pen.stacked(trace["parts"], max(1, round(width * share)), width) if width else Text()
        pen.line(pen.cells(columns, i, bar, "red" if failed[i] else ""))
    pen.line()
    pen.said(f"fairlead trace {traces[0]['trace'][:ID]} shows one of them", "dim")


def _rows(pen: Pen, rows: Sequence[Row], whole: float) -> None:
    columns = [
        Column([_name(pen, row) for row in rows], may_be_cut=True),
        Column([_who(pen, row) for row in rows], "dim", may_go=3),
        Column([CALLED.get(row["part"], row["part"]) for row in rows], may_go=2),
        Column([pen.duration(row["duration"]) for row in rows], right=True, after=True),
        Column([pen.clean(_details(row)) for row in rows], "dim", after=True, may_go=1),
    ]
    width = pen.fit(columns)
    for i, row in enumerate(rows):
        start = row["start"] / whole if whole else 0.0
        end = (row["start"] + row["duration"]) / whole if whole else 1.0
        bar = pen.bar(start, end, width, row["part"]) if width else Text()
        style = "red" if row["error"] else COLOURS.get(row["part"], "")
        pen.line(pen.cells(columns, i, bar, style))


def _name(pen: Pen, row: Row) -> str:
    failed = f"{pen.failed} " if row["error"] else ""
    return "  " * min(row["depth"], DEEPEST) + failed + pen.clean(row["name"])


def _who(pen: Pen, row: Row) -> str:
    """`edge 1f0c22aa`; the service of others in full."""
    service = row["service"].removeprefix("fairlead-")
    return pen.clean(f"{service[:24]} {row['instance'][:8]}".strip())


def _details(row: Row) -> str:
    """What its attributes say that is out of the ordinary, or counts members."""
    said: list[str] = []
    of = row["attributes"].get
    if row["error"] or of("error.type"):
        said.append(f"error {of('error.type', '')}".strip())
    attempt = of("fairlead.attempt")
    if isinstance(attempt, int) and attempt > 1 and row["part"] == "user":
        said.append(f"attempt {attempt}")
    members = of("fairlead.members")
    if isinstance(members, int):
        said.append(_count(members, "member"))
    counts = {word: of(f"fairlead.{word}") for word in ("slow", "dropped", "late")}
    said += [
        f"{count} {word}" for word, count in counts.items() if isinstance(count, int) and count
    ]
    if any(event["name"] == "no worker" for event in row["events"]):
        said.append("no worker")
    if (reason := of("fairlead.reason")) and row["span"] is None:
        said.append(str(reason))
    said += [f"see {link['trace'][:ID]}" for link in row["links"][:1]]
    return ", ".join(said)


def _where_the_time_went(pen: Pen, trace: Waterfall) -> None:
    whole = trace["duration"]
    said = [Text(f"{pen.duration(whole)} in all", "bold")]
    shares = trace["parts"]
    for part in sorted(PARTS, key=lambda part: -shares.get(part, 0.0)):
        if share := shares.get(part, 0.0):
            words = f"{CALLED.get(part, part)} {pen.duration(share)} ({share / whole:.0%})"
            said.append(Text(words, COLOURS[part]))
    pen.wrapped(said, f" {pen.dot} ")


def _mostly(parts: Mapping[str, float]) -> str:
    whole = sum(parts.values())
    if not whole:
        return ""
    part = max(parts, key=lambda part: parts[part])
    return f"{CALLED.get(part, part)} {parts[part] / whole:.0%}"


def _when(start: int, zone: tzinfo | None) -> str:
    """The time of day, after the day unless it is today."""
    try:
        at = datetime.fromtimestamp(start / 1e9, zone)
    except (OverflowError, OSError, ValueError):
        return "?"  # no calendar has it
    clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
    return clock if at.date() == datetime.now(zone).date() else f"{at.date()} {clock}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
