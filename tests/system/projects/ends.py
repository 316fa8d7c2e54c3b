"""Workflows that stand in the way of their worker's end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fairlead import WS, Message, feature, project

ends = feature("Ends")


@ends.websocket("loop", tag="badly")
async def loop(ctx: WS, message: Message) -> None:
    """Blocks the loop of its worker; the file says that it has begun."""
    Path(str(message.data)).touch()  # noqa: ASYNC240 - what the test is about
    time.sleep(60)  # noqa: ASYNC251 - what the test is about


@ends.websocket("thread", tag="badly")
def thread(ctx: WS, message: Message) -> None:
    """Blocks a thread."""
    Path(str(message.data)).touch()
    time.sleep(60)


@ends.websocket("deaf", tag="badly")
async def deaf(ctx: WS, message: Message) -> None:
    """Takes no notice of its cancellation."""
    Path(str(message.data)).touch()  # noqa: ASYNC240 - what the test is about
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


app = project(ends)
