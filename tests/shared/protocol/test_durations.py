from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.protocol import durations


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("250ms", 0.25),
        ("60s", 60.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("30", 30.0),
        (" 5 m ", 300.0),
        (0, 0.0),
        (30, 30.0),
        (0.25, 0.25),
    ],
)
def test_every_form(written: str | float, expected: float) -> None:
    assert durations.seconds(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", "5x", "-5s", "1e3", "5 s m", "5M", "٣s", "inf", "nan", -1, math.inf, math.nan, True, None],
)
def test_anything_else_is_refused_with_what_was_found_and_what_is_right(written: Any) -> None:
    with pytest.raises(ValueError, match='write it as "250ms", "60s"') as refused:
        durations.seconds(written)
    assert repr(written) in str(refused.value)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_number_is_itself(value: float) -> None:
    assert durations.seconds(value) == value


@given(st.text())
def test_no_text_gives_anything_but_a_duration_or_a_refusal(text: str) -> None:
    try:
        assert durations.seconds(text) >= 0
    except ValueError as exc:
        assert "duration" in str(exc)
