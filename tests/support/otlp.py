"""A collector for tests: takes OTLP over HTTP from real processes, and shows their spans and metrics."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from support.system import until

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


class Event(NamedTuple):
    """Something that happened in a span. at: ns since the epoch."""

    name: str
    at: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Span:
    """One span as it was exported.

    Attributes:
        trace, id, parent: in hex digits; `parent` is "" for the first of a trace.
        kind: "server", "producer", "consumer" or "internal".
        resource: of the process; `service.name` and whatever OTEL_RESOURCE_ATTRIBUTES told it.
        start, end: ns since the epoch.
        events: in their order. links: to other spans, as `trace-id`.
        failed: whether its status is an error.
    """

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    failed: bool = False

    @property
    def place(self) -> str:
        """As a link to it is written."""
        return f"{self.trace}-{self.id}"

    @property
    def instance(self) -> str:
        """The process that made it."""
        return str(self.resource["service.instance.id"])

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1_000_000_000

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])

    @property
    def operation(self) -> str:
        """The first word of its name: `receive`, `process`, …"""
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class Pushed:
    """One export of metrics.

    Attributes:
        values: the sum of all series, by name; histograms: (counts by bucket, sum of the values).
    """

    resource: dict[str, Any]
    values: dict[str, float]
    histograms: dict[str, tuple[list[int], float]]


class Collector:
    """What has arrived so far, in the order of its arrival.

    Attributes:
        port: of 127.0.0.1 where it takes `POST /v1/traces` and `POST /v1/metrics`.
        largest: spans of the largest batch.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.largest = 0
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._metrics: list[Pushed] = []

    @property
    def env(self) -> dict[str, str]:
        """What tells a process to export to this collector."""
        return {
            "OTEL_SDK_DISABLED": "false",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
        }

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    @property
    def metrics(self) -> list[Pushed]:
        with self._lock:
            return list(self._metrics)

    async def wait(self, what: str, found: Callable[[Span], bool]) -> Span:
        """Wait for a span that this is true of; the first one."""
        await until(lambda: any(map(found, self.spans)), f"{what} is exported")
        return next(span for span in self.spans if found(span))

    def of(self, trace: str) -> list[Span]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace == trace]

    async def trace(self, trace: str, holds: Callable[[list[Span]], bool] | int) -> list[Span]:
        """Wait until the spans of a trace satisfy a condition, or are as many; return them."""
        condition = holds if callable(holds) else lambda spans: len(spans) >= holds
        try:
            await until(lambda: condition(self.of(trace)), f"the spans of trace {trace} are there")
        except AssertionError as error:
            names = [f"{span.service}: {span.name}" for span in self.of(trace)]
            raise AssertionError(f"{error}; there are {names}") from None
        return self.of(trace)

    def take_metrics(self, body: bytes) -> None:
        """One export of metrics."""
        found = list(_pushed(ExportMetricsServiceRequest.FromString(body)))
        with self._lock:
            self._metrics += found

    def take(self, body: bytes) -> None:
        """One export of spans."""
        found = list(_decoded(ExportTraceServiceRequest.FromString(body)))
        with self._lock:
            self._spans += found
            self.largest = max(self.largest, len(found))


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a port of its own, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            take = {"/v1/traces": made.take, "/v1/metrics": made.take_metrics}.get(self.path)
            if take is not None:
                take(body)
            self.send_response(200 if take is not None else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass  # a test that fails shows the spans, not the requests

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _decoded(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_process in request.resource_spans:
        resource = _attributes(of_process.resource.attributes)
        for of_scope in of_process.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    _KINDS[span.kind],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    resource,
                    [
                        Event(each.name, each.time_unix_nano, _attributes(each.attributes))
                        for each in span.events
                    ],
                    [f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links],
                    span.status.code == Status.STATUS_CODE_ERROR,
                )


def _pushed(request: ExportMetricsServiceRequest) -> Iterator[Pushed]:
    for of_process in request.resource_metrics:
        values: dict[str, float] = {}
        histograms: dict[str, tuple[list[int], float]] = {}
        for metric in (m for scope in of_process.scope_metrics for m in scope.metrics):
            if metric.HasField("histogram"):
                for bars in metric.histogram.data_points:
                    histograms[metric.name] = list(bars.bucket_counts), bars.sum
            else:
                points = (
                    metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
                )
                values[metric.name] = sum(p.as_int or p.as_double for p in points)
        yield Pushed(_attributes(of_process.resource.attributes), values, histograms)


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
