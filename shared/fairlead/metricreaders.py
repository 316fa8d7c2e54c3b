"""The two ways in which metrics leave: asked for by Prometheus, or pushed over OTLP.

Both are the exporters of OpenTelemetry, with the histograms of ours put in on their way
through. `_receive_metrics` is what the SDK documents for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry

Complete = Callable[[MetricsData], MetricsData]
"""Adds to what the SDK has collected."""


class Scraped(PrometheusMetricReader):
    """Collects when the registry is asked. Not the global one: a process may hold several edges."""

    def __init__(self, registry: CollectorRegistry, complete: Complete) -> None:
        self._complete = complete
        # Scope labels would stand on every series, and say "fairlead" on each.
        super().__init__(scope_info_enabled=False, registry=registry)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._complete(metrics_data), timeout_millis, **kwargs)


class _Pushed(PeriodicExportingMetricReader):
    """Collects each `OTEL_METRIC_EXPORT_INTERVAL`, on a thread of its own."""

    def __init__(self, complete: Complete) -> None:
        self._complete = complete
        super().__init__(OTLPMetricExporter())

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._complete(metrics_data), timeout_millis, **kwargs)


def pushed(complete: Complete) -> MetricReader:
    """A reader that pushes, as the standard `OTEL_*` variables say where and how often."""
    return _Pushed(complete)
