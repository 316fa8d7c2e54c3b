"""What is held of a room while what came before it is read."""

from __future__ import annotations

import pytest

from fairlead_edge.gap import HELD, HELD_BYTES, Gap, Heard
from fairlead_edge.ring import OVERHEAD, Budget


def heard(sequence: int, size: int = 0) -> Heard:
    return Heard(sequence, {"Nats-Sequence": str(sequence)}, b"x" * size)


def test_what_is_live_comes_after_what_is_read() -> None:
    budget = Budget(10**6)
    gap = Gap(7, budget)
    gap.hold(heard(8, 10))
    gap.hold(heard(9, 10))
    assert gap.target == 7
    assert budget.used == 2 * (10 + OVERHEAD)
    assert [each.sequence for each in gap.release()] == [8, 9]
    assert (gap.release(), budget.used) == ([], 0)


@pytest.mark.parametrize(("number", "size"), [(HELD, 0), (2, HELD_BYTES), (3, HELD_BYTES // 2)])
def test_what_is_too_much_to_hold_is_to_be_read_from_the_stream(number: int, size: int) -> None:
    budget = Budget(10**9)
    gap = Gap(0, budget)
    for sequence in range(1, number + 1):
        gap.hold(heard(sequence, size))
    if gap.target == 0:
        gap.hold(heard(number + 1, size))
    assert gap.target == max(number, gap.target)
    assert (gap.release(), budget.used) == ([], 0)


def test_one_message_is_held_however_large_it_is() -> None:
    gap = Gap(0, Budget(10**9))
    gap.hold(heard(1, 2 * HELD_BYTES))
    assert [each.sequence for each in gap.release()] == [1]


def test_the_room_that_comes_when_the_edge_holds_enough_gives_its_own() -> None:
    budget = Budget(1000)
    first, second = Gap(0, budget), Gap(0, budget)
    first.hold(heard(1, 1000))
    second.hold(heard(2))
    assert (second.target, second.release()) == (2, [])
    assert [each.sequence for each in first.release()] == [1]
