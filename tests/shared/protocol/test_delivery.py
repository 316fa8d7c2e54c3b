from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol.delivery import (
    BEAT,
    BUSY_RETRY,
    INNOCENT_AFTER,
    LOST_AFTER,
    MAX_LOST,
    NEXT,
    TAKEN_WITHIN,
    WAITING_RETRY,
    Delivery,
    Happening,
    State,
    step,
)


def test_every_pair_moves_on_or_is_refused() -> None:
    for state, happening in itertools.product(State, Happening):
        if (state, happening) in NEXT:
            assert not state.final
            assert step(state, happening) is NEXT[state, happening]
        else:
            with pytest.raises(Malformed, match=f"^{happening.value} cannot happen to a"):
                step(state, happening)


@pytest.mark.parametrize("happening", [*Happening])
@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_nothing_happens_to_a_message_after_its_end(state: State, happening: Happening) -> None:
    assert state.final
    with pytest.raises(Malformed):
        step(state, happening)


def test_from_every_state_a_message_can_still_be_done() -> None:
    """No state is a trap: whatever happened, a way leads to DONE."""
    reached = {State.DONE}
    while more := {a for (a, _), b in NEXT.items() if b in reached} - reached:
        reached |= more
    assert reached == set(State) - {State.FAILED}


def test_every_message_that_is_not_done_can_be_given_up() -> None:
    for state in State:
        assert state.final or NEXT[state, Happening.EXPIRED] is State.FAILED


def test_the_times_of_section_6() -> None:
    assert (TAKEN_WITHIN, BEAT, BUSY_RETRY) == (1.0, 2.0, (0.005, 0.1))


def sent(now: float = 100.0) -> Delivery:
    delivery = Delivery(number=1)
    delivery.send(now)
    return delivery


def taken(worker: str = "w1", now: float = 100.0) -> Delivery:
    delivery = sent(now)
    delivery.taken(worker, now)
    return delivery


def test_a_message_begins_held_in_its_first_attempt() -> None:
    delivery = Delivery(number=7)
    assert (delivery.number, delivery.attempt, delivery.state) == (7, 1, State.HELD)
    assert (delivery.worker, delivery.waiting_since, delivery.losses) == ("", None, 0)
    assert not delivery.cancelled


def test_a_worker_may_answer_with_the_result_at_once() -> None:
    delivery = sent()
    delivery.done()
    assert delivery.state is State.DONE


def test_a_worker_that_takes_it_and_is_done() -> None:
    delivery = taken("w1")
    assert (delivery.state, delivery.worker) == (State.TAKEN, "w1")
    delivery.done()
    assert delivery.state is State.DONE
    with pytest.raises(Malformed, match=r"^done cannot happen to a done message$"):
        delivery.done()


def test_no_answer_in_a_second_is_the_next_attempt() -> None:
    delivery = sent(now=100.0)
    assert delivery.due == 101.0
    delivery.lost(now=101.0)
    assert (delivery.state, delivery.attempt, delivery.due) == (State.SENT, 2, 102.0)


def test_who_never_took_it_was_not_killed_by_it() -> None:
    delivery = sent()
    for _ in range(2 * MAX_LOST):
        delivery.lost(now=101.0)
    assert delivery.losses == 0
    assert not delivery.deadly


@given(st.floats(0, 1))
def test_a_busy_worker_is_not_an_attempt_and_soon_tried_again(dice: float) -> None:
    delivery = sent()
    delivery.busy(now=100.0, dice=dice)
    assert (delivery.state, delivery.attempt) == (State.BUSY, 1)
    assert 100.005 <= delivery.due <= 100.1000001
    delivery.send(now=delivery.due)
    assert (delivery.state, delivery.attempt) == (State.SENT, 1)


def test_the_dice_spread_the_next_try_over_the_whole_span() -> None:
    soon, late = sent(), sent()
    soon.busy(now=0.0, dice=0.0)
    late.busy(now=0.0, dice=1.0)
    assert (soon.due, late.due) == BUSY_RETRY


def test_a_worker_is_lost_after_two_missed_beats() -> None:
    delivery = taken(now=100.0)
    assert 100.0 + 2 * BEAT < delivery.due == 100.0 + LOST_AFTER < 100.0 + 3 * BEAT
    delivery.beat(now=102.0)
    assert delivery.due == 102.0 + LOST_AFTER
    delivery.lost(now=delivery.due)
    assert (delivery.state, delivery.attempt, delivery.worker) == (State.SENT, 2, "")
    assert delivery.due == 102.0 + LOST_AFTER + TAKEN_WITHIN
    assert delivery.losses == 1


def test_a_beat_says_nothing_of_what_is_in_nobodys_hands() -> None:
    delivery = sent(now=100.0)
    delivery.beat(now=100.5)
    assert (delivery.state, delivery.due) == (State.SENT, 101.0)


def test_a_worker_may_say_again_that_it_has_it() -> None:
    delivery = taken("w1", now=100.0)
    delivery.taken("w1", now=101.0)
    assert (delivery.state, delivery.due) == (State.TAKEN, 101.0 + LOST_AFTER)


def test_no_worker_is_news_once_and_tried_again_until_patience_ends() -> None:
    delivery = sent(now=100.0)
    assert delivery.no_responders(now=100.0)
    assert (delivery.state, delivery.attempt) == (State.WAITING, 1)
    assert delivery.due == 100.0 + WAITING_RETRY
    delivery.send(now=delivery.due)
    assert not delivery.no_responders(now=105.0)
    assert not delivery.expired(now=109.9, patience=10)
    assert delivery.expired(now=110.0, patience=10)
    delivery.fail()
    assert delivery.state is State.FAILED


def test_a_message_that_met_a_worker_does_not_expire() -> None:
    assert not sent(now=0.0).expired(now=1e9, patience=10)


def test_patience_starts_anew_when_a_worker_took_it() -> None:
    delivery = sent(now=100.0)
    delivery.no_responders(now=100.0)
    delivery.send(now=100.25)
    delivery.taken("w1", now=100.25)
    assert not delivery.expired(now=1000.0, patience=10)
    delivery.lost(now=1000.0)
    assert delivery.no_responders(now=1000.0)
    assert not delivery.expired(now=1009.9, patience=10)
    assert delivery.expired(now=1010.0, patience=10)


def test_patience_starts_anew_when_a_worker_was_busy() -> None:
    """A worker at its limit leaves the queue group, so busy and nobody take turns."""
    delivery = sent(now=100.0)
    delivery.no_responders(now=100.0)
    delivery.send(now=109.0)
    delivery.busy(now=109.0, dice=0.0)
    assert not delivery.expired(now=111.0, patience=10)
    delivery.send(now=111.0)
    assert delivery.no_responders(now=111.0)
    assert not delivery.expired(now=120.9, patience=10)


def test_when_nats_goes_what_nobody_has_is_held() -> None:
    busy, waiting = sent(), sent()
    busy.busy(now=100.0, dice=0.5)
    waiting.no_responders(now=100.0)
    for delivery in (busy, waiting):
        delivery.cut()
        assert (delivery.state, delivery.attempt) == (State.HELD, 1)
        delivery.back(now=105.0)
        delivery.send(now=105.0)
        assert (delivery.state, delivery.attempt, delivery.due) == (State.SENT, 1, 106.0)


def test_when_nats_goes_what_somebody_may_have_keeps_its_state_and_gets_time_anew() -> None:
    """Its answers may have been lost, and so may the beats."""
    out, in_hand = sent(now=100.0), taken(now=100.0)
    for delivery in (out, in_hand):
        before = delivery.state
        delivery.cut()
        assert delivery.state is before
        delivery.back(now=105.0)
        assert (delivery.state, delivery.attempt) == (before, 1)
    assert out.due == 105.0 + TAKEN_WITHIN
    assert in_hand.due == 105.0 + LOST_AFTER


def test_a_message_is_deadly_when_ten_workers_were_lost_with_it_in_hand() -> None:
    delivery = sent()
    for losses in range(1, MAX_LOST + 1):
        assert not delivery.deadly
        delivery.taken(f"w{losses}", now=100.0)
        delivery.lost(now=101.0)
        assert delivery.attempt == losses + 1
    assert MAX_LOST == 10
    assert delivery.deadly


def test_what_was_long_in_a_workers_hands_did_not_kill_it() -> None:
    """The run of a connection outlives many deploys."""
    delivery = sent()
    for losses in range(1, 2 * MAX_LOST):
        delivery.taken(f"w{losses}", now=1000.0 * losses)
        delivery.lost(now=1000.0 * losses + INNOCENT_AFTER)
        assert (delivery.losses, delivery.attempt) == (1, losses + 1)


def test_a_worker_that_stops_hands_over_and_that_is_no_loss() -> None:
    delivery = sent()
    delivery.taken("w1", now=100.0)
    delivery.handed_over(now=101.0)
    assert (delivery.state, delivery.attempt, delivery.losses) == (State.SENT, 2, 0)
    assert delivery.due == 101.0 + TAKEN_WITHIN


@given(
    st.lists(st.sampled_from(["send", "taken", "busy", "nobody", "lost", "cut", "back", "beat"]))
)
def test_an_attempt_never_goes_back_and_no_call_breaks_a_delivery(calls: list[str]) -> None:
    """What is refused changes nothing: answers come late, twice and out of order."""
    delivery = Delivery(1)
    for now, call in enumerate(calls):
        before = (delivery.state, delivery.attempt)
        try:
            match call:
                case "send":
                    delivery.send(now)
                case "taken":
                    delivery.taken("w", now)
                case "busy":
                    delivery.busy(now, 0.5)
                case "nobody":
                    delivery.no_responders(now)
                case "lost":
                    delivery.lost(now)
                case "cut":
                    delivery.cut()
                case "back":
                    delivery.back(now)
                case _:
                    delivery.beat(now)
        except Malformed:
            assert (delivery.state, delivery.attempt) == before
        assert delivery.attempt == before[1] + (call == "lost" and delivery.attempt > before[1])
