"""The tables of docs/metrics.md, made from the code: `python tests/support/metrics_page.py` writes them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/metrics.md"

_KINDS = {"counter": "counter", "updown": "up-down", "gauge": "gauge", "histogram": "histogram"}


def tables() -> dict[str, str]:
    """By the heading that they stand under."""
    from fairlead.vitals import VITALS
    from fairlead_edge.metrics import FIGURES as OF_EDGES
    from fairlead_worker.metrics import FIGURES as OF_WORKERS

    return {
        "Of an edge": _table([*OF_EDGES]),
        "Of a worker": _table([*OF_WORKERS]),
        "Of both": _table([*VITALS]),
    }


def _table(metrics: list[Any]) -> str:
    from support.figures import prometheus_names

    rows = ["| name, unit | in Prometheus | kind | by | what |", "| --- | --- | --- | --- | --- |"]
    for metric, name in zip(metrics, prometheus_names(metrics).values(), strict=True):
        by = ", ".join(f"`{each}`" for each in metric.attributes)
        named = f"`{metric.name}` {metric.unit}"
        rows.append(f"| {named} | `{name}` | {_KINDS[metric.kind]} | {by} | {metric.what} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """The page with the tables as the code has them."""
    for heading, table in tables().items():
        before, found, after = page.partition(f"\n## {heading}\n\n")
        assert found, f"docs/metrics.md has no heading {heading!r}"
        page = before + found + table + "\n" + re.sub(r"^(\|.*\n)*\n*", "", after)
    return page


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    PAGE.write_text(written(PAGE.read_text()))
