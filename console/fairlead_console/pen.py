"""Lines of columns and bars for a terminal of any width, with or without colours or Unicode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from fairlead_console.parts import PARTS

COLOURS = {
    "edge": "cyan",
    "broker": "magenta",
    "queue": "yellow",
    "user": "green",
    "slow": "red",
    "other": "bright_black",
}

GOOD_BAR = 24
"""Columns; with less to spare, what else there is goes, the least important first."""

SMALLEST_BAR = 12
"""Columns; with less to spare, names are cut, and if that is not enough, there is no bar."""

SMALLEST_CUT = 12
"""Columns that are left of what may be cut."""

LARGEST_CUT = 0.45
"""Of the console's width: what may be cut has no more."""

GAP = 2

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


@dataclass(slots=True)
class Column:
    """One column of lines.

    Attributes:
        right: whether its cells end in one line.
        after: whether it stands behind the bar.
        may_go: where the room does not suffice, the lowest goes first; 0 stays.
        width: as wide as its widest cell, or less.
    """

    cells: Sequence[str]
    style: str = ""
    right: bool = False
    after: bool = False
    may_go: int = 0
    may_be_cut: bool = False
    width: int = 0

    def __post_init__(self) -> None:
        self.width = max((cell_len(cell) for cell in self.cells), default=0)


class Pen:
    """Writes to one console, as that can show it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        plain = console.options.ascii_only
        self._bar, self._cut, self._micro = ("=", "~", "us") if plain else ("━", "…", "µs")
        self.dot, self.failed = ("-", "!") if plain else ("·", "✗")

    def line(self, *parts: Text) -> None:
        """Write one line; what is too long for it is cut."""
        whole = Text.assemble(*parts)
        whole.truncate(self._console.width, overflow="crop")
        self._console.print(whole, no_wrap=True, crop=True, overflow="ignore")

    def wrapped(self, parts: Sequence[Text], between: str) -> None:
        """Write parts one after the other, as many in a line as fit."""
        line = Text()
        for part in parts:
            if line and cell_len(line.plain + between + part.plain) > self._console.width:
                self.line(line)
                line = Text()
            line.append(between if line else "")
            line.append_text(part)
        self.line(line)

    def said(self, text: str, style: str = "") -> None:
        """Write a sentence, broken between words."""
        self._console.print(Text(self.clean(text), style), highlight=False)

    def clean(self, text: str) -> str:
        """Text of others without what would move the cursor or change the colours."""
        shown = "".join(c if c.isprintable() else "?" for c in text)
        return shown.encode("ascii", "replace").decode() if self._micro == "us" else shown

    def duration(self, seconds: float) -> str:
        """Three digits, and a unit that needs no more than them."""
        size, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
        amount = seconds / size
        digits = f"{amount:.0f}" if amount >= 99.95 else f"{amount:.3g}"
        return f"{digits} {self._micro if unit == 'µs' else unit}"

    def fit(self, columns: Sequence[Column]) -> int:
        """Bring columns to the width of the console; returns what is left for a bar, maybe 0."""
        for column in columns:
            if column.may_be_cut:
                most = max(SMALLEST_CUT, int(self._console.width * LARGEST_CUT))
                column.width = min(column.width, most)
        going = sorted(
            (column for column in columns if column.may_go),
            key=lambda column: column.may_go,
        )
        while (left := self._left(columns)) < GOOD_BAR and going:
            going.pop(0).width = 0
        for column in columns:
            if left < SMALLEST_BAR and column.may_be_cut:
                by = min(SMALLEST_BAR - left, max(0, column.width - SMALLEST_CUT))
                column.width -= by
                left += by
        return left if left >= SMALLEST_BAR else 0

    def _left(self, columns: Sequence[Column]) -> int:
        return self._console.width - sum(column.width + GAP for column in columns if column.width)

    def cells(self, columns: Sequence[Column], row: int, bar: Text, style: str = "") -> Text:
        """One line of columns that fit.

        Args:
            bar: stands before the columns that are `after` it.
            style: of the columns that have none.
        """
        parts = [self._cell(column, row, style) for column in columns if not column.after]
        parts.append(bar)
        parts += [self._cell(column, row, style) for column in columns if column.after]
        made = Text(" " * GAP).join(part for part in parts if part)
        made.rstrip()
        return made

    def _cell(self, column: Column, row: int, style: str) -> Text:
        text = column.cells[row]
        if cell_len(text) > column.width:
            text = set_cell_size(text, max(0, column.width - 1)) + self._cut * bool(column.width)
        elif column.right:
            text = " " * (column.width - cell_len(text)) + text
        else:
            text = set_cell_size(text, column.width)
        return Text(text, column.style or style)

    def bar(self, start: float, end: float, width: int, part: str) -> Text:
        """A bar from `start` to `end`, both parts of 1, in a field of `width`."""
        first = min(width - 1, int(start * width))
        length = max(1, min(width, round(end * width)) - first)
        made = Text(" " * first)
        made.append(self._bar * length, COLOURS.get(part, ""))
        made.append(" " * (width - first - length))
        return made

    def stacked(self, parts: Mapping[str, float], length: int, width: int) -> Text:
        """A bar of all parts, one after the other, in a field of `width`."""
        whole = sum(parts.values()) or 1.0
        made = Text()
        told = 0.0
        for part in PARTS:
            told += parts.get(part, 0.0)
            made.append(
                self._bar * (round(length * told / whole) - len(made)), COLOURS.get(part, "")
            )
        made.append(" " * (width - len(made)))
        return made
