"""Runs that never stop, whoever asks, for tests/system/test_worker_drain.py."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fairlead import SSE, WS, Message, feature, project

never = feature("Never")


def _first() -> bool:
    """Whether this worker is the one that is to be told in vain."""
    return "WILLING" not in os.environ


def note(line: str) -> None:
    """Tell the test, in a file of its own."""
    with Path(os.environ["NOTES"], "notes").open("a") as file:
        file.write(line + "\n")


async def _swallow() -> None:
    """Wait for ever; a cancellation is no reason to stop."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note(f"swallowed {os.getpid()}")
            if not _first():
                raise


@never.websocket("connection", tag="stops")
async def connection(ctx: WS) -> AsyncIterator[str]:
    yield f"open {ctx.attempt}"
    await _swallow()


@never.websocket("message", tag="stops")
async def message(ctx: WS, message: Message) -> str:
    if _first():
        note("began")
        await _swallow()
    return f"attempt {ctx.attempt}"


@never.websocket("room", tag="stops", run="topic", history=None)
async def room(ctx: WS) -> AsyncIterator[Any]:
    yield {"pid": os.getpid(), "attempt": ctx.attempt}
    await _swallow()


@never.sse("/kept", tag="stops", resume="5m", on_worker_lost="error")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    yield f"open {ctx.attempt}"
    await _swallow()


@never.websocket("good-bye", tag="stops")
async def good_bye(ctx: WS) -> AsyncIterator[str]:
    """Its `finally` takes longer than anybody waits."""
    yield f"open {ctx.attempt}"
    try:
        await asyncio.Event().wait()
    finally:
        note("finally")
        await asyncio.sleep(3600)


@never.websocket("thread", tag="stops")
def thread(ctx: WS, message: Message) -> str:
    """A plain function that does not return."""
    if _first():
        note("began")
        time.sleep(3600)
    return f"attempt {ctx.attempt}"


@never.websocket("threads", tag="stops")
async def threads(ctx: WS, message: Message) -> str:
    """Threads of the project's own: the loop's, and one that Python waits for."""
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "started"


@never.websocket("stuck", tag="stops")
async def stuck(ctx: WS, message: Message) -> str:
    """Blocks the loop."""
    if _first():
        note("began")
        time.sleep(3600)  # noqa: ASYNC251 - what the test is about
    return f"attempt {ctx.attempt}"


app = project(never)
