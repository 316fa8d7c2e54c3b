"""What an edge keeps of a room: the newest, within bounds, and never with a hole."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fairlead_edge.ring import EDGE_LIMIT, OVERHEAD, ROOM_LIMIT, Budget, Ring


@dataclass(frozen=True)
class Stored:
    sequence: int
    data: bytes = b""


def ring_of(*sequences: int, floor: int = 0) -> Ring[Stored]:
    ring: Ring[Stored] = Ring(Budget(), floor)
    for sequence in sequences:
        ring.append(Stored(sequence))
    return ring


def sequences(ring: Ring[Stored], after: int) -> list[int]:
    return [message.sequence for message in ring.since(after)]


def test_it_has_all_that_came_after_its_floor() -> None:
    ring = ring_of(12, 15, 19, floor=10)
    assert sequences(ring, 10) == [12, 15, 19]
    assert sequences(ring, 13) == [15, 19]
    assert sequences(ring, 19) == []


@pytest.mark.parametrize(("after", "covered"), [(9, False), (10, True), (11, True), (99, True)])
def test_it_says_whether_it_has_all_that_came_after(after: int, covered: bool) -> None:
    assert ring_of(12, floor=10).covers(after) is covered


def test_the_oldest_go_when_a_room_has_too_much_and_the_floor_rises_with_them() -> None:
    ring: Ring[Stored] = Ring(Budget(), 0, limit=3 * (100 + OVERHEAD))
    for sequence in range(1, 6):
        ring.append(Stored(sequence, bytes(100)))
    assert ring.floor == 2
    assert sequences(ring, 2) == [3, 4, 5]


def test_the_newest_message_stays_however_large_it_is() -> None:
    ring = ring_of(1, 2)
    ring.append(Stored(3, bytes(2 * ROOM_LIMIT)))
    assert (ring.floor, sequences(ring, 2)) == (2, [3])


def test_what_was_read_from_the_stream_comes_before_what_is_there() -> None:
    ring = ring_of(12, 15, floor=10)
    ring.backfill([Stored(4), Stored(9), Stored(12)], after=3)
    assert ring.floor == 3
    assert sequences(ring, 3) == [4, 9, 12, 15]


def test_what_was_read_is_not_kept_in_part() -> None:
    ring = ring_of(12, floor=10)
    ring.backfill([Stored(4, bytes(ROOM_LIMIT)), Stored(9)], after=3)
    assert (ring.floor, sequences(ring, 10)) == (10, [12])


def test_that_nothing_was_missed_is_kept_too() -> None:
    ring = ring_of(floor=10)
    ring.backfill([], after=3)
    assert ring.covers(3)


def test_a_ring_that_begins_anew_has_nothing_from_before() -> None:
    ring = ring_of(12, 15, floor=10)
    ring.clear(100)
    assert (ring.floor, ring.since(100)) == (100, [])


def test_all_rooms_together_are_bounded_and_give_back_what_they_had() -> None:
    """The room that grows gives its own: a quiet one is not robbed by a loud one."""
    budget = Budget(limit=4 * (1000 + OVERHEAD))
    quiet: Ring[Stored] = Ring(budget, 0)
    loud: Ring[Stored] = Ring(budget, 0)
    quiet.append(Stored(1, bytes(1000)))
    for sequence in range(2, 12):
        loud.append(Stored(sequence, bytes(1000)))
    assert budget.used <= budget.limit
    assert sequences(quiet, 0) == [1]
    assert sequences(loud, loud.floor) == [9, 10, 11]
    for ring in (quiet, loud):
        ring.clear(0)
    assert budget.used == 0


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (ROOM_LIMIT, EDGE_LIMIT) == (256 * 1024, 64 * 1024 * 1024)


class RingMachine(RuleBasedStateMachine):
    """A ring beside the plain list of all that the room ever had."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Stored] = []
        self.budget = Budget(limit=8 * OVERHEAD)
        self.ring: Ring[Stored] = Ring(self.budget, 0, limit=5 * OVERHEAD)

    @rule(step=st.integers(1, 3), size=st.integers(0, 3 * OVERHEAD))
    def publish(self, step: int, size: int) -> None:
        last = self.log[-1].sequence if self.log else 0
        message = Stored(last + step, bytes(size))
        self.log.append(message)
        self.ring.append(message)

    @rule(back=st.integers(0, 10))
    def read_from_the_stream(self, back: int) -> None:
        after = max(self.ring.floor - back, 0)
        self.ring.backfill([m for m in self.log if m.sequence > after], after)

    @precondition(lambda self: self.log)
    @rule()
    def lose_the_place(self) -> None:
        self.ring.clear(self.log[-1].sequence)

    @invariant()
    def what_it_covers_is_all_that_there_was(self) -> None:
        top = self.log[-1].sequence if self.log else 0
        for after in range(top + 1):
            if self.ring.covers(after):
                assert self.ring.since(after) == [m for m in self.log if m.sequence > after]

    @invariant()
    def it_counts_what_it_holds(self) -> None:
        held = self.ring.since(self.ring.floor)
        assert self.budget.used == sum(len(m.data) + OVERHEAD for m in held)
        assert len(held) <= 1 or self.budget.used <= 5 * OVERHEAD


TestRing = RingMachine.TestCase
