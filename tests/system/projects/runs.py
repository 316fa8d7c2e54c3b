"""Runs whose output is kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead import SSE, WS, Event, Message, Reject, feature, project
from fairlead.context import Sendable

runs = feature("Runs")


def _log(line: str) -> None:
    """Tell the test what happened here; a file, since the run may end with its process."""
    with Path(os.environ.get("RUNS_LOG", "runs.log")).open("a") as file:
        file.write(line + "\n")


async def _count(ctx: SSE) -> AsyncIterator[str]:
    """`?n=` numbers, one each `?every=` ms, of the attempt that it is."""
    pause = float(ctx.query.get("every", "20")) / 1000
    _log(f"begin {ctx.attempt} {os.getpid()}")
    try:
        for number in range(int(ctx.query.get("n", "1000000"))):
            yield f"{ctx.attempt}:{number}"
            await asyncio.sleep(pause)
    finally:
        _log(f"finally {ctx.attempt}")


@runs.sse("/count", tag="kept", resume="5m")
async def count(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item


@runs.sse("/brief", tag="kept", resume="1s")
async def brief(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item


@runs.sse("/on", tag="kept", resume="1s", on_disconnect="continue")
async def on(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item
    _log("complete")


@runs.sse("/once", tag="kept", resume="5m", on_worker_lost="error")
async def once(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item


@runs.sse("/large", tag="kept", resume="5m")
async def large(ctx: SSE) -> AsyncIterator[str]:
    async for item in _large(ctx):
        yield item


@runs.sse("/large-on", tag="kept", resume="1s", on_disconnect="continue")
async def large_on(ctx: SSE) -> AsyncIterator[str]:
    async for item in _large(ctx):
        yield item
    _log("complete")


async def _large(ctx: SSE) -> AsyncIterator[str]:
    """`?n=` items of `?size=` bytes, as fast as they go."""
    size = int(ctx.query.get("size", "1024"))
    for number in range(int(ctx.query.get("n", "1000000"))):
        if number % 64 == 0:
            _log(f"yields {number}")
        yield f"{number}:".ljust(size, "x")


@runs.sse("/kinds", tag="kept", resume="5m")
async def kinds(ctx: SSE) -> AsyncIterator[Sendable]:
    yield {"json": 1}
    yield b"bytes"
    yield Event("named", event="name", retry=5)
    yield Event(comment="only a comment")


@runs.sse("/fails", tag="kept", resume="5m")
async def fails(ctx: SSE) -> AsyncIterator[int]:
    yield 1
    raise RuntimeError("as it should")


def whoever(ctx: SSE) -> object:
    """Who says who it is, is that; `none` is nobody, and refused."""
    who = ctx.query.get("who", "")
    if who == "none":
        raise Reject(403, "nobody")
    return {"id": who} if who else True


@runs.sse("/mine", tag="kept", method="post", resume="5m", policies=[whoever])
async def mine(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item


@runs.sse("/live", tag="plain")
async def live(ctx: SSE) -> AsyncIterator[str]:
    async for item in _count(ctx):
        yield item


@runs.websocket("ear", tag="plain")
async def ear(ctx: WS, message: Message) -> None:
    """Says nothing."""


app = project(runs)
