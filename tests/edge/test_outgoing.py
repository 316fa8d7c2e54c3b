"""What waits for a slow client, against a plain list of what was put."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead_edge.outgoing import Batch, Outgoing
from fairlead_edge.watched import Waiting, Watch


def gap(at: str | None) -> bytes:
    return f"<gap {at}>".encode()


def message(number: int) -> bytes:
    return f"<{number}>".encode()


def batch(*numbers: int) -> tuple[bytes, Batch]:
    """Messages of one turn, whose cursors are their numbers."""
    encoded = [message(number) for number in numbers]
    return b"".join(encoded), Batch.of(encoded, [str(number) for number in numbers])


def made(*entries: tuple[int, ...] | str, told: bool = True) -> Outgoing[str]:
    """Tuples are turns of the room; a str is an answer that its flight is told of."""
    outgoing: Outgoing[str] = Outgoing(gap if told else None)
    for entry in entries:
        if isinstance(entry, str):
            outgoing.put(entry.encode(), entry)
        else:
            outgoing.put(*batch(*entry))
    return outgoing


def all_of(outgoing: Outgoing[str]) -> bytes:
    return b"".join(data for data, _ in outgoing.take(outgoing.size))


def test_what_waits_is_taken_in_order_and_its_flights_are_told() -> None:
    outgoing = made((1,), "ack", (2, 3))
    assert outgoing.take(4) == [(b"<1>", None)]
    assert outgoing.take(1) == [(b"ack", "ack")], "one in any case"
    assert outgoing.take(100) == [(b"<2><3>", None)]
    assert (outgoing.size, len(outgoing)) == (0, 0)


def test_the_oldest_are_dropped_and_a_gap_stands_in_their_place() -> None:
    outgoing = made("a", (1,), "b", (2, 3), "c", (4,))
    assert outgoing.drop_oldest(10) == 3
    assert all_of(outgoing) == b"ab<gap 3>c<4>"


def test_a_gap_that_grows_is_told_once() -> None:
    outgoing = made((1,), (2,), (3,))
    outgoing.drop_oldest(8)
    assert outgoing.drop_oldest(5) == 1
    outgoing.put(*batch(4))
    assert all_of(outgoing) == b"<gap 2><3><4>"


def test_who_cannot_be_told_is_not() -> None:
    outgoing = made((1,), "a", (2,), told=False)
    assert outgoing.drop_oldest(0) == 2
    assert all_of(outgoing) == b"a"


def test_what_cannot_be_dropped_stays() -> None:
    outgoing = made("answer", "another")
    assert outgoing.drop_oldest(0) == 0
    assert all_of(outgoing) == b"answeranother"


def test_the_newest_takes_the_place_of_all_that_wait() -> None:
    outgoing = made((1, 2), "a")
    assert outgoing.put_newest(batch(3)[1]) == 2
    assert outgoing.put_newest(batch(4, 5, 6)[1]) == 3
    assert all_of(outgoing) == b"a<gap 5><6>", "a gap never names what is still to come"


def test_the_first_of_a_room_without_history_is_superseded_all_the_same() -> None:
    outgoing: Outgoing[str] = Outgoing(gap)
    assert outgoing.put_newest(Batch.of([b"<1>"], [None])) == 0
    assert outgoing.put_newest(Batch.of([b"<2>"], [None])) == 1
    assert all_of(outgoing) == b"<gap None><2>"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("answer"), st.just(0)),
        st.tuples(st.just("newest"), st.integers(1, 3)),
        st.tuples(st.just("drop"), st.integers(0, 60)),
        st.tuples(st.just("take"), st.integers(0, 40)),
    ),
    max_size=30,
)


@given(STEPS)
def test_answers_are_kept_order_is_kept_and_whatever_is_missing_was_told(
    steps: list[tuple[str, int]],
) -> None:
    outgoing: Outgoing[str] = Outgoing(gap)
    number, dropped = 0, 0
    answers: list[str] = []
    pieces: list[tuple[bytes, Any]] = []
    for what, size in steps:
        if what in ("turn", "newest"):
            turn = range(number + 1, number + size + 1)
            number += size
            data, whole = batch(*turn)
            if what == "turn":
                outgoing.put(data, whole)
            else:
                dropped += outgoing.put_newest(whole)
        elif what == "answer":
            answers.append(f"(a{len(answers)})")
            outgoing.put(answers[-1].encode(), answers[-1])
        elif what == "drop":
            dropped += outgoing.drop_oldest(size)
        else:
            pieces += outgoing.take(size)
    pieces += outgoing.take(outgoing.size)
    assert outgoing.size == 0
    assert [told for _, told in pieces if told is not None] == answers
    seen = 0  # up to where the client has seen the room, or was told that it is lost
    heard = 0
    text = b"".join(data for data, _ in pieces).decode().replace("(", "<(").replace(")", ")>")
    for piece in filter(None, text.replace("<", "").split(">")):
        if piece.startswith("("):
            continue
        if piece.startswith("gap "):
            at = int(piece.removeprefix("gap "))
            assert at > seen, "a gap tells of something"
            seen = at
        else:
            assert int(piece) == seen + 1, "no hole that was not told"
            seen, heard = int(piece), heard + 1
    assert seen == number
    assert heard + dropped == number


# What is sampled


class Seen:
    """Watches of some messages; what became of each."""

    def __init__(self, count: int) -> None:
        self.watches = [Watch(self) for _ in range(count)]
        for watch in self.watches:
            watch.shown()

    def written(self) -> None:
        pass

    def over(self) -> None:
        pass

    @property
    def late(self) -> list[int]:
        return [watch.late for watch in self.watches]

    @property
    def dropped(self) -> list[int]:
        return [watch.dropped for watch in self.watches]


def seen_batch(*numbers: int) -> tuple[bytes, Batch, Seen]:
    """Messages of one turn that wait for a slow member, all of them sampled."""
    encoded = [message(number) for number in numbers]
    seen = Seen(len(numbers))
    made = Batch.of(encoded, [str(number) for number in numbers], seen.watches)
    return b"".join(encoded), made.queued(slow=True), seen


def test_whoever_watches_is_told_what_was_taken() -> None:
    outgoing = made((1,))
    data, batch, seen = seen_batch(2, 3)
    outgoing.put(data, batch)
    assert seen.late == [1, 1]
    (_, untold), (taken, waiting) = outgoing.take(100)
    assert (untold, taken) == (None, b"<2><3>")
    assert isinstance(waiting, Waiting)
    waiting.wrote()
    assert (seen.late, seen.dropped) == ([0, 0], [0, 0])


def test_whoever_watches_is_told_what_was_dropped() -> None:
    outgoing = made()
    data, batch, seen = seen_batch(1, 2)
    outgoing.put(data, batch)
    outgoing.put(*batch_of_three())
    assert outgoing.drop_oldest(9) == 2
    assert (seen.late, seen.dropped) == ([0, 0], [1, 1])


def batch_of_three() -> tuple[bytes, Batch]:
    return batch(3, 4, 5)


def test_of_a_turn_that_takes_the_place_of_all_before_it_the_newest_is_waited_for() -> None:
    outgoing = made()
    data, before, seen_before = seen_batch(1)
    outgoing.put(data, before)
    _, newer, seen = seen_batch(2, 3)
    assert outgoing.put_newest(newer) == 2
    assert (seen_before.dropped, seen.dropped) == ([1], [1, 0])
    assert seen.late == [0, 1]
    *_, (taken, waiting) = outgoing.take(100)
    assert taken == b"<3>"
    assert isinstance(waiting, Waiting)
    waiting.wrote()
    assert seen.late == [0, 0]


def test_what_is_for_one_alone_is_watched_and_never_dropped() -> None:
    outgoing = made((1,))
    seen = Seen(1)
    outgoing.put(b"a letter", Waiting.of(seen.watches, slow=True))
    assert outgoing.drop_oldest(0) == 1
    assert [data for data, _ in outgoing.take(100)] == [gap("1"), b"a letter"]
    assert seen.dropped == [0]


def test_a_member_is_given_the_bytes_of_each_message() -> None:
    seen = Seen(2)
    Batch.of([b"one", b"three"], [None, None], [seen.watches[0], None]).given(
        [b"one", b"three"], True
    )
    assert [(watch.members, watch.bytes, watch.slow) for watch in seen.watches] == [
        (1, 3, 1),
        (0, 0, 0),
    ]
