from __future__ import annotations

import pytest

from fairlead_console.spans import of_connections, operation


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


def test_a_trace_of_a_connection_is_no_message() -> None:
    assert of_connections({"connect"})
    assert of_connections({"close", "replay"})
    assert not of_connections({"connect", "receive"})
    assert not of_connections({"close", ""})
    assert not of_connections(set())
