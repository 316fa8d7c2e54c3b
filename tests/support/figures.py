"""What a process exports, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from fairlead import metrics
from fairlead.metrics import Metric, Reading
from fairlead.tally import Histogram
from support.system import Edge, Worker, request, until

ON = {"OTEL_SDK_DISABLED": "false"}
"""The environment of a process whose metrics are looked at; the test kit turns them off."""


class Series(NamedTuple):
    """One line: the name as Prometheus has it, its labels, the value."""

    name: str
    labels: Mapping[str, str]
    value: float


class Figures:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.series = [
            Series(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def of(self, name: str, **labels: str) -> list[Series]:
        """Those of a name that have at least these labels."""
        wanted = labels.items()
        return [s for s in self.series if s.name == name and wanted <= s.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        return sum(each.value for each in self.of(name, **labels))

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.series}


def metrics_url(process: Edge | Worker) -> str:
    return f"http://127.0.0.1:{process.admin_port}/metrics"


async def figures(source: Edge | Worker | str) -> Figures:
    """Scrape a process, or a URL."""
    url = source if isinstance(source, str) else metrics_url(source)
    status, _, body = await request(url)
    assert status == 200, body
    return Figures(body.decode())


async def until_figures(
    source: Edge | Worker | str, condition: Callable[[Figures], object], what: str
) -> Figures:
    """Scrape until a condition holds; the scrape in which it did."""
    found: list[Figures] = []

    async def holds() -> bool:
        found.append(await figures(source))
        return bool(condition(found[-1]))

    await until(holds, what)
    return found[-1]


def prometheus_names(of: Iterable[Metric[Any]]) -> dict[str, str]:
    """What the exporter makes of each name: `fairlead.edge.io` is `fairlead_edge_io_bytes_total`.

    Of a histogram it is the name without `_bucket`, `_count` and `_sum`.
    """
    found: dict[str, str] = {}
    for metric in of:
        exported = metrics.setup("edge", "-", scraped=True, environ={})
        reading: Reading = (Histogram() if metric.kind == "histogram" else 1, {})
        exported.add([_ANOTHER, replace(metric, read=_always(reading))], None)
        text = exported.exposition()[0].decode()
        exported.shutdown()
        found[metric.name] = [line for line in text.splitlines() if "# TYPE" in line][-1].split()[2]
    return found


def _always(reading: Reading) -> Callable[[Any], list[Reading]]:
    return lambda _: [reading]


_ANOTHER: Metric[Any] = Metric(
    "another", "gauge", "1", "So that it is not alone.", _always((1, {}))
)
