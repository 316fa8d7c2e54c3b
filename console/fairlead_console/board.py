"""How all stands, as a terminal can show it: the picture of `fleet.py` in as many lines as there are.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


class Column(NamedTuple):
    """One of a table.

    Attributes:
        text: of a cell. style: of it, if it is to be seen. right: whether it is a number.
        goes: where the terminal is narrow the highest goes first; 0 stays, and may be cut.
    """

    heading: str
    text: Callable[[Row], str]
    right: bool = True
    style: Callable[[Row], str] = lambda row: ""
    goes: int = 0


class Section(NamedTuple):
    """A table of a picture. in_all: where the picture has how many there are, if it shows a part."""

    title: str
    rows: str
    columns: Sequence[Column]
    in_all: str = ""


SOME = 10
"""Rows of a table where there is no terminal that has an end."""

GAP = 2
"""Between two columns."""

LATE, SLOW_NATS = 0.1, 0.1
"""Seconds of a loop's lag, and of a round trip to NATS, that are worth a look."""


def draw(picture: Row, console: Console, height: int | None, zone: tzinfo | None = None) -> Group:
    """All of a picture that has its place in so many lines.

    Args:
        height: lines; None gives each table SOME rows.
        zone: of the times that are shown; None is the machine's own.
    """
    parts: list[RenderableType] = [*_head(picture, zone)]
    shown = [each for each in _SECTIONS if picture[each.rows] or each.rows in ("edges", "workers")]
    wanted = [len(picture[section.rows]) for section in shown]
    # A title, a line of headings and an empty line each; one line more says what has no place.
    given = [SOME] * len(shown) if height is None else share(height - 3 - 4 * len(shown), wanted)
    for section, rows in zip(shown, given, strict=True):
        parts += _table(section, picture, rows, console)
    return Group(*parts)


def share(lines: int, wanted: Sequence[int]) -> list[int]:
    """Give out lines: to those that want few what they want, to the others as much each."""
    given = [0] * len(wanted)
    lines = max(0, lines)
    for left, index in zip(
        range(len(wanted), 0, -1), sorted(range(len(wanted)), key=wanted.__getitem__), strict=True
    ):
        given[index] = min(wanted[index], -(-lines // left))
        lines -= given[index]
    return given


def _head(picture: Row, zone: tzinfo | None) -> list[Text]:
    nats = picture["nats"]
    there = Text("connected", "green") if nats["connected"] else Text("away", "bold red")
    at = datetime.fromtimestamp(picture["at"], zone).strftime("%H:%M:%S")
    edges, workers = picture["edges"], picture["workers"]
    title = Text.assemble(
        ("fairlead ", "bold"), (clean(picture["app"]), "bold"), f"  {at}  NATS ",
        clean(nats["server"]), " ", there,
    )  # fmt: skip
    told = [
        (sum(edge["websockets"] for edge in edges), "websockets"),
        (sum(edge["streams"] for edge in edges), "streams"),
        (_rates(edges, "received"), "in/s"),
        (_rates(edges, "deliveries", "sent"), "out/s"),
        (_rates(workers, "done"), "done/s"),
    ]
    totals = Text("  ".join(f"{_number(value)} {name}" for value, name in told))
    for name, value in (("failed/s", _rates(workers, "failed")), ("lost/s", _rates(edges, "lost"))):
        if value:
            totals.append(f"  {_number(value)} {name}", "bold red")
    return [title, totals, Text()]


def _table(section: Section, picture: Row, rows: int, console: Console) -> list[RenderableType]:
    found: Sequence[Row] = picture[section.rows]
    in_all = picture[section.in_all] if section.in_all else len(found)
    title = Text.assemble((section.title, "bold"), (f"  {in_all:,}", "dim"))
    if not found:
        return [title, Text("none answers", "red"), Text()]
    if not rows:
        return [title, Text("no room for them here", "dim"), Text()]
    read = [{"now": picture["at"], **row} for row in found[:rows]]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    columns = _fitting(section.columns, read, console.width)
    for column in columns:
        table.add_column(
            column.heading, justify="right" if column.right else "left", no_wrap=True,
            overflow="crop" if console.options.ascii_only else "ellipsis",
        )  # fmt: skip
    for row in read:
        table.add_row(*(Text(clean(c.text(row)), c.style(row)) for c in columns))
    more = max(0, in_all - rows)
    rest = [Text(f"{more:,} more", "dim")] if more and len(found) > rows else []
    return [title, table, *rest, Text()]


def _fitting(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """Those that have their place in so many columns of the terminal."""
    widths = {
        column: GAP + max(map(cell_len, [column.heading, *(column.text(row) for row in rows)]))
        for column in columns
    }
    while sum(widths.values()) - GAP > width:
        last = max(widths, key=lambda column: column.goes)
        if not last.goes:
            break
        del widths[last]
    return list(widths)


def clean(text: str) -> str:
    """Text of others without what would move the cursor or change the colours."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _rates(processes: Sequence[Row], *names: str) -> float:
    return sum(float(process["rates"].get(name, 0.0)) for process in processes for name in names)


def _rate(*names: str) -> Callable[[Row], str]:
    return lambda row: _number(_rates([row], *names))


def _number(value: float) -> str:
    if value and value < 10:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:,.0f}"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{minutes} min" if hours < 1 else f"{hours} h {minutes % 60} min"


def _state(process: Row) -> str:
    if process["draining"]:
        return "drains"
    reasons = process["reasons"]
    return "ready" if process["ready"] else reasons[0] if reasons else "not ready"


def _state_style(process: Row) -> str:
    return "yellow" if process["draining"] else "green" if process["ready"] else "bold red"


def _more_than(name: str, limit: float) -> Callable[[Row], str]:
    return lambda row: "bold red" if (row[name] or 0) > limit else ""


def _in_hand(kind: int) -> Callable[[Row], str]:
    return lambda worker: f"{worker['in_hand'][kind]}/{worker['limits'][kind]}"


def _full(kind: int) -> Callable[[Row], str]:
    return lambda worker: "yellow" if 0 < worker["limits"][kind] <= worker["in_hand"][kind] else ""


_VITALS = (
    Column("lag", lambda p: _seconds(p["lag"]), style=_more_than("lag", LATE), goes=3),
    Column("NATS", lambda p: _seconds(p["rtt"]), style=_more_than("rtt", SLOW_NATS), goes=7),
    Column("memory", lambda p: _bytes(p["memory"]), goes=9),
    Column("up", lambda p: _age(max(0.0, p["now"] - p["started"])), goes=8),
)

_SECTIONS = (
    Section(
        "Edges", "edges",
        (
            Column("id", lambda e: e["id"], right=False),
            Column("host", lambda e: e["host"], right=False, goes=6),
            Column("state", _state, right=False, style=_state_style),
            Column("ws", lambda e: f"{e['websockets']:,}"),
            Column("sse", lambda e: f"{e['streams']:,}", goes=2),
            Column("rooms", lambda e: f"{e['rooms_in_all']:,}", goes=4),
            Column("in/s", _rate("received")),
            Column("out/s", _rate("deliveries", "sent"), goes=1),
            Column("slow", lambda e: f"{e['slow_in_all']:,}", goes=3),
            Column("waits", lambda e: _bytes(e["buffered"]), goes=5),
            *_VITALS,
        ),
    ),
    Section(
        "Workers", "workers",
        (
            Column("id", lambda w: w["id"], right=False),
            Column("host", lambda w: w["host"], right=False, goes=6),
            Column("state", _state, right=False, style=_state_style),
            Column("messages", _in_hand(0), style=_full(0)),
            Column("streams", _in_hand(1), style=_full(1), goes=4),
            Column("done/s", _rate("done")),
            Column("failed/s", _rate("failed"), style=lambda w: "bold red" if w["rates"].get("failed") else "", goes=2),
            Column("again/s", _rate("again"), goes=5),
            *_VITALS,
        ),
    ),
    Section(
        "Rooms", "rooms",
        (
            Column("topic", lambda r: r["topic"], right=False),
            Column("channel", lambda r: r["channel"], right=False),
            Column("members", lambda r: f"{r['members']:,}"),
            Column("edges", lambda r: str(r["edges"]), goes=2),
            Column("messages/s", lambda r: _number(r["rate"])),
        ),
        "rooms_in_all",
    ),
    Section(
        "Runs", "runs",
        (
            Column("run", lambda r: r["run"], right=False),
            Column("workflow", lambda r: r["workflow"], right=False),
            Column("of", lambda r: r["kind"], right=False, goes=3),
            Column("worker", lambda r: r["worker"], right=False, goes=4),
            Column("attempt", lambda r: str(r["attempt"]), style=lambda r: "yellow" if r["attempt"] > 1 else "", goes=2),
            Column("age", lambda r: _age(r["age"])),
            Column("readers", lambda r: "-" if r["viewers"] is None else str(r["viewers"]), goes=5),
        ),
        "runs_in_all",
    ),
    Section(
        "Slow clients", "slow",
        (
            Column("connection", lambda s: s["connection"], right=False),
            Column("workflow", lambda s: s["workflow"], right=False),
            Column("edge", lambda s: s["edge"], right=False, goes=3),
            Column("waits", lambda s: _bytes(s["bytes"]), goes=5),
        ),
        "slow_in_all",
    ),
    Section(
        "Gone", "gone",
        (
            Column("role", lambda g: g["role"], right=False),
            Column("id", lambda g: g["id"], right=False),
            Column("host", lambda g: g["host"], right=False, goes=6),
            Column("ago", lambda g: _age(max(0.0, g["now"] - g["at"])), goes=1),
            Column("how", lambda g: "drained" if g["drained"] else "without a farewell", right=False,
                   style=lambda g: "" if g["drained"] else "bold red"),
        ),
    ),
)  # fmt: skip
