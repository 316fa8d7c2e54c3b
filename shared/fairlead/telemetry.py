"""Tracing: the only module that knows OpenTelemetry's traces, and when not to call it.

A recorded span costs 25-32 µs, an unrecorded one 3.5 µs, a look at a flag 0.1 µs
(measured), so whether a message is sampled is decided once, where it comes in, and
an unsampled one carries nothing and makes no SDK call. Off unless the standard
`OTEL_*` variables ask for it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from fairlead import logs
from fairlead.protocol import traceparent
from fairlead.protocol.traceparent import Traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = logs.get("fairlead.telemetry")

CLIENT_SAMPLED = 20
"""Messages a second whose sampling a client may decide, per process; then our sampler does."""

SpanKind = Literal["server", "producer", "consumer"]


class Hop:
    """A span that is open. End it exactly once.

    Attributes:
        parent: what the next hop takes as its parent.
    """

    __slots__ = ("_span", "parent")

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.parent = Traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}", True)

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, value)

    def activate(self) -> None:
        """Make it the parent of the spans that the current task opens from here on.

        For the whole task and never undone: what is attached in one task and detached in
        another (an `aclose` from elsewhere) fails with "created in a different Context".
        """
        from opentelemetry import context, trace

        context.attach(trace.set_span_in_context(self._span))

    def fail(self, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._span.set_attribute("error.type", type(error).__name__)

    def end(self) -> None:
        self._span.end()


class Tracing:
    """What one process records. Made by `setup`.

    Args:
        ratio: of messages without a say of their own, the part that is sampled, 0 to 1.
    """

    def __init__(self, provider: TracerProvider, tracer: Tracer, ratio: float) -> None:
        self._provider = provider
        self._tracer = tracer
        self._ratio = ratio
        self._second = 0
        self._granted = 0

    def sampled(self, parent: Traceparent | None) -> bool:
        """Whether a message that comes in is traced.

        The client's flag is followed for 20 messages a second, either way; beyond, and
        without a client's word, the standard sampler's ratio decides.
        """
        if parent is not None:
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._granted = second, 0
            if not parent.sampled:
                return False
            if self._granted < CLIENT_SAMPLED:
                self._granted += 1
                return True
        return self._ratio >= 1 or (self._ratio > 0 and random.random() < self._ratio)

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: Traceparent | None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
    ) -> Hop:
        """Open a span of a message that is sampled.

        Args:
            name: operation and template, never an id: `process rooms.{room}`.
            parent: of the hop before; None starts a trace.
        """
        from opentelemetry import trace

        context = None
        if parent is not None:
            remote = trace.SpanContext(
                int(parent.trace_id, 16),
                int(parent.span_id, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        else:
            context = trace.set_span_in_context(trace.INVALID_SPAN)
        kinds = {
            "server": trace.SpanKind.SERVER,
            "producer": trace.SpanKind.PRODUCER,
            "consumer": trace.SpanKind.CONSUMER,
        }
        everywhere = {"messaging.system": "nats", **(attributes or {})}
        span = self._tracer.start_span(name, context, kinds[kind], everywhere)
        return Hop(span)

    def shutdown(self) -> None:
        """Export what is left; blocks for some seconds at most."""
        self._provider.shutdown()


def new_trace_id() -> str:
    """For logs and problems of a message that is not traced: 32 hex digits."""
    return f"{random.getrandbits(128):032x}"  # to be told apart, not to be secret


def unsampled(parent: Traceparent | None = None) -> Traceparent:
    """A traceparent that says: an id (the client's, if it gave one) for the logs, and no spans."""
    trace_id = parent.trace_id if parent is not None else new_trace_id()
    return Traceparent(trace_id, f"{random.getrandbits(64):016x}", False)


def setup(role: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing as the standard `OTEL_*` variables say; None where they don't ask for it.

    Args:
        role: "edge" or "worker"; `fairlead-<role>` is the service's name unless
            OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says another.
    """
    if not _wanted(environ):
        return None
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

    ratio = _ratio(environ)
    # The edge has decided when it opens a root span; a worker's root spans are the user's own.
    root = ALWAYS_ON if role == "edge" else TraceIdRatioBased(ratio)
    named = "service.name" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": f"fairlead-{role}"})
    if environ.get("OTEL_SERVICE_NAME"):
        resource = resource.merge(Resource({"service.name": environ["OTEL_SERVICE_NAME"]}))
    provider = TracerProvider(sampler=ParentBased(root), resource=resource, shutdown_on_exit=False)
    # Small batches, and the GIL asked for each 0.5 ms: with the defaults the exporter's thread
    # holds the loop for 44-59 ms. Each export costs 1.5 ms and 32 µs a span (both measured), so
    # it is not done more often than each second, unless a batch is full.
    sys.setswitchinterval(0.0005)
    batches = BatchSpanProcessor(
        OTLPSpanExporter(),
        schedule_delay_millis=_number(environ, "OTEL_BSP_SCHEDULE_DELAY", 1000),
        max_export_batch_size=_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 64),
    )
    provider.add_span_processor(batches)
    if role != "edge":  # user code finds it where OpenTelemetry's users look
        trace.set_tracer_provider(provider)
    return Tracing(provider, provider.get_tracer("fairlead"), ratio)


def _number(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def _wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_SAMPLER", "").lower() == "always_off":
        return False  # unlike parentbased_always_off it asks no parent
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    if exporter == "none" or not (exporter or endpoint):
        return False
    if exporter not in ("", "otlp"):
        log.warning(
            "OTEL_TRACES_EXPORTER: only otlp (over HTTP) is built in; tracing is off",
            found=exporter,
        )
        return False
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    if protocol != "http/protobuf":
        log.warning("OTLP protocol is not built in; http/protobuf is used", found=protocol)
    return True


def _ratio(environ: Mapping[str, str]) -> float:
    sampler = environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").lower()
    match sampler.removeprefix("parentbased_"):
        case "always_on":
            return 1.0
        case "always_off":
            return 0.0
        case "traceidratio":
            argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "1")
            try:
                return min(1.0, max(0.0, float(argument)))
            except ValueError:
                log.warning(
                    "OTEL_TRACES_SAMPLER_ARG is no number; everything is sampled", found=argument
                )
                return 1.0
        case _:
            log.warning("OTEL_TRACES_SAMPLER is unknown; everything is sampled", found=sampler)
            return 1.0


def parent_of(text: str) -> Traceparent | None:
    """The parent that a peer named, or None where it is missing or malformed."""
    return traceparent.parse(text) if text else None


def current_traceparent() -> str:
    """Of the program's own current span, if it is sampled; else ""."""
    if "opentelemetry.trace" not in sys.modules:
        return ""  # then nobody has made a span
    from opentelemetry.trace import get_current_span

    found = get_current_span().get_span_context()
    if not found.is_valid or not found.trace_flags.sampled:
        return ""
    return str(Traceparent(f"{found.trace_id:032x}", f"{found.span_id:016x}", True))


def logged(trace: Traceparent | None) -> dict[str, Any]:
    """The fields of a log line that belong to a trace."""
    return {"trace_id": trace.trace_id} if trace else {}
