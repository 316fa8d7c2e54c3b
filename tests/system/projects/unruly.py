"""What user code does and should not, for tests/system/test_unruly.py."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fairlead import SSE, WS, Message, Reject, feature, project

unruly = feature("Unruly")


def note(line: str) -> None:
    """Tell the test, in a file of its own."""
    if folder := os.environ.get("NOTES"):
        with Path(folder, "notes").open("a") as file:
            file.write(line + "\n")


# Messages


@unruly.websocket("numbers", tag="v1")
async def numbers(ctx: WS, message: Message[list[int]]) -> int:
    return len(message.data)


@unruly.websocket("named", tag="v1")
async def named(ctx: WS, message: Message[dict[str, int]]) -> int:
    return len(message.data)


@unruly.websocket("halves", tag="v1")
async def halves(ctx: WS, message: Message) -> None:
    """Raises with a text that no UTF-8 has: half of a surrogate pair."""
    note(f"halves {ctx.attempt}")
    name = json.loads(r'"\ud800"')
    raise Reject(400, f"unknown: {name}") if message.data == "reject" else ValueError(name)


@unruly.websocket("books", tag="v1")
async def books(ctx: WS, message: Message) -> None:
    raise Reject(400, "x" * 2_000_000)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


@unruly.websocket("mute", tag="v1")
async def mute(ctx: WS, message: Message) -> None:
    raise Mute


@unruly.websocket("foreign", tag="v1")
async def foreign(ctx: WS, message: Message) -> None:
    """Waits for something that is cancelled."""
    note(f"foreign {ctx.attempt}")
    other = asyncio.ensure_future(asyncio.sleep(60))
    other.cancel()
    await other


@unruly.websocket("found", tag="v1")
def found(ctx: WS, message: Message) -> str:
    return next(name for name in ("ann", "ben") if name == message.data)


@unruly.websocket("driver", tag="v1")
async def driver(ctx: WS, message: Message) -> None:
    """Makes an error of its own of a cancellation, as database drivers do."""
    note(f"driver {ctx.attempt}")
    if ctx.attempt > 1:
        return
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise RuntimeError("the query was interrupted") from None


# Connections


@unruly.websocket("three", tag="v1")
async def three(ctx: WS) -> None:
    """Says three things at a time."""

    async def say(name: str) -> None:
        for number in range(10):
            await ctx.channel.send(f"{name} {number} ".ljust(100_000, "x"))

    await anext(aiter(ctx.channel))
    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(say(name))


@unruly.websocket("swallows", tag="v1")
async def swallows(ctx: WS) -> None:
    try:
        await ctx.channel.send(f"open {ctx.attempt}")
        async for message in ctx.channel:
            await ctx.channel.send(message.data)
    except asyncio.CancelledError:
        note("swallows has cleaned up")


@unruly.websocket("raises", tag="v1")
async def raises(ctx: WS) -> None:
    try:
        await ctx.channel.send(f"open {ctx.attempt}")
        async for message in ctx.channel:
            await ctx.channel.send(message.data)
    finally:
        raise RuntimeError("already closed")


@unruly.sse("/kept", tag="v1", resume="5m")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    try:
        while True:
            yield f"attempt {ctx.attempt}"
            await asyncio.sleep(0.05)
    finally:
        raise RuntimeError("already closed")


# Rooms


@unruly.websocket("ticks.{room}", tag="v1", run="topic", history=None)
async def ticks(ctx: WS) -> None:
    try:
        while True:
            await ctx.channel.broadcast({"attempt": ctx.attempt, "worker": os.getpid()})
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        note("ticks has cleaned up")


@unruly.websocket("fails.{room}", tag="v1", run="topic", history=None)
async def fails(ctx: WS) -> Any:
    note(f"fails {ctx.attempt}")
    raise RuntimeError("no source")


app = project(unruly)
