from __future__ import annotations

import pytest
from starlette.requests import Request

from fairlead_console.guard import Guard


def asking(authorization: str | None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def test_without_a_token_nobody_may_change_anything() -> None:
    guard = Guard("")
    assert guard.read_only
    for given in (None, "Bearer ", "Bearer x"):
        refused = guard.refusal(asking(given))
        assert refused is not None
        assert refused.status_code == 403
        assert b"--token" in refused.body, "what to do about it"


@pytest.mark.parametrize("given", ["Bearer secret", "bearer secret", "Bearer  secret "])
def test_who_brings_the_token_may(given: str) -> None:
    assert Guard("secret").refusal(asking(given)) is None


@pytest.mark.parametrize("given", [None, "", "secret", "Basic secret", "Bearer", "Bearer sécret"])
def test_who_does_not_is_told_how(given: str | None) -> None:
    refused = Guard("secret").refusal(asking(given))
    assert refused is not None
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
