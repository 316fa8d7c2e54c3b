from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.parts import PARTS, Layer, Stretch, shares


def found(*stretches: Stretch, end: int = 10) -> dict[str, int]:
    return {part: ns for part, ns in shares(stretches, 0, end).items() if ns}


def test_the_deeper_row_covers_the_one_above_it() -> None:
    above = Stretch(0, 10, "user", Layer.WORKS, 1)
    assert found(above, Stretch(2, 5, "broker", Layer.WORKS, 2)) == {"user": 7, "broker": 3}


def test_of_two_at_one_depth_the_later_one_counts() -> None:
    first = Stretch(0, 6, "broker", Layer.WORKS, 1)
    assert found(first, Stretch(4, 10, "edge", Layer.WORKS, 1)) == {"broker": 4, "edge": 6}


def test_who_waits_is_covered_by_whoever_works_however_deep_it_stands() -> None:
    waits = Stretch(0, 10, "edge", Layer.WAITS, 5)
    slow = Stretch(2, 10, "slow", Layer.SLOW, 6)
    works = Stretch(3, 7, "user", Layer.WORKS, 1)
    assert found(waits, slow, works) == {"edge": 2, "slow": 4, "user": 4}


def test_a_moment_of_nobodys_is_other() -> None:
    assert found(Stretch(2, 5, "edge", Layer.WORKS, 0)) == {"edge": 3, "other": 7}


def test_no_time_has_no_parts() -> None:
    assert shares([Stretch(3, 3, "edge", Layer.WORKS, 0)], 3, 3) == dict.fromkeys(PARTS, 0)


STRETCHES = st.builds(
    lambda start, length, part, layer, depth: Stretch(
        start, min(20, start + length), part, layer, depth
    ),
    st.integers(0, 20), st.integers(0, 20), st.sampled_from(PARTS), st.sampled_from(Layer),
    st.integers(0, 3),
)  # fmt: skip


@given(st.lists(STRETCHES, max_size=15))
def test_it_is_what_looking_at_each_moment_gives(stretches: list[Stretch]) -> None:
    """Against the rule itself, written as plainly as it is said."""
    expected = dict.fromkeys(PARTS, 0)
    for now in range(20):
        covering = [each for each in stretches if each.start <= now < each.end]
        top = max(covering, key=lambda e: (e.layer, e.depth, e.start), default=None)
        ties = {
            each.part
            for each in covering
            if top and each[3:] == top[3:] and each.start == top.start
        }
        expected[min(ties, default="other")] += 1
    made = shares(stretches, 0, 20)
    assert sum(made.values()) == 20
    if not any(_tied(stretches)):
        assert made == expected


def _tied(stretches: list[Stretch]) -> list[bool]:
    return [
        one.part != two.part and one[3:] == two[3:] and one.start == two.start
        for i, one in enumerate(stretches)
        for two in stretches[:i]
    ]
