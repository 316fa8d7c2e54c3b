"""Which spans without a parent are recorded: ours, for that was decided before, and a ratio of the user's.

Loaded by `telemetry.setup`, where something is traced.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

_DECIDED = create_key("fairlead-decided")


def decided(context: Context) -> Context:
    """For a span of which it is known that it is to be recorded."""
    return set_value(_DECIDED, True, context)


class Root(Sampler):
    """Args: ratio: of the spans that user code opens outside of any trace, 0 to 1."""

    def __init__(self, ratio: float) -> None:
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        ours = parent_context is not None and get_value(_DECIDED, parent_context)
        sampler: Sampler = ALWAYS_ON if ours else self._ratio
        return sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"Root{{{self._ratio.get_description()}}}"
