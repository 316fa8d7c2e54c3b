"""The commands of the console: registered in pyproject.toml, as those of edge and worker are."""

from __future__ import annotations

import typer

from fairlead.cli import add_command, extra
from fairlead_console.settings import ConsoleSettings, TopSettings, TraceSettings


def commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    add_command(
        app, "console", ConsoleSettings, console, "Show the running system on a page of its own."
    )
    add_command(
        app, "top", TopSettings, top, "Show edges, workers, rooms and runs as they are now."
    )
    add_command(app, "trace", TraceSettings, trace, "Show where a message's time went.")


def console(settings: ConsoleSettings) -> int:
    """Serve until told to stop; the answer is the exit code."""
    with extra("console"):
        from fairlead_console import serve
    return serve.run(settings)


def top(settings: TopSettings) -> int:
    """Show it until told to stop, or once."""
    with extra("console"):
        from fairlead_console import top
    return top.run(settings)


def trace(settings: TraceSettings) -> int:
    """Print what was asked for."""
    with extra("console"):
        from fairlead_console import trace
    return trace.run(settings)
