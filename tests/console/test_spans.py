from __future__ import annotations

import pytest

from fairlead_console.spans import Matter, operation


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


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (["receive", "process"], True),
        (["publish", "deliver"], True),
        (["connect"], False),
        (["connect", "process", ""], False),  # its policies, and what they look up
        (["close"], False),
        (["connect", "replay"], False),
        (["connect", "receive", "close"], True),  # a client with one trace for all it does
        ([""], True),  # somebody else's
        (["process"], True),
        ([], True),
    ],
)
def test_what_a_trace_is_about(operations: list[str], message: bool) -> None:
    matter = Matter()
    for each in operations:
        matter.add(each)
    assert matter.message is message
