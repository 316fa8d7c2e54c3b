from __future__ import annotations

from dataclasses import replace

from fairlead_console.family import Family
from support.spans import WORKER, chat, span


def test_parents_come_before_their_children_in_the_order_of_their_start() -> None:
    ordered = [each.id for each in Family(reversed(chat())).ordered()]
    assert ordered == ["a1", "b1", "b2", "b3", "a2", "d1"]


def test_of_equal_ids_the_longest_is_taken() -> None:
    """An exporter that had no answer sends again."""
    short, long = span("a", "x", 0, 1, WORKER), span("a", "x", 0, 2, WORKER)
    assert Family([short, long, replace(short)]).spans == {"a": long}


def test_one_whose_parent_is_not_here_is_a_root() -> None:
    family = Family([span("a", "x", 1, 2, WORKER, "gone"), span("b", "y", 0, 1, WORKER)])
    assert [root.id for root in family.roots] == ["b", "a"]


def test_a_circle_is_opened_at_its_earliest() -> None:
    family = Family(
        [
            span("a", "x", 2, 9, WORKER, "c"),
            span("b", "x", 1, 9, WORKER, "a"),
            span("c", "x", 3, 9, WORKER, "b"),
            span("d", "x", 0, 9, WORKER, "d"),
        ]
    )
    assert [root.id for root in family.roots] == ["d", "b"]
    assert [each.id for each in family.ordered()] == ["d", "b", "c", "a"]
