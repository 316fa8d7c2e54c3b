"""A problem as an exception."""

from __future__ import annotations

import fairlead
from fairlead.client import FairleadError
from fairlead.client.errors import ours, refused


def test_an_error_is_what_the_problem_says() -> None:
    errors = [{"loc": ["name"], "msg": "missing", "type": "missing"}]
    problem = {"status": 400, "title": "Bad Request", "detail": "no name", "errors": errors}
    error = FairleadError({**problem, "trace": "t"}, ref=3)
    assert str(error) == "no name"
    assert (error.status, error.errors, error.trace, error.ref) == (400, errors, "t", 3)
    assert str(FairleadError({"status": 500})) == "failed with status 500"


def test_it_is_one_of_fairlead_s() -> None:
    assert issubclass(FairleadError, fairlead.FairleadError)


def test_the_same_failure_of_one_message() -> None:
    error = ours("expired", code=4500).of("a")
    assert (error.detail, error.code, error.id, error.status) == ("expired", 4500, "a", 0)


def test_an_answer_with_a_problem_and_when_to_ask_again() -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "3"}
    error = refused(503, headers, b'{"status":503,"detail":"no worker"}')
    assert (error.status, error.detail, error.retry_after) == (503, "no worker", 3.0)


def test_an_answer_of_something_else_on_the_way() -> None:
    page = refused(502, {"content-type": "text/html", "retry-after": "tomorrow"}, b"<p>a proxy")
    assert (page.status, page.detail, page.retry_after) == (502, "failed with status 502", None)
    assert refused(500, {"content-type": "application/json"}, b"{").status == 500
    assert refused(500, {"content-type": "application/json"}, b"[]").status == 500
