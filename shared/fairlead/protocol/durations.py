"""How a span of time is written, on triggers, on flags and in the environment alike."""

from __future__ import annotations

import math
import re

# Seconds in one of each unit.
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h)?")


def seconds(value: str | float) -> float:
    """Read a duration: `"250ms"`, `"60s"`, `"5m"`, `"2h"`, or a number of seconds.

    Returns:
        Seconds, zero or more and finite.

    Raises:
        ValueError: anything else; the message is fit for the person who wrote it.
    """
    # bool is an int to Python, but `age=True` is a mistake to anyone else.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(_refusal(value))
    if isinstance(value, str):
        form = _FORM.fullmatch(value.strip())
        if form is None:
            raise ValueError(_refusal(value))
        return float(form[1]) * UNITS[form[2] or "s"]
    if not math.isfinite(value) or value < 0:
        raise ValueError(_refusal(value))
    return float(value)


def _refusal(value: object) -> str:
    return (
        f"found {value!r} where a duration belongs; "
        'write it as "250ms", "60s", "5m", "2h" or as seconds'
    )
