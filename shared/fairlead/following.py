"""A span that stands for another one: the one of the message that a long run works on just now.

OpenTelemetry finds the parent of a user's span in the context of the task that opens it, and a
context can't be changed from another task. The run of a connection reads its messages in whatever
task it likes, and has one context for all of them: so in that stands this, which asks each time.

Loaded by `telemetry.follow`, where something is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span, SpanContext, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from fairlead.telemetry import Hop


class Following(Span):
    """Args: current: the hop that it stands for now; None: there is none, so no parent either."""

    def __init__(self, current: Callable[[], Hop | None]) -> None:
        self._current = current

    @property
    def _span(self) -> Span:
        hop = self._current()
        return (hop and hop.span) or INVALID_SPAN

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        return self._span.is_recording()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        self._span.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._span.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._span.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: Any = None) -> None:
        """The message ends, not what user code has of it."""
