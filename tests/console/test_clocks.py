from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fairlead_console.clocks import Clock, clock, corrections
from fairlead_console.family import Family
from fairlead_console.spans import Origin, Span
from support.spans import EDGE_1, EDGE_2, WORKER, chat, ms, span


def found(spans: Iterable[Span]) -> dict[Clock, int]:
    family = Family(spans)
    return corrections(family.ordered(), family.spans)


def off(spans: Iterable[Span], by: dict[Origin, float]) -> list[Span]:
    """The spans as clocks that are off by so many ms would have told them."""
    told = {(origin.service, origin.instance): ms(amount) for origin, amount in by.items()}
    return [
        replace(each, start=each.start + told.get(clock(each), 0), end=each.end) for each in spans
    ]


def test_nothing_is_moved_while_every_child_begins_after_its_parent() -> None:
    assert found(chat()) == {}
    assert found(off(chat(), {WORKER: 0.5, EDGE_2: -2})) == {}


def test_a_worker_that_is_behind_is_moved_until_its_first_span_fits() -> None:
    assert found(off(chat(), {WORKER: -50})) == {clock_of(WORKER): ms(49)}, "1 ms was its wait"


def test_a_worker_that_is_ahead_is_moved_until_the_first_delivery_fits() -> None:
    """Not the edge, though its delivery is what looks too early: its clock is the first."""
    assert found(off(chat(), {WORKER: 50})) == {clock_of(WORKER): -ms(48)}


def test_only_the_clock_that_is_wrong_is_moved() -> None:
    assert found(off(chat(), {EDGE_2: -50})) == {clock_of(EDGE_2): ms(47)}


def test_two_that_are_wrong() -> None:
    moves = found(off(chat(), {WORKER: -50, EDGE_2: 70}))
    assert moves == {clock_of(WORKER): ms(49)}, "a delivery may well be late"


def test_clocks_that_no_move_can_settle_put_children_after_their_parents() -> None:
    spans = [
        span("a", "receive t", 0, 9, EDGE_1),
        span("b", "process t", -5, 9, WORKER, "a"),
        span("c", "deliver t", -9, 9, EDGE_1, "b"),
    ]
    assert found(spans) == {clock_of(WORKER): ms(5)}


def test_within_one_process_nothing_is_moved() -> None:
    assert found([span("a", "x", 5, 9, WORKER), span("b", "y", 1, 9, WORKER, "a")]) == {}


def clock_of(origin: Origin) -> Clock:
    return origin.service, origin.instance
