"""Runs that all members of a room share, for tests/system/test_topic_runs.py."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fairlead import SSE, WS, History, Message, Reject, feature, project, reply
from fairlead import Path as PathInput

support = feature("Support")

KEPT = History(size=1000, age="5m")


def note(line: str) -> None:
    """Tell the test, in a file of its own."""
    with Path(os.environ["NOTES"], "notes").open("a") as file:
        file.write(line + "\n")


def who(ctx: WS) -> dict[str, Any]:
    return {"pid": os.getpid(), "attempt": ctx.attempt}


@support.websocket("ticks.{room}", tag="realtime", path="/ticks/{room}", run="topic", history=KEPT)
async def ticks(ctx: WS, room: Annotated[str, PathInput()]) -> AsyncIterator[Any]:
    """Counts, 20 times a second; says who counts."""
    note(f"begin {room} {ctx.channel.name} {os.getpid()}")
    try:
        for number in itertools.count(1):
            yield who(ctx) | {"number": number, "room": room}
            await asyncio.sleep(0.05)
    finally:
        note(f"finally {room} {ctx.channel.name} {os.getpid()}")


@support.websocket("quick", tag="realtime", run="topic", history=None)
async def quick(ctx: WS) -> AsyncIterator[Any]:
    """The same in a room that keeps nothing."""
    for number in itertools.count(1):
        yield who(ctx) | {"number": number}
        await asyncio.sleep(0.05)


@support.websocket("once", tag="realtime", run="topic")
async def once(ctx: WS) -> str:
    return (
        f"once {ctx.attempt} {dict(ctx.query)} {dict(ctx.headers)} {ctx.subject} {ctx.connection!r}"
    )


@support.websocket("fails", tag="realtime", run="topic")
async def fails(ctx: WS) -> AsyncIterator[Any]:
    yield f"attempt {ctx.attempt}"
    if ctx.attempt == 1:
        yield reply("nobody")
    if ctx.attempt == 2:
        async for _ in ctx.channel:
            pass
    await asyncio.Event().wait()


def invited(ctx: WS) -> bool:
    if "ask" in ctx.query:
        raise Reject(409, "asked")
    return "token" in ctx.query


@support.websocket("guarded.{number}", tag="realtime", run="topic", policies=[invited])
async def guarded(ctx: WS, number: Annotated[int, PathInput()]) -> int:
    return number + 1


@support.websocket(
    "ticks.{room}", tag="realtime", path="/say/{room}", deliver="topic", history=KEPT
)
async def say(ctx: WS, message: Message) -> Any:
    return message.data


@support.sse("/watch/{room}", tag="stream", topic="ticks.{room}")
async def watch(ctx: SSE) -> AsyncIterator[str]:
    yield "the run of this stream"
    await asyncio.Event().wait()


app = project(support)
