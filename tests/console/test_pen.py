from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fairlead_console.parts import PARTS
from fairlead_console.pen import COLOURS, GAP, SMALLEST_BAR, Column, Pen


def pen(width: int = 80) -> Pen:
    return Pen(Console(width=width, file=io.StringIO()))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (0.000_000_4, "0.4 µs"),
        (0.000_7, "700 µs"),
        (0.000_999_9, "1000 µs"),
        (0.001, "1 ms"),
        (0.012_345, "12.3 ms"),
        (0.1, "100 ms"),
        (1.5, "1.5 s"),
        (123.4, "123 s"),
        (86_400.0, "86400 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert pen().duration(seconds) == text


def test_every_part_has_its_colour() -> None:
    assert COLOURS.keys() == set(PARTS)
    assert len(set(COLOURS.values())) == len(PARTS)


def test_what_may_go_goes_in_its_turn() -> None:
    cells = ["x" * 20]
    name, first, second = (
        Column(cells, may_be_cut=True),
        Column(cells, may_go=1),
        Column(cells, may_go=2),
    )
    columns = [name, second, first]
    assert pen(100).fit(columns) == 100 - 3 * (20 + GAP)
    assert pen(80).fit(columns) == 80 - 2 * (20 + GAP)
    assert (first.width, second.width, name.width) == (0, 20, 20)
    assert pen(50).fit(columns) == 50 - (20 + GAP)
    assert pen(34).fit(columns) == 34 - (15 + GAP), "not half of the room for a name"
    assert pen(26).fit(columns) == SMALLEST_BAR
    assert name.width == 12
    assert pen(20).fit(columns) == 0


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
def test_a_bar_is_seen_and_stays_in_its_field(one: float, two: float, width: int) -> None:
    start, end = sorted((one, two))
    made = pen().bar(start, end, width, "edge").plain
    assert len(made) == width
    assert "━" in made
    assert " " not in made.strip()


@given(
    st.fixed_dictionaries({part: st.floats(0, 1000) for part in PARTS}),
    st.integers(1, 100),
    st.integers(0, 50),
)
def test_a_bar_of_parts_has_the_length_of_all(
    parts: dict[str, float], length: int, more: int
) -> None:
    made = pen().stacked(parts, length, length + more).plain
    assert len(made) == length + more
    assert len(made.rstrip()) == (length if any(parts.values()) else 0)
