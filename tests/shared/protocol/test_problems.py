from __future__ import annotations

import pytest

from fairlead.protocol.problems import CANCELLED, HEADROOM, MAX_MESSAGE, NO_WORKER, Close, problem


def test_a_problem_as_rfc_9457_has_it() -> None:
    assert problem(404, "no such path") == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such path",
    }


def test_members_that_are_none_are_left_out() -> None:
    found = problem(400, None, errors=[{"loc": ["a"]}], trace=None)
    assert found == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "errors": [{"loc": ["a"]}],
    }


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (CANCELLED, "Client Closed Request"),
        (NO_WORKER, "Service Unavailable"),
        (426, "Upgrade Required"),
        (599, "Error"),
    ],
)
def test_each_status_has_a_title(status: int, title: str) -> None:
    assert problem(status)["title"] == title


def test_the_sizes() -> None:
    """NATS must carry at least 64 KiB more than a message."""
    assert (MAX_MESSAGE, HEADROOM) == (1_048_576, 65_536)


def test_the_close_codes() -> None:
    """Section 4's list; a client decides by the number alone whether it comes back."""
    assert {code.value for code in Close} == {
        *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013),
        *(4001, 4003, 4500, 4501),
    }
    assert (Close.ENDED, Close.GOING_AWAY, Close.PROTOCOL_ERROR) == (1000, 1001, 1002)
    assert (Close.UNSUPPORTED, Close.INVALID_DATA, Close.POLICY) == (1003, 1007, 1008)
    assert (*(1009, 1011, 1012, 1013),) == (
        Close.TOO_BIG,
        Close.INTERNAL,
        Close.RESTART,
        Close.OVERLOADED,
    )
    assert (Close.SLOW_CONSUMER, Close.POSITION_LOST) == (4001, 4003)
    assert (Close.TOKEN, Close.LIMIT) == (4500, 4501)
