"""Tracing: the module that knows OpenTelemetry's traces, and when not to call it.

`sampling.py` and `following.py` extend its classes; they are loaded where something is traced.

A recorded span costs 25-32 µs, an unrecorded one 3.5 µs, a look at a flag 0.1 µs
(measured), so whether a message is sampled is decided once, where it comes in, and
an unsampled one carries nothing and makes no SDK call. Off unless the standard
`OTEL_*` variables ask for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from fairlead import logs
from fairlead.protocol import traceparent
from fairlead.protocol.problems import CANCELLED
from fairlead.protocol.traceparent import Traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span, SpanContext, Tracer

log = logs.get("fairlead.telemetry")

CLIENT_SAMPLED = 20
"""Messages a second whose sampling a client may decide, per process; then our sampler does."""

BROKEN = 500
"""Problems from this status on are ours: the span's status is an error. Below, it is the client's
doing, and only `error.type` says so (as OpenTelemetry has it for servers)."""

SpanKind = Literal["server", "producer", "consumer", "internal"]

Attributes = Mapping[str, str | int | float | bool]


class Hop:
    """A span that is open.

    Whoever learns last what came of it ends it: to end it again, or to say more of it then,
    does nothing.

    Attributes:
        parent: what the next hop takes as its parent.
    """

    __slots__ = ("_span", "parent")

    def __init__(self, span: Span) -> None:
        self._span: Span | None = span
        context = span.get_span_context()
        self.parent = Traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}", True)

    @property
    def span(self) -> Span | None:
        """OpenTelemetry's own; None once it has ended."""
        return self._span

    def set(self, name: str, value: str | int | float | bool) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Attributes | None = None, at: int | None = None) -> None:
        """Something that happened meanwhile. Args: at: ns since the epoch; None is now."""
        if self._span is not None:
            self._span.add_event(name, dict(attributes or {}), at)

    def link(self, to: Traceparent) -> None:
        """It has to do with another trace."""
        if self._span is not None:
            self._span.add_link(_remote(to))

    def activate(self) -> None:
        """Make it the parent of the spans that the current task opens from here on.

        For the whole task and never undone: what is attached in one task and detached in
        another (an `aclose` from elsewhere) fails with "created in a different Context".
        """
        from opentelemetry import context, trace

        if self._span is not None:
            context.attach(trace.set_span_in_context(self._span))

    def fail(self, error: BaseException) -> None:
        """It ends in an exception."""
        if self._span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._span.set_attribute("error.type", type(error).__name__)

    def refuse(self, status: int | str, broken: bool | None = None) -> None:
        """It ends with a problem of this status, a WebSocket's close code, or what this word says.

        Args:
            broken: whether that is our doing; None: a status of 500 and above is.
        """
        if self._span is None:
            return
        self._span.set_attribute("error.type", str(status))
        if broken is None:
            broken = isinstance(status, int) and status >= BROKEN
        if broken:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, str(status)))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End it with what is done here."""
        try:
            yield
        except asyncio.CancelledError:
            self.refuse(CANCELLED)
            raise
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self.end()

    def end(self, at: int | None = None) -> None:
        """Args: at: ns since the epoch; None is now."""
        span, self._span = self._span, None
        if span is not None:
            span.end(at)


class Tracing:
    """What one process records. Made by `setup`.

    Args:
        ratio: of messages without a say of their own, the part that is sampled, 0 to 1.
        processor: what exports the provider's spans.
    """

    def __init__(
        self,
        provider: TracerProvider,
        tracer: Tracer,
        ratio: float,
        processor: SpanProcessor | None = None,
    ) -> None:
        self._provider = provider
        self._tracer = tracer
        self._ratio = ratio
        self._processor = processor
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
        attributes: Attributes | None = None,
        links: Iterable[Traceparent] = (),
        at: int | None = None,
    ) -> Hop:
        """Open a span of a message that is sampled.

        Args:
            name: operation and template, never an id: `process rooms.{room}`.
            parent: of the hop before; None starts a trace.
            links: to other traces that it has to do with.
            at: when it began, in ns since the epoch; None is now.
        """
        from opentelemetry import trace

        from fairlead.sampling import decided

        before = trace.INVALID_SPAN if parent is None else trace.NonRecordingSpan(_remote(parent))
        span = self._tracer.start_span(
            name,
            decided(trace.set_span_in_context(before)),
            trace.SpanKind[kind.upper()],
            {"messaging.system": "nats", **(attributes or {})},
            [trace.Link(_remote(each)) for each in links],
            at,
        )
        return Hop(span)

    def beside(self, service: str, instance: str) -> Tracing:
        """What this process records of another one, which does not do so itself.

        Its spans are exported with ours; `shutdown` is our own.
        """
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        named = {"service.name": service, "service.instance.id": instance}
        resource = self._provider.resource.merge(Resource(named))
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        if self._processor is not None:
            provider.add_span_processor(self._processor)
        return Tracing(provider, provider.get_tracer("fairlead"), self._ratio, self._processor)

    def shutdown(self) -> None:
        """Export what is left; blocks for some seconds at most."""
        self._provider.shutdown()


def _remote(trace: Traceparent) -> SpanContext:
    """A span of another process, as OpenTelemetry has it."""
    from opentelemetry.trace import SpanContext, TraceFlags

    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, flags)


def follow(current: Callable[[], Hop | None]) -> None:
    """Make whatever `current` has the parent of the spans that user code opens.

    In this task, and in those and the threads that it starts. For what goes on over many
    messages: `Hop.activate` is for what is there for one.
    """
    from opentelemetry import context, trace

    from fairlead.following import Following

    context.attach(trace.set_span_in_context(Following(current)))


def new_trace_id() -> str:
    """For logs and problems of a message that is not traced: 32 hex digits."""
    return f"{random.getrandbits(128):032x}"  # to be told apart, not to be secret


def unsampled(parent: Traceparent | None = None) -> Traceparent:
    """A traceparent that says: an id (the client's, if it gave one) for the logs, and no spans."""
    trace_id = parent.trace_id if parent is not None else new_trace_id()
    return Traceparent(trace_id, f"{random.getrandbits(64):016x}", False)


def setup(role: str, process: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing as the standard `OTEL_*` variables say; None where they don't ask for it.

    Args:
        role: "edge" or "worker"; `fairlead-<role>` is the service's name unless
            OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says another.
        process: its id, as it stands in reports and in its connections' ids; the service's
            instance, unless OTEL_RESOURCE_ATTRIBUTES says another.
    """
    if not _wanted(environ):
        return None
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased

    from fairlead.sampling import Root

    ratio = _ratio(environ)
    resource = Resource.create(_identity(role, process, environ))
    sampler = ParentBased(Root(ratio))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
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
    return Tracing(provider, provider.get_tracer("fairlead"), ratio, batches)


def _identity(role: str, process: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a process calls itself, where the environment does not; that goes before `Resource`'s."""
    pairs = environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    told = {pair.partition("=")[0].strip() for pair in pairs}
    ours = {"service.name": f"fairlead-{role}", "service.instance.id": process}
    named = {name: value for name, value in ours.items() if name not in told}
    if environ.get("OTEL_SERVICE_NAME"):
        named["service.name"] = environ["OTEL_SERVICE_NAME"]
    return named


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
