"""Each way in which Fairlead uses NATS, for tests/system/test_nats_auth.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fairlead import SSE, WS, History, Message, direct, feature, project, streams

shop = feature("Shop")


@shop.websocket("chat", tag="v1", deliver="topic", history=History(100, "60s"))
async def chat(ctx: WS, message: Message) -> str:
    if message.data == "raise":
        raise RuntimeError("asked for")
    return str(message.data)


@shop.websocket("news", tag="v1", deliver="topic", history=None)
async def news(ctx: WS, message: Message) -> Any:
    return message.data


@shop.websocket("talk", tag="v1")
async def talk(ctx: WS, message: Message) -> Any:
    """`{"to": …, "say": …}`"""
    said = message.json()
    return direct(said["to"], said["say"])


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


@shop.sse("/errors", tag="v1")
async def errors(ctx: SSE) -> AsyncIterator[Any]:
    yield "listening"
    async for error in streams.process_errors("fleet"):
        yield error["type"]


app = project(shop)
