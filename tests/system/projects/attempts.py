"""Messages whose end waits for the test, for tests/system/test_attempts.py."""

# ruff: noqa: ASYNC110 -- files are how the test in another process speaks with it
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead import WS, Message, feature, project

attempts = feature("Attempts")

FOLDER = Path(os.environ.get("NOTES", "."))


def note(line: str) -> None:
    """Tell the test, in a file of its own."""
    with (FOLDER / "notes").open("a") as file:
        file.write(line + "\n")


async def _told_to_go() -> None:
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.01)


@attempts.websocket("quiet", tag="runs")
async def quiet(ctx: WS, message: Message) -> str:
    note(f"began {ctx.attempt}")
    await _told_to_go()
    return f"said by {ctx.attempt}"


@attempts.websocket("talks", tag="runs")
async def talks(ctx: WS, message: Message) -> AsyncIterator[str]:
    note(f"began {ctx.attempt}")
    try:
        yield f"first word of {ctx.attempt}"
        await _told_to_go()
        yield f"last word of {ctx.attempt}"
    finally:
        note(f"finally {ctx.attempt}")


app = project(attempts)
