"""The header `traceparent` (W3C Trace Context, 3.2): one hop's place in a trace, in 55 bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

_form = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Traceparent(NamedTuple):
    """Attributes: trace_id: 32 hex digits; span_id: 16; sampled: the flag 01."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse(text: str) -> Traceparent | None:
    """Read one; None if it is malformed, of a later version or all zeros (3.2.2.3: then ignore it)."""
    found = _form.fullmatch(text)
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    return Traceparent(trace_id, span_id, bool(int(flags, 16) & 1))
