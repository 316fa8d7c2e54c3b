"""Which spans without a parent are recorded."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from fairlead.sampling import Root, decided


def recorded(ratio: float, context: Context | None = None) -> int:
    """How many of 200 root spans are."""
    provider = TracerProvider(ParentBased(Root(ratio)), shutdown_on_exit=False)
    tracer = provider.get_tracer("t")
    return sum(tracer.start_span("x", context).is_recording() for _ in range(200))


def test_of_the_users_own_a_ratio_is_recorded() -> None:
    assert recorded(0.0) == 0
    assert recorded(1.0) == 200
    assert 60 < recorded(0.5) < 140


def test_what_was_decided_before_is_not_asked_again() -> None:
    """Or a room's ticker at 10 % would be traced at 1 %, and the rest of it have no parent."""
    assert recorded(0.0, decided(Context())) == 200


def test_a_parent_goes_before_the_ratio() -> None:
    flags = {True: TraceFlags(TraceFlags.SAMPLED), False: TraceFlags(TraceFlags.DEFAULT)}
    for sampled in (True, False):
        parent = NonRecordingSpan(SpanContext(1, 2, True, flags[sampled]))
        context = set_span_in_context(parent, Context())
        assert recorded(0.0 if sampled else 1.0, context) == (200 if sampled else 0)


def test_it_says_what_it_is() -> None:
    assert Root(0.25).get_description() == "Root{TraceIdRatioBased{0.25}}"
