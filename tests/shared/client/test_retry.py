"""When a client comes back, and when it does not."""

from __future__ import annotations

import pytest

from fairlead.client.retry import Backoff, Retry, is_final, may_return


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4003, 4499])
def test_codes_after_which_it_connects_again(code: int) -> None:
    assert may_return(code)


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4999])
def test_codes_that_are_final(code: int) -> None:
    assert not may_return(code)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413])
def test_answers_that_are_final(status: int) -> None:
    assert is_final(status)


@pytest.mark.parametrize("status", [408, 426, 429, 500, 502, 503, 0])
def test_answers_after_which_it_asks_again(status: int) -> None:
    assert not is_final(status)


def test_pauses_double_up_to_a_bound_and_begin_anew_once_settled() -> None:
    longest = Backoff(dice=lambda: 1.0)
    assert [longest.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    longest.settled()
    assert longest.next() == 0.5


def test_the_jitter_is_full() -> None:
    assert Backoff(dice=lambda: 0.0).next() == 0
    drawn = [Backoff().next() for _ in range(100)]
    assert all(0 <= pause <= 0.5 for pause in drawn)
    assert len(set(drawn)) > 90


def test_a_server_that_is_away_for_weeks_overflows_nothing() -> None:
    backoff = Backoff(Retry(first=1, longest=30), dice=lambda: 1.0)
    assert [backoff.next() for _ in range(2000)][-1] == 30


def test_the_server_knows_best_when_to_come_back_once() -> None:
    backoff = Backoff(dice=lambda: 0.5)
    backoff.within = 10.0
    assert backoff.next(1012) == 5.0
    backoff.after = 7.0
    assert backoff.next() == 7.5
    assert backoff.next() == 1.0


def test_an_overloaded_server_is_given_more_time() -> None:
    assert Backoff(dice=lambda: 1.0).next(1013) == 2.0
