"""Runs that note when they were ended, in a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead import SSE, WS, Message, feature, project

cancels = feature("Cancels")


def note(line: str) -> None:
    with Path("cancels.log").open("a") as file:
        file.write(f"{line}\n")


async def endless(held: bool, farewell: float = 0.0) -> AsyncIterator[str]:
    """Until it is cancelled: now and then an item, or (held) as much as its reader takes.

    Args:
        farewell: seconds that its `finally` takes.
    """
    note("begin")
    number = 0
    try:
        while True:
            yield f"{number} ".ljust(10_000 if held else 10, "x")
            number += 1
            if held:
                note(f"item {number}")
            else:
                await asyncio.sleep(0.05)
    finally:
        note(f"finally {time.time()}")
        if farewell:
            await asyncio.sleep(farewell)


@cancels.sse("/kept", tag="runs", resume="5m")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    async for item in endless("held" in ctx.query, float(ctx.query.get("farewell", "0"))):
        yield item


@cancels.sse("/plain", tag="runs")
async def plain(ctx: SSE) -> AsyncIterator[str]:
    async for item in endless("held" in ctx.query):
        yield item


@cancels.websocket("message", tag="runs")
async def of_a_message(ctx: WS, message: Message) -> AsyncIterator[str]:
    async for item in endless(message.data == "held"):
        yield item


@cancels.websocket("connection", tag="runs")
async def of_a_connection(ctx: WS) -> AsyncIterator[str]:
    async for item in endless("held" in ctx.query):
        yield item


app = project(cancels)
