"""`python -m bench [NAME ...]`: the speed of the running system; `profile NAME`: where it goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import profile, report
from bench.benchmarks import BENCHMARKS, Benchmark
from bench.figures import Outcome, Sample, outcome
from bench.processes import Failed
from bench.scale import FULL, QUICK, Scale
from bench.system import nats_server

RESULTS = Path("bench", "results")

WIDTH = 120
"""Columns of the table where there is no terminal."""


def run(name: str, benchmark: Benchmark, scale: Scale, runs: int, console: Console) -> Outcome:
    """All runs of one benchmark; one that breaks is a problem of it, not the end of the suite."""
    samples = []
    for number in range(runs):
        console.print(f"{name}, run {number + 1} of {runs}", style="dim", highlight=False)
        try:
            with nats_server() as nats:
                samples.append(benchmark.run(nats, scale, number))
        except Failed as failed:
            samples.append(Sample(problems=[str(failed)]))
    return outcome(name, benchmark.specs, samples)


def measure(args: argparse.Namespace, console: Console) -> int:
    """Run what was asked for and report it.

    Returns:
        0 all was delivered, whatever the figures; 1 something was not.
    """
    at = datetime.now(UTC)
    machine = report.machine()
    scale = QUICK if args.quick else FULL
    outcomes = [
        run(name, BENCHMARKS[name], scale, args.runs, console) for name in args.names or BENCHMARKS
    ]
    report.show(console, machine, outcomes)
    path = args.json or RESULTS / f"{at:%Y-%m-%dT%H%M%SZ}.json"
    report.write(path, report.document(at, machine, args.quick, args.runs, outcomes))
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
    return 0 if all(each.complete for each in outcomes) else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--runs", type=int, default=3, help="of each; medians are shown (3)")
    parser.add_argument("--json", type=Path, help="where to (bench/results/TIME.json)")
    parser.add_argument("--quick", action="store_true", help="small loads: does it all work?")
    args = parser.parse_args(argv)
    profiled = args.names[:1] == ["profile"]
    allowed = profile.PROFILES if profiled else BENCHMARKS
    names = args.names[1:] if profiled else args.names
    if unknown := [name for name in names if name not in allowed]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(allowed)}")
    if args.runs < 1:
        parser.error("--runs: at least 1")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if profiled:
        return profile.show(names or list(allowed), QUICK if args.quick else FULL, console)
    return measure(args, console)


if __name__ == "__main__":
    sys.exit(main())
