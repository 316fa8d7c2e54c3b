"""Metrics: what was counted, on its way to OpenTelemetry when somebody asks.

::

    tallies (plain integers) ◀──read── observable instruments ◀── MeterProvider ──▶ /metrics
                             ◀──read── histograms of ours ─────────────┘        └──▶ OTLP, if asked for

Nothing here runs while nobody asks. A `Metric` says what a figure is called and where it is read;
the tables of them are what docs/metrics.md shows. Reading happens on the thread of whoever asks,
so it must do with what is safe there: integers, and copies of dicts (`list(d.items())`).
"""

from __future__ import annotations

import importlib.metadata
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from fairlead import logs
from fairlead.tally import Histogram

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
    from opentelemetry.sdk.resources import Resource

log = logs.get("fairlead.metrics")

Kind = Literal["counter", "updown", "gauge", "histogram"]
"""A counter only grows; an updown can be added over processes, and a gauge can not."""

Attributes = Mapping[str, str | int]
Reading = tuple[float | Histogram, Attributes]

S = TypeVar("S")

SCOPE = "fairlead"
"""Name of the meter, and of the instrumentation scope."""


@dataclass(frozen=True, slots=True)
class Metric(Generic[S]):
    """One figure that a process exports.

    Attributes:
        name, unit: as OpenTelemetry's conventions have them; Prometheus makes its own of them.
        what: one sentence for people.
        read: takes the source, returns each series. attributes: their names, in all series.
    """

    name: str
    kind: Kind
    unit: str
    what: str
    read: Callable[[S], Iterable[Reading]]
    attributes: tuple[str, ...] = ()


class Metrics:
    """What one process exports. Made by `setup`; without a resource it is off, and does nothing.

    Args:
        resource: of the process.
        push: whether OTLP is asked for, besides the endpoint.
    """

    def __init__(self, resource: Resource | None = None, push: bool = False) -> None:
        self.on = resource is not None
        self._histograms: list[tuple[Metric[Any], Any]] = []
        self._began = time.time_ns()
        self._scraping = threading.Lock()
        if resource is None:
            return
        from opentelemetry.sdk.metrics import MeterProvider
        from prometheus_client import CollectorRegistry

        from fairlead import metricreaders

        self._registry = CollectorRegistry()
        readers: list[MetricReader] = [
            metricreaders.Scraped(self._registry, self._with_histograms),
            *([metricreaders.pushed(self._with_histograms)] if push else ()),
        ]
        self.provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._meter = self.provider.get_meter(SCOPE)

    def add(self, metrics: Sequence[Metric[S]], source: S) -> None:
        """Export these figures of a source from now on."""
        for metric in metrics if self.on else ():
            if metric.kind == "histogram":
                self._histograms.append((metric, source))
            else:
                self._observe(metric, source)

    def _observe(self, metric: Metric[S], source: S) -> None:
        from opentelemetry.metrics import Observation

        def read(_: object) -> Iterable[Observation]:
            for value, attributes in metric.read(source):
                assert not isinstance(value, Histogram)
                yield Observation(value, attributes)

        create = {
            "counter": self._meter.create_observable_counter,
            "updown": self._meter.create_observable_up_down_counter,
            "gauge": self._meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [read], metric.unit, metric.what)

    def _with_histograms(self, data: MetricsData) -> MetricsData:
        """The SDK has no observable histogram, and its own costs 6.5 µs a value: ours join here."""
        from opentelemetry.sdk.metrics import export

        now = time.time_ns()
        ours = [self._exported(metric, source, now) for metric, source in self._histograms]
        of_process = [
            replace(
                each,
                scope_metrics=[
                    replace(scope, metrics=[*scope.metrics, *ours])
                    if scope.scope.name == SCOPE
                    else scope
                    for scope in each.scope_metrics
                ],
            )
            for each in data.resource_metrics
        ]
        return export.MetricsData(of_process)

    def _exported(self, metric: Metric[Any], source: Any, now: int) -> Any:
        from opentelemetry.sdk.metrics import export

        points = []
        for histogram, attributes in metric.read(source):
            assert isinstance(histogram, Histogram)
            counts = list(histogram.counts)
            points.append(
                export.HistogramDataPoint(
                    dict(attributes), self._began, now, sum(counts), histogram.sum, counts,
                    histogram.bounds, min=None, max=None,  # type: ignore[arg-type]  # not known, nor sent
                )
            )  # fmt: skip
        data = export.Histogram(points, export.AggregationTemporality.CUMULATIVE)
        return export.Metric(metric.name, metric.what, metric.unit, data)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """(all figures as Prometheus reads them, their content type).

        Args:
            accept: what the asker takes: the text format, or OpenMetrics.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        with self._scraping:  # the exporter is not made for two at once
            return encode(self._registry), content_type

    def shutdown(self) -> None:
        """Push what is left; blocks for some seconds at most."""
        if self.on:
            self.provider.shutdown()


def setup(
    role: str, process: str, scraped: bool, environ: Mapping[str, str] = os.environ
) -> Metrics:
    """The metrics of this process; they are off where nobody could ever ask for them.

    Args:
        role: "edge" or "worker"; process: its id, `service.instance.id`.
        scraped: whether there is a `/metrics` that shows them.
    """
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    push = not disabled and pushes(environ)
    if disabled or not (push or scraped):
        return Metrics()
    made = Metrics(_resource(role, process, environ), push)
    if role != "edge":  # user code finds it where OpenTelemetry's users look
        from opentelemetry import metrics

        metrics.set_meter_provider(made.provider)
    return made


def pushes(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for metrics over OTLP.

    `OTEL_EXPORTER_OTLP_ENDPOINT` alone does not: whoever sets it for traces has Prometheus for
    metrics, mostly, and would get them twice (docs/decisions/0019).
    """
    asked = {name.strip() for name in environ.get("OTEL_METRICS_EXPORTER", "").split(",")} - {""}
    if unknown := asked - {"otlp", "prometheus", "none"}:
        log.warning(
            "OTEL_METRICS_EXPORTER: only otlp (over HTTP) and prometheus (the admin port) are built in",
            found=",".join(sorted(unknown)),
        )
    protocol = environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    push = "otlp" in asked or (
        not asked and bool(environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))
    )
    if push and protocol != "http/protobuf":
        log.warning("OTLP protocol is not built in; http/protobuf is used", found=protocol)
    return push


def _resource(role: str, process: str, environ: Mapping[str, str]) -> Resource:
    from opentelemetry.sdk.resources import Resource

    ours = {
        "service.name": environ.get("OTEL_SERVICE_NAME") or f"fairlead-{role}",
        "service.instance.id": process,
        "service.version": importlib.metadata.version("fairlead"),
    }
    told = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if "service.name" in told and not environ.get("OTEL_SERVICE_NAME"):
        del ours["service.name"]
    return Resource.create({k: v for k, v in ours.items() if k == "service.name" or k not in told})
