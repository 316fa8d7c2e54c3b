"""`fairlead worker`: registered in pyproject.toml, so that the command line need not know us."""

from __future__ import annotations

import typer

from fairlead.cli import add_command, extra
from fairlead_worker.settings import WorkerSettings


def worker(app: typer.Typer) -> None:
    """Add the command to the command line."""
    add_command(app, "worker", WorkerSettings, run, "Run the workflows of a project.")


def run(settings: WorkerSettings) -> int:
    """Serve until told to stop; the answer is the exit code."""
    with extra("worker"):
        from fairlead_worker import serve
    return serve.run(settings)
