"""Rooms whose members may read slowly, in each of the ways to deal with that."""

# ruff: noqa: ASYNC110 -- files are how a policy in another process speaks with the test

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fairlead import WS, Channel, History, Message, feature, project

busy = feature("Busy")

KEPT = History(size=10_000, age="5m")


@busy.websocket("strict", tag="rooms", history=KEPT)
async def strict(ctx: WS, message: Message) -> str:
    return f"answer to {message.data}"


@busy.websocket("feed", tag="rooms", history=KEPT, overflow="drop_oldest")
async def feed(ctx: WS, message: Message) -> str:
    return f"answer to {message.data}"


@busy.websocket("prices", tag="rooms", history=KEPT, overflow="latest")
async def prices(ctx: WS, message: Message) -> str:
    return f"answer to {message.data}"


async def held(ctx: WS) -> str:
    """Takes its time: until the test says so."""
    folder = Path(os.environ["NOTES"])
    (folder / "asked").touch()
    while not (folder / "go").exists():
        await asyncio.sleep(0.01)
    return "ann"


@busy.websocket("strict.held", tag="rooms", history=KEPT, policies=[held])
async def strict_held(ctx: WS) -> Channel:
    return ctx.channel


@busy.websocket("feed.held", tag="rooms", history=KEPT, overflow="drop_oldest", policies=[held])
async def feed_held(ctx: WS) -> Channel:
    return ctx.channel


app = project(busy)
