"""Where the time of edge and worker goes under a load."""

from __future__ import annotations

import json
import signal
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import load
from bench.load import Phase
from bench.processes import ROOT
from bench.scale import Scale
from bench.system import Setup, System, nats_server, system
from bench.wire import ECHO, PLAIN

TOP = 25
"""Functions that are shown of each process."""

ROUNDS = 10
"""Bursts in a row: one is too short for samples."""


def _echo(it: System, scale: Scale, problems: list[str]) -> str:
    side = load.system_side(it, ECHO)
    result = load.echo(side, scale.callers, scale.warm, 2 * scale.seconds, problems)
    return f"{result.rate:,.0f} round trips/s"


def _burst(it: System, scale: Scale, problems: list[str]) -> str:
    with load.room_side(it, PLAIN) as side:
        results = load.fan_out(side, scale.members, [Phase(scale.burst)] * ROUNDS, problems)
    return ", ".join(f"{result.rate:,.0f}" for result in results) + " deliveries/s"


PROFILES: dict[str, Callable[[System, Scale, list[str]], str]] = {
    "echo-100": _echo,
    "fanout-burst": _burst,
}


def show(names: Sequence[str], scale: Scale, console: Console) -> int:
    """Print the functions in which edge and worker spend their time.

    Returns:
        0, or 1 if something was not delivered.
    """
    problems: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fairlead-profile-") as folder:
            outs = {role: Path(folder, role) for role in ("edge", "worker")}
            before = {
                role: ["-m", "bench.sampler", str(out), "fairlead"] for role, out in outs.items()
            }
            with nats_server() as nats, system(nats, Setup(before=before)) as it:
                for child in (it.edge, it.worker):
                    child.process.send_signal(signal.SIGUSR1)
                found = PROFILES[name](it, scale, problems)
            console.print(f"{name}, while being sampled: {found}", highlight=False)
            for role, out in outs.items():
                console.print(_table(f"{role}, {name}", json.loads(out.read_text())))
    for problem in problems:
        console.print(problem, style="red", markup=False)
    return 1 if problems else 0


def _table(title: str, counts: dict[str, dict[str, int]]) -> Table:
    own, total = counts["own"], counts["total"]
    looks = max(1, sum(own.values()))
    table = Table("function", title=f"{title}: {looks:,} samples of CPU time", title_justify="left")
    table.add_column("own %", justify="right")
    table.add_column("with what it calls %", justify="right")
    for name in sorted(own, key=own.__getitem__, reverse=True)[:TOP]:
        table.add_row(_short(name), f"{own[name] / looks:.1%}", f"{total[name] / looks:.1%}")
    return table


def _short(name: str) -> str:
    """Without the machine's folders."""
    for start in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), ROOT):
        name = name.removeprefix(f"{start}/")
    return name
