"""What a stream surely still has, whatever its options were meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol.limits import EARLIER, FRESH, SETTLES, UNLIMITED, Limits
from fairlead.protocol.manifest import History

NOW = 1_700_000_000_000
SIZES, AGES = st.integers(1, 10**6), st.integers(1, 10**6).map(lambda tenths: tenths / 10)
HISTORIES = st.builds(History, SIZES, AGES)


def test_a_stream_that_never_changed_keeps_what_it_keeps() -> None:
    limits = Limits.of(10, 60.0, None)
    assert limits.since(0) == limits.since(NOW) == (10, 60.0)
    assert limits.metadata == {}


@pytest.mark.parametrize("none", [0, -1])
def test_zero_and_less_is_no_limit(none: int) -> None:
    assert Limits.of(none, none, {}) == Limits(UNLIMITED, UNLIMITED)
    assert Limits.of(none, none, {}).whole(10**12, 0, NOW)


def test_a_room_is_whole_that_was_never_full_while_nothing_has_aged() -> None:
    limits = Limits(10, 60.0)
    young, old = NOW, NOW - int(60_000 * FRESH)
    assert limits.whole(9, young, NOW)
    assert not limits.whole(10, young, NOW), "it may have evicted one"
    assert not limits.whole(9, old, NOW), "one may have aged away"
    assert limits.whole(9, old + 1, NOW)


def test_before_a_change_the_lesser_counts_and_for_as_long_as_it_may_take_effect() -> None:
    limits = Limits(10, 60.0).changed(History(100, 600.0), NOW)
    assert limits.since(NOW - 1) == limits.since(NOW + SETTLES) == (10, 60.0)
    assert limits.since(NOW + SETTLES + 1) == (100, 600.0)


def test_of_several_changes_the_least_counts() -> None:
    limits = Limits(10, 60.0).changed(History(100, 30.0), NOW).changed(History(50, 600.0), NOW + 1)
    assert limits.since(NOW - 1) == (10, 30.0)


def test_a_change_that_nobody_can_ask_about_any_more_is_forgotten() -> None:
    once = Limits(10, 60.0).changed(History(100, 60.0), NOW)
    later = NOW + SETTLES + 60_000
    assert once.changed(History(200, 60.0), later).since(later) == (100, 60.0)
    assert once.changed(History(200, 60.0), later - 1).since(later) == (10, 60.0)


@given(HISTORIES, HISTORIES, HISTORIES, st.integers(0, 10**7))
def test_what_is_stored_with_the_stream_is_read_again(
    first: History, then: History, last: History, later: int
) -> None:
    """By whoever changes it next, and by the edges."""
    limits = Limits(first.size, first.age).changed(then, NOW).changed(last, NOW + later)
    assert Limits.of(last.size, last.age, limits.metadata) == limits


@pytest.mark.parametrize("found", ["", "1 2", "a b c", "1 2 3 4"])
def test_what_no_worker_wrote_is_malformed(found: str) -> None:
    with pytest.raises(Malformed, match="expected UNTIL SIZE AGE"):
        Limits.of(10, 60.0, {EARLIER: found})
