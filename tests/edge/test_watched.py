"""A sampled message on its way to the members: who has it, and who not yet."""

from __future__ import annotations

from fairlead_edge.watched import Waiting, Watch


class Told:
    """What the watcher was told, in order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def written(self) -> None:
        self.words.append("written")

    def over(self) -> None:
        self.words.append("over")


def watched() -> tuple[Told, Watch]:
    told = Told()
    return told, Watch(told)


def test_where_all_members_took_it_at_once_it_is_over_with_the_turn() -> None:
    told, watch = watched()
    watch.given(10, False)
    watch.given(12, False)
    assert told.words == []
    watch.shown()
    assert told.words == ["written", "over"]
    assert (watch.members, watch.slow, watch.bytes, watch.dropped) == (2, 0, 22, 0)


def test_a_message_for_nobody_is_over_too() -> None:
    told, watch = watched()
    watch.shown()
    assert told.words == ["written", "over"]


def test_who_gets_it_at_the_end_of_the_turn_keeps_up() -> None:
    told, watch = watched()
    waiting = Waiting.of([watch], slow=False)
    watch.given(10, False)
    watch.shown()
    assert told.words == []
    waiting.wrote()
    assert told.words == ["written", "over"]


def test_the_slow_ones_are_waited_for_after_those_that_keep_up_have_it() -> None:
    told, watch = watched()
    quick, slow = Waiting.of([watch], slow=False), Waiting.of([watch], slow=True)
    watch.given(10, False)
    watch.given(10, True)
    watch.shown()
    quick.wrote()
    assert (told.words, watch.late) == (["written"], 1)
    slow.wrote()
    assert (told.words, watch.late) == (["written", "over"], 0)


def test_what_is_lost_for_a_slow_one_is_counted_and_not_waited_for() -> None:
    told, watch = watched()
    slow = Waiting.of([watch], slow=True)
    watch.given(10, True)
    watch.shown()
    slow.lost()
    assert (told.words, watch.dropped) == (["written", "over"], 1)


def test_a_slow_one_may_have_it_before_a_quick_one() -> None:
    told, watch = watched()
    quick, slow = Waiting.of([watch], slow=False), Waiting.of([watch], slow=True)
    watch.shown()
    slow.wrote()
    assert told.words == []
    quick.wrote()
    assert told.words == ["written", "over"]


def test_of_what_waits_together_only_the_sampled_are_watched() -> None:
    (told, watch), (others_told, other) = watched(), watched()
    waiting = Waiting.of([watch, None, other], slow=True)
    for each in (watch, other):
        each.shown()
    waiting.wrote()
    assert told.words == others_told.words == ["written", "over"]


def test_where_only_the_newest_is_kept_the_others_are_lost() -> None:
    (told, watch), (newest_told, newest) = watched(), watched()
    waiting = Waiting.of([watch, newest], slow=True)
    for each in (watch, newest):
        each.shown()
    left = waiting.newest()
    assert (told.words, watch.dropped) == (["written", "over"], 1)
    assert newest_told.words == ["written"]
    left.wrote()
    assert (newest_told.words, newest.dropped) == (["written", "over"], 0)
