"""How much time has passed, whatever a clock did meanwhile."""

from __future__ import annotations

import pytest

from fairlead.client.clock import Moment


@pytest.mark.parametrize(
    ("later", "passed"),
    [
        (Moment(110.0, 2010.0), 10.0),
        (Moment(110.0, 2310.0), 310.0),  # it slept for five minutes
        (Moment(110.0, 1000.0), 10.0),  # somebody has set the clock back
    ],
)
def test_the_larger_of_both_differences_has_passed(later: Moment, passed: float) -> None:
    assert later.since(Moment(100.0, 2000.0)) == passed


def test_now_is_not_before_now() -> None:
    before = Moment.now()
    assert Moment.now().since(before) >= 0
