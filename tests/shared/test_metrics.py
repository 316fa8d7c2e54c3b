"""From integers to what exporters take: asked for by Prometheus, pushed over OTLP, and when."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fairlead import metrics
from fairlead.metrics import Metric, Metrics
from fairlead.tally import Histogram
from support.figures import Figures
from support.otlp import collector
from support.system import until


class Source:
    """Something that counts."""

    def __init__(self) -> None:
        self.count = 0
        self.level = 0
        self.took = Histogram((0.1, 1.0))


TABLE: tuple[Metric[Source], ...] = (
    Metric("t.count", "counter", "{thing}", "Things.", lambda s: [(s.count, {"t.kind": "a"})]),
    Metric("t.level", "updown", "By", "A level.", lambda s: [(s.level, {})]),
    Metric("t.now", "gauge", "1", "A state.", lambda s: [(1, {"t.status": 404})]),
    Metric("t.took", "histogram", "s", "Times.", lambda s: [(s.took, {"t.kind": "a"})]),
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's own environment says is not what is tested."""
    for variable in list(os.environ):
        if variable.startswith("OTEL_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def exported() -> Iterator[Metrics]:
    made = metrics.setup("edge", "e1", scraped=True, environ={})
    yield made
    made.shutdown()


def read(exported: Metrics) -> Figures:
    return Figures(exported.exposition()[0].decode())


def test_what_is_counted_is_read_when_it_is_asked_for(exported: Metrics) -> None:
    source = Source()
    exported.add(TABLE, source)
    source.count, source.level = 7, 1024
    source.took.add_alike(0.05, 2)
    source.took.add(0.5)
    source.took.add(9.0)
    found = read(exported)
    assert found.sum("t_count_total", t_kind="a") == 7
    assert found.sum("t_level_bytes") == 1024
    assert found.sum("t_now", t_status="404") == 1
    buckets = {s.labels["le"]: s.value for s in found.of("t_took_seconds_bucket", t_kind="a")}
    assert buckets == {"0.1": 2, "1.0": 3, "+Inf": 4}
    assert found.sum("t_took_seconds_count") == 4
    assert found.sum("t_took_seconds_sum") == pytest.approx(9.6)
    source.count += 1
    assert read(exported).sum("t_count_total") == 8


def test_a_scrape_names_the_process(exported: Metrics) -> None:
    exported.add(TABLE, Source())
    (info,) = read(exported).of("target_info")
    assert info.labels["service_name"] == "fairlead-edge"
    assert info.labels["service_instance_id"] == "e1"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment=blue"}, "fairlead-edge"),
    ],
)
def test_the_service_is_called_as_the_standard_variables_say(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    made = metrics.setup("edge", "e1", True, environ)
    made.add(TABLE, Source())
    (info,) = read(made).of("target_info")
    assert info.labels["service_name"] == name
    made.shutdown()


def test_openmetrics_is_spoken_with_those_who_ask_for_it(exported: Metrics) -> None:
    exported.add(TABLE, Source())
    body, content_type = exported.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_two_edges_in_one_process_export_each_their_own(exported: Metrics) -> None:
    other = metrics.setup("edge", "e2", scraped=True, environ={})
    one, two = Source(), Source()
    exported.add(TABLE, one)
    other.add(TABLE, two)
    one.count, two.count = 1, 2
    assert read(exported).sum("t_count_total") == 1
    assert read(other).sum("t_count_total") == 2
    other.shutdown()


@pytest.mark.parametrize(
    ("environ", "scraped"), [({"OTEL_SDK_DISABLED": "true"}, True), ({}, False)]
)
def test_where_nobody_can_ask_there_is_nothing(environ: dict[str, str], scraped: bool) -> None:
    made = metrics.setup("edge", "e1", scraped, environ)
    assert not made.on
    made.add(TABLE, Source())
    made.shutdown()


OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        # For all signals, says the standard; ours asks for metrics by name.
        (OTLP, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus, otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus", **OTLP}, False),
        ({"OTEL_METRICS_EXPORTER": "none", **OTLP}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, True),
        (
            {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_METRICS_EXPORTER": "none",
            },
            False,
        ),
    ],
)
def test_metrics_are_pushed_where_that_is_asked_for(environ: dict[str, str], wanted: bool) -> None:
    assert metrics.pushes(environ) is wanted


def test_an_exporter_that_is_not_built_in_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not metrics.pushes({"OTEL_METRICS_EXPORTER": "console"})
    assert "console" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        environ = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        assert metrics.pushes(environ)
    assert "not built in; http/protobuf is used found=grpc" in caplog.text


async def test_what_is_pushed_is_what_is_scraped(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as taken:
        environ = {**taken.env, "OTEL_METRICS_EXPORTER": "otlp"}
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value)
        made = metrics.setup("edge", "e1", scraped=False, environ=environ)
        source = Source()
        made.add(TABLE, source)
        source.count = 3
        source.took.add(0.5)
        made.shutdown()  # pushes what is left
        await until(lambda: taken.metrics, "the metrics have come")
    (figures,) = taken.metrics
    assert figures.resource["service.instance.id"] == "e1"
    assert figures.values["t.count"] == 3
    assert figures.histograms["t.took"] == ([0, 1, 0], 0.5)


def test_a_users_own_instruments_are_exported_by_a_worker() -> None:
    """In a process of its own: the global provider can be set only once."""
    code = """
from opentelemetry import metrics
made = metrics.get_meter("mine").create_counter("mine.calls", "{call}")
from fairlead import metrics as ours
exported = ours.setup("worker", "w1", scraped=True, environ={})
made.add(2, {"kind": "x"})
text = exported.exposition()[0].decode()
assert 'mine_calls_total{kind="x"} 2.0' in text, text
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_nothing_of_the_exporters_is_loaded_where_there_are_no_metrics() -> None:
    code = """
import sys
from fairlead import metrics
metrics.setup("edge", "e1", scraped=False, environ={})
assert "prometheus_client" not in sys.modules and "opentelemetry.sdk.metrics" not in sys.modules
"""
    environ: dict[str, Any] = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_the_sdk_still_hands_a_reader_what_it_collected() -> None:
    """What our readers override: `_receive_metrics`, with metrics by scope."""
    assert "_receive_metrics" in vars(InMemoryMetricReader)
