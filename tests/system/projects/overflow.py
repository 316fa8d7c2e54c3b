"""Rooms whose members may read slowly, in each of the ways to deal with that."""

from __future__ import annotations

from fairlead import WS, History, Message, feature, project

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


app = project(busy)
