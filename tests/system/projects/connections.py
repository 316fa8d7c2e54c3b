"""Runs of connections, for tests/system/test_connections.py."""
# ruff: noqa: ASYNC110, ASYNC240 -- files are how a test in another process speaks with it

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fairlead import WS, Message, Reject, broadcast, direct, feature, project, reply

support = feature("Support")


def note(line: str) -> None:
    """Tell the test, in a file of its own."""
    if folder := os.environ.get("NOTES"):
        with Path(folder, "notes").open("a") as file:
            file.write(line + "\n")


@support.websocket("echo", tag="realtime")
async def echo(ctx: WS):  # type: ignore[no-untyped-def]  # as users may write it
    return ctx.channel


@support.websocket("counter", tag="realtime")
async def counter(ctx: WS) -> AsyncIterator[Any]:
    """Numbers what the client says; some of it are commands."""
    note("counter open")
    yield f"open {ctx.attempt}"
    number = 0
    try:
        async for message in ctx.channel:
            number += 1
            if message.data == "end":
                return
            if message.data == "raise":
                raise RuntimeError("secret")
            if message.data == "reject":
                raise Reject(403, "go away")
            if message.data == "nobody":
                yield direct("nobody", "hello")
            elif message.data == "room":
                yield broadcast("to the room")
            elif message.data == "reply":
                yield reply({"said": number})
            else:
                yield f"{number} {message.data}"
    finally:
        note(f"closed {ctx.connection}")


@support.websocket("slow", tag="realtime")
async def slow(ctx: WS) -> AsyncIterator[Any]:
    """Works on each message until it is told to go on, by a file."""
    async for message in ctx.channel:
        while not Path(os.environ["NOTES"], "go").exists():
            await asyncio.sleep(0.01)
        yield f"{ctx.attempt} {message.data}"


@support.websocket("endless", tag="realtime")
async def endless(ctx: WS) -> AsyncIterator[str]:
    """Never waits for anything but its reader."""
    note("endless open")
    number = 0
    try:
        while True:
            yield f"{number:010d} " + "x" * 1000
            number += 1
    finally:
        note(f"endless closed after {number}")


@support.websocket("large", tag="realtime")
async def large(ctx: WS) -> AsyncIterator[str]:
    """As many letters as the client says, and the end."""
    async for message in ctx.channel:
        for _ in range(int(message.data) // 90_000):
            yield "x" * 90_000
        note(f"large {message.data} done")
        return


@support.websocket("tiny", tag="realtime")
async def tiny(ctx: WS) -> AsyncIterator[None]:
    """Yields nothing, for ever, and never waits."""
    note("tiny open")
    try:
        while True:
            yield None
    finally:
        note("tiny closed")


@support.websocket("silent", tag="realtime")
async def silent(ctx: WS) -> AsyncIterator[str]:
    """Never yields."""
    note(f"silent open {ctx.attempt}")
    try:
        await asyncio.Event().wait()
        yield "never"
    finally:
        note("silent closed")


@support.websocket("stubborn", tag="realtime")
async def stubborn(ctx: WS) -> AsyncIterator[int]:
    """Swallows its cancellation once and goes on yielding."""
    number = 0
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            note("stubborn swallowed")
        number += 1
        yield number


@support.websocket("rooms.{room}", tag="realtime", deliver="topic")
async def room(ctx: WS) -> AsyncIterator[Any]:
    """Joins, repeats what is said to all, says good-bye."""
    yield {"joined": ctx.attempt}
    try:
        async for message in ctx.channel:
            yield message
    finally:
        await ctx.channel.broadcast({"left": ctx.connection})


@support.websocket("brief", tag="realtime")
async def brief(ctx: WS) -> None:
    """Is over as soon as it begins."""


@support.websocket("burst", tag="realtime")
async def burst(ctx: WS, message: Message) -> AsyncIterator[int]:
    """Per message, beside those per connection."""
    for number in range(int(message.data)):
        yield number


app = project(support)
