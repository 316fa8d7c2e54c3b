"""Registers `fairlead dev`."""

from __future__ import annotations

import typer

from fairlead.cli import add_command, extra
from fairlead.dev.settings import DevSettings


def dev(app: typer.Typer) -> None:
    """Add the command to the command line."""
    add_command(
        app, "dev", DevSettings, run, "Run the whole system here, and reload what you save."
    )


def run(settings: DevSettings) -> int:
    """Run everything until told to stop; the answer is the exit code."""
    with extra("dev"):
        from fairlead.dev import supervisor
    return supervisor.run(settings)
