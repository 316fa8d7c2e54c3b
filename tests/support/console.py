"""The console, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fairlead.testing.system import Process, System
from fairlead.testing.waiting import until_ready


class Console(Process):
    """A running `fairlead console`.

    Attributes:
        port: of 127.0.0.1, where it serves everything.
    """

    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


async def start_console(
    app: System, *flags: str, env: Mapping[str, str] | None = None, ready: bool = True
) -> Console:
    """Start one; returns when it is ready, or (ready=False) when it listens."""
    console = Console(app.start("console", "--port", "0", *flags, env=env).program)
    await console.says("console listens on")
    console.port = next(
        int(json.loads(line)["port"]) for line in console.program.lines if "listens on" in line
    )
    if ready:
        await until_ready(console.url("/readyz"))
    return console
