"""The table for people and the JSON for programs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Outcome
from fairlead.dev.nats_server import executable

_PACKAGES = (
    "fairlead",
    "uvloop",
    "uvicorn",
    "websockets",
    "nats-py",
    "orjson",
    "opentelemetry-sdk",
    "opentelemetry-exporter-prometheus",
)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    version = subprocess.run([executable(), "--version"], capture_output=True, text=True)
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nats-server": version.stdout.strip().removeprefix("nats-server: "),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "load": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def document(
    at: datetime, on: dict[str, Any], quick: bool, runs: int, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """The JSON document. `values` are those of the runs, `reached` is null without a target."""
    return {
        "at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "machine": on,
        "quick": quick,
        "runs": runs,
        "benchmarks": {
            each.name: {
                "complete": each.complete,
                "problems": list(each.problems),
                "figures": {figure.spec.key: _figure(figure) for figure in each.figures},
            }
            for each in outcomes
        },
    }


def _figure(figure: Figure) -> dict[str, Any]:
    target = figure.spec.target
    return {
        "unit": figure.spec.unit,
        "median": figure.median,
        "values": list(figure.values),
        "ceiling": figure.ceiling,
        "ceilings": list(figure.ceilings),
        "target": None if target is None else {"is": target.relation, "value": target.value},
        "reached": figure.reached,
    }


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(console: Console, on: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Print the machine, the table, and what was not complete."""
    console.print(", ".join(f"{name} {value}" for name, value in on.items()), highlight=False)
    table = Table("benchmark", "figure")
    for heading in ("median", "min..max", "ceiling", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("reached")
    for each in outcomes:
        for index, figure in enumerate(each.figures):
            table.add_row("" if index else each.name, *_row(figure))
        table.add_section()
    console.print(table)
    console.print(
        "ceiling: the same generator against a trivial peer (no NATS, no worker, no limits)."
    )
    for each in outcomes:
        for problem in each.problems:
            console.print(f"{each.name} is not complete: {problem}", style="red", markup=False)


def _row(figure: Figure) -> tuple[str, ...]:
    target, median, ceiling = figure.spec.target, figure.median, figure.ceiling
    reached = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.reached]
    spread = f"{_number(min(figure.values))}..{_number(max(figure.values))}" if median else ""
    return (
        figure.spec.key,
        "-" if median is None else _number(median),
        spread,
        "" if ceiling is None else _number(ceiling),
        "" if target is None else f"{target.relation} {target.value:,g}",
        figure.spec.unit,
        reached,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
