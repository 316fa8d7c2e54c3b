from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.protocol import traceparent
from fairlead.protocol.traceparent import Traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

IDS = st.integers(1, 2**128 - 1).map("{:032x}".format)
SPANS = st.integers(1, 2**64 - 1).map("{:016x}".format)


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # other flags may be set
        (f"00-{TRACE}-{SPAN}-fe", False),
    ],
)
def test_a_traceparent_is_read(text: str, sampled: bool) -> None:
    assert traceparent.parse(text) == Traceparent(TRACE, SPAN, sampled)


def test_a_traceparent_is_written() -> None:
    assert str(Traceparent(TRACE, SPAN, True)) == f"00-{TRACE}-{SPAN}-01"
    assert str(Traceparent(TRACE, SPAN, False)) == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"01-{TRACE}-{SPAN}-01",  # a later version
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-1",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
    ],
)
def test_what_is_malformed_is_ignored(text: str) -> None:
    assert traceparent.parse(text) is None


@given(st.builds(Traceparent, IDS, SPANS, st.booleans()))
def test_round_trip(parent: Traceparent) -> None:
    assert traceparent.parse(str(parent)) == parent


@given(st.text())
def test_no_text_raises(text: str) -> None:
    traceparent.parse(text)
