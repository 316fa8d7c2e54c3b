"""A run of each kind, for tests/system/test_console_page.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fairlead import SSE, WS, History, Message, feature, project

shop = feature("Shop")


@shop.websocket("chat", tag="v1", deliver="topic", history=History(100, "60s"))
async def chat(ctx: WS, message: Message) -> Any:
    return message.data


@shop.websocket("endless", tag="v1")
async def endless(ctx: WS, message: Message) -> AsyncIterator[int]:
    async for number in _numbers():
        yield number


@shop.websocket("counter", tag="v1")
async def counter(ctx: WS) -> AsyncIterator[int]:
    number = 0
    async for _ in ctx.channel:
        number += 1
        yield number


@shop.websocket("ticks", tag="v1", run="topic")
async def ticks(ctx: WS) -> AsyncIterator[int]:
    number = 0
    while True:
        number += 1
        yield number
        await asyncio.sleep(0.05)


async def _numbers() -> AsyncIterator[int]:
    for number in range(100_000):
        yield number
        await asyncio.sleep(0.02)


@shop.sse("/kept", tag="v1", resume="1m")
async def kept(ctx: SSE) -> AsyncIterator[int]:
    async for number in _numbers():
        yield number


@shop.sse("/live", tag="v1", on_worker_lost="restart")
async def live(ctx: SSE) -> AsyncIterator[int]:
    async for number in _numbers():
        yield number


app = project(shop)
