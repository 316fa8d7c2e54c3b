"""`fairlead edge`: registered in pyproject.toml, so that the command line need not know us."""

from __future__ import annotations

import typer

from fairlead.cli import add_command, extra
from fairlead_edge.settings import EdgeSettings


def edge(app: typer.Typer) -> None:
    """Add the command to the command line."""
    add_command(app, "edge", EdgeSettings, run, "Hold the clients' connections; no user code here.")


def run(settings: EdgeSettings) -> int:
    """Serve until told to stop; the answer is the exit code."""
    with extra("edge"):
        from fairlead_edge import serve
    return serve.run(settings)
