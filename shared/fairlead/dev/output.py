"""What `fairlead dev` shows: the table of endpoints, lines to try, and everyone's logs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairlead.dev.ports import LOOPBACK
from fairlead.dev.routes import Route
from fairlead.dev.settings import DEFAULT_ADMIN_PORT

COLOURS = {
    "edge": "cyan",
    "worker": "green",
    "console": "blue",
    "nats": "magenta",
    "dev": "yellow",
}

# Columns where there is no terminal to ask; a table that is piped need not be narrow.
WIDE = 160

CHECKED = "this one has policies or inputs: add what they ask for"


@dataclass(frozen=True, slots=True)
class Listening:
    """Where one edge listens."""

    name: str
    port: int
    admin_port: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Where the console listens.

    Attributes:
        token: what its page must bring to change anything.
        traces: whether it has the spans of all others.
    """

    port: int
    token: str
    traces: bool

    @property
    def url(self) -> str:
        # In the fragment: a browser keeps that to itself, and no log holds it.
        return f"http://{LOOPBACK}:{self.port}/#token={self.token}"


class Output:
    """Writes to one console, whole lines only.

    Args:
        width: of the longest name of a child, so that all lines begin in one column.
    """

    def __init__(self, console: Console, width: int) -> None:
        self._console = console
        self._width = width

    def line(self, name: str, text: str) -> None:
        """Write one line of a child, or our own."""
        colour = COLOURS.get(re.split(r"[ -]", name)[0], "white")
        line = Text(f"{name:<{self._width}} │ ", style=colour)
        # The child's own colours stay; its control characters do not.
        line.append_text(Text.from_ansi(text, style="default"))
        # Not wrapped: a log line that is broken cannot be searched or copied.
        self._console.print(line, soft_wrap=True, highlight=False)

    def table(
        self,
        routes: Sequence[Route],
        edges: Sequence[Listening],
        overview: Overview,
        nats: str,
        page: bool = False,
    ) -> None:
        """Write the endpoints, where everything listens, and lines to paste into a shell.

        Args:
            page: whether the edges serve a page.
        """
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
        for column in ("endpoint", "serves", "workflow", "topic", "deliver", "history"):
            table.add_column(column, no_wrap=True)
        for route in routes:
            table.add_row(*(Text(cell) for cell in _row(route)))
        print_ = self._console.print
        print_()
        print_(table)
        print_()
        for edge in edges:
            text = f"{edge.name}: http://{LOOPBACK}:{edge.port}, admin port {edge.admin_port}"
            print_(Text(text), soft_wrap=True)
        print_(Text(f"console: {overview.url}"), soft_wrap=True)
        print_(Text(f"nats: {nats}"), soft_wrap=True)
        print_()
        if page:
            urls = " ".join(f"http://{LOOPBACK}:{edge.port}/" for edge in edges)
            print_(Text(f"Open in two windows: {urls}", style="bold"), soft_wrap=True)
            print_()
        print_("Try, in another terminal:", style="bold")
        for route in routes:
            for line in lines_to_try(route, edges[0].port):
                print_(Text(f"  {line}"), soft_wrap=True)
            if route.checks:
                print_(Text(f"  ({CHECKED})", style="dim"), soft_wrap=True)
        if overview.traces:
            print_(Text(f"  {look_at_the_last(overview.port)}"), soft_wrap=True)
        print_()


def console() -> Console:
    """The console of this process' stdout."""
    made = _Console(highlight=False)
    return made if made.is_terminal else _Console(highlight=False, width=WIDE)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # `fairlead dev | head`: rich would leave with SystemExit, and we must stop in order.
        self.quiet = True


def _row(route: Route) -> tuple[str, ...]:
    serves = "WebSocket" if route.transport == "websocket" else f"SSE {' '.join(route.methods)}"
    history = route.history if isinstance(route.history, str) else "yes" if route.history else ""
    name = f"{route.feature} / {route.workflow}"
    return (route.endpoint, serves, name, route.topic or "", route.deliver or "", history)


def lines_to_try(route: Route, port: int) -> list[str]:
    """What to paste into a shell to see a route at work; one line a method."""
    # Any value will do; 1 is good for numbers, too.
    path = re.sub(r"\{[^}]*\}", "1", route.endpoint)
    if route.transport == "websocket":
        return [f"{python()} -m websockets ws://{LOOPBACK}:{port}{path}"]
    url = f"'http://{LOOPBACK}:{port}{path}?channel=blue'"
    post = f"curl -N {url} -d 'a text to POST'"
    return [post if method == "POST" else f"curl -N {url}" for method in route.methods]


def look_at_the_last(port: int) -> str:
    """What to paste into a shell to see where the last message's time went."""
    where = "" if port == DEFAULT_ADMIN_PORT else f" --from http://{LOOPBACK}:{port}"
    return f"fairlead trace --last{where}"


def python(environ: Mapping[str, str] = os.environ) -> str:
    """How a shell in this folder calls our Python, which has the websockets package."""
    found = shutil.which("python", path=environ.get("PATH"))
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "python"
    ours = Path(sys.executable)
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
