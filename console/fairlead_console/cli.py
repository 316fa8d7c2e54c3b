"""The commands of the console: registered in pyproject.toml, as those of edge and worker are."""

from __future__ import annotations

import typer

from fairlead.cli import add_command, extra
from fairlead_console.settings import ConsoleSettings, TraceSettings


def commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    add_command(
        app, "console", ConsoleSettings, console, "Show the running system on a page of its own."
    )
    add_command(app, "trace", TraceSettings, trace, "Show where a message's time went.")


def console(settings: ConsoleSettings) -> int:
    """Serve until told to stop; the answer is the exit code."""
    with extra("console"):
        from fairlead_console import serve
    return serve.run(settings)


def trace(settings: TraceSettings) -> int:
    """Print what was asked for."""
    with extra("console"):
        from fairlead_console import trace
    return trace.run(settings)
