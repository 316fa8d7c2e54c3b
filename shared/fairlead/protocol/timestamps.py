"""When something was, as NATS writes it."""

from __future__ import annotations

from datetime import datetime


def nanoseconds(timestamp: str) -> int:
    """A timestamp of a server (RFC 3339, up to nanoseconds) as ns since the epoch.

    `datetime` would drop the last three digits, and a stream's creation time is compared.

    Raises:
        ValueError: it is none.
    """
    when = datetime.fromisoformat(timestamp)
    fraction = timestamp.partition(".")[2]
    digits = fraction[: next((i for i, c in enumerate(fraction) if not c.isdigit()), len(fraction))]
    seconds = int(when.replace(microsecond=0).timestamp())
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0")[:9] or "0")
