"""What a distribution is in plain integers."""

from __future__ import annotations

from fairlead.tally import SECONDS, Histogram


def test_a_value_falls_into_the_first_bucket_that_holds_it() -> None:
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 99.0):
        made.add(value)
    assert made.counts == [2, 2, 2]
    assert made.count == 6
    assert made.sum == 106.5


def test_values_that_are_alike_are_counted_at_once() -> None:
    made = Histogram((1.0,))
    made.add_alike(0.25, 4)
    assert made.counts == [4, 0]
    assert made.sum == 1.0


def test_nothing_was_counted_yet() -> None:
    made = Histogram()
    assert (made.count, made.sum) == (0, 0.0)
    assert len(made.counts) == len(SECONDS) + 1


def test_the_bounds_grow() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))
