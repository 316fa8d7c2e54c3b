"""Times as NATS writes them."""

from __future__ import annotations

import pytest

from fairlead.protocol.timestamps import nanoseconds


@pytest.mark.parametrize(
    ("timestamp", "found"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
    ],
)
def test_a_time_is_read_to_its_last_digit(timestamp: str, found: int) -> None:
    assert nanoseconds(timestamp) == found
