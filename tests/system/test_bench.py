"""`make bench` in small: every benchmark delivers everything, in order. Never how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WITHIN = 300
"""Seconds after which it hangs; it takes about 20."""


def test_each_benchmark_is_complete(tmp_path: Path) -> None:
    found = tmp_path / "results.json"
    ended = _bench("--quick", "--runs", "1", "--json", str(found))
    assert ended.returncode == 0, ended.stdout + ended.stderr

    benchmarks = json.loads(found.read_text())["benchmarks"]
    assert set(benchmarks) == {
        "fanout-burst", "fanout-paced", "echo-1", "echo-100", "idle", "tracing",
        "observed-echo", "observed-fanout", "scraped",
        "export-lag",
    }  # fmt: skip
    for name, benchmark in benchmarks.items():
        assert benchmark["problems"] == [], name
        assert benchmark["complete"], name
        for key, figure in benchmark["figures"].items():
            assert len(figure["values"]) == 1, f"{name}: {key}"


@pytest.mark.soak
def test_the_tables_of_scaling_are_complete() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.scaling", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [
        line
        for line in ended.stdout.splitlines()
        if line.split()[:1] and line.split()[0].isdecimal()
    ]
    assert len(rows) == 4 * 4 + 4 * 3 + 2 * 2 + 2 * 3 + 3 + 2


def test_an_unknown_table_is_refused_with_those_that_there_are() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.scaling", "echoes"],
        cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "no table 'echoes'; there are echo, room, spread," in ended.stderr


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    ended = _bench("fan-out")
    assert ended.returncode == 2
    assert "no benchmark 'fan-out'; there are fanout-burst" in ended.stderr


def _bench(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
