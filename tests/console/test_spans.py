from __future__ import annotations

import pytest

from fairlead_console.spans import is_of_connections, operation


@pytest.mark.parametrize(
    ("name", "scope", "system", "expected"),
    [
        ("receive rooms.{room}", "fairlead", "nats", "receive"),
        ("nats hop", "fairlead", None, "nats"),
        ("process", "", "nats", "process"),
        ("process order", "shop", "nats", ""),
        ("process order", "", None, ""),
        ("compact rooms", "fairlead", "nats", ""),
        ("", "fairlead", "nats", ""),
    ],
)
def test_which_spans_are_ours(name: str, scope: str, system: object, expected: str) -> None:
    assert operation(name, scope, system) == expected


def test_spans_of_a_connection_are_not_of_a_message() -> None:
    assert [is_of_connections(each) for each in ("connect", "close", "replay")] == [True] * 3
    assert [is_of_connections(each) for each in ("receive", "deliver", "")] == [False] * 3
