"""Asks the project for its routes, in a process of its own.

The supervisor never imports user code: it would hold the modules as they were at its start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fairlead.dev.processes import die_with

# Seconds that a project may take to import.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """One workflow and where clients reach it, as `fairlead routes --json` prints it.

    Attributes:
        topic: None where there is none.
        history: what its room keeps; None or False where it keeps nothing.
        checks: whether it has policies or inputs, so that its bare endpoint may refuse.
    """

    workflow: str
    feature: str
    transport: Literal["websocket", "sse"]
    methods: tuple[str, ...]
    endpoint: str
    topic: str | None = None
    history: Any = None
    deliver: str | None = None
    checks: bool = False


_routes = TypeAdapter(list[Route])


class RoutesFailed(Exception):
    """The project could not be asked.

    Attributes:
        code: the exit code of the command.
        said: what it wrote on stderr; the traceback of the user's module.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"`fairlead routes` ended with exit code {code}")
        self.code = code
        self.said = said


async def read(command: Sequence[str], target: str, env: Mapping[str, str]) -> list[Route]:
    """Run `fairlead routes TARGET --json`; a caller that is cancelled leaves no process.

    Raises:
        RoutesFailed: it ended with another code than 0, took too long or printed no routes.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        "routes",
        target,
        "--json",
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with(os.getpid()),
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        raise RoutesFailed(1, f"{target} was not imported within {PATIENCE:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = err.decode(errors="replace")
    if process.returncode:
        raise RoutesFailed(process.returncode, said)
    # What the user's module prints while it is imported stands before.
    last = out.strip().rpartition(b"\n")[2]
    try:
        return _routes.validate_json(last)
    except ValidationError as exc:
        raise RoutesFailed(1, f"{said}\n`fairlead routes` printed no routes: {exc}") from exc
