"""Runs that belong to somebody, and connections of those who would end them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead import SSE, WS, Message, Reject, feature, project

owned = feature("Owned")


def _log(line: str) -> None:
    """Tell the test what happened here."""
    with Path(os.environ.get("RUNS_LOG", "runs.log")).open("a") as file:
        file.write(line + "\n")


def whoever(ctx: WS | SSE) -> object:
    """Who says who it is, is that, but for `none`, who is refused everywhere, and in room 2 all are."""
    who = ctx.query.get("who", "")
    _log(f"asked {who} {dict(ctx.path)}")
    if who == "none" or ctx.path.get("room") == "2":
        raise Reject(403, "not you")
    return {"id": who} if who else True


def claimed(ctx: WS) -> object:
    """The policy of another workflow, which takes other names for good."""
    return {"id": ctx.query["as"]}


async def _endless(ctx: SSE | WS) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.02)
    finally:
        _log(f"finally {time.time()}")


@owned.sse("/kept/{room}", tag="v1", resume="5m", policies=[whoever])
async def kept(ctx: SSE) -> AsyncIterator[int]:
    async for number in _endless(ctx):
        yield number


@owned.sse("/plain/{room}", tag="v1", policies=[whoever])
async def plain(ctx: SSE) -> AsyncIterator[int]:
    async for number in _endless(ctx):
        yield number


@owned.sse("/other", tag="v1")
async def other(ctx: SSE) -> AsyncIterator[int]:
    async for number in _endless(ctx):
        yield number


@owned.websocket("talk.{room}", tag="v1", policies=[whoever])
async def talk(ctx: WS) -> AsyncIterator[int]:
    """Once per connection."""
    async for number in _endless(ctx):
        yield number


@owned.websocket("ear", tag="v1")
async def ear(ctx: WS, message: Message) -> None:
    """Says nothing, and asks nobody who it is."""


@owned.websocket("claim", tag="v1", policies=[claimed])
async def claim(ctx: WS, message: Message) -> None:
    """Says nothing, and takes whoever it is for somebody."""


app = project(owned)
