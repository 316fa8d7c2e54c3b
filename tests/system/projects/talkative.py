"""Writes lines wherever a program can, for tests/system/test_logs.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import structlog

from fairlead import SSE, WS, Message, feature, project

shop = feature("Shop")
log = logging.getLogger("shop")
events = structlog.get_logger("shop")


def say(text: str) -> None:
    """By both kinds of loggers."""
    log.info("%s, by logging", text, extra={"item": 7})
    events.info(f"{text}, by structlog", item=7)


def ids(ctx: WS | SSE) -> dict[str, Any]:
    """What stands on each of its lines."""
    return {"trace_id": ctx.trace_id, "run": ctx.run_id, "connection": ctx.connection}


def policy(ctx: WS | SSE) -> bool:
    say("a policy")
    return True


async def in_a_task(text: str) -> None:
    say(text)


@shop.websocket("function", tag="v1")
async def function(ctx: WS, message: Message) -> Any:
    say("a function")
    await asyncio.create_task(in_a_task("a task"))
    await asyncio.to_thread(say, "a thread of its own")
    return ids(ctx)


@shop.websocket("plain", tag="v1")
def plain(ctx: WS, message: Message) -> Any:
    say("a plain function")
    return ids(ctx)


@shop.websocket("steps", tag="v1")
def steps(ctx: WS, message: Message) -> Iterator[Any]:
    say("a plain generator")
    yield ids(ctx)
    say("its second step")


@shop.websocket("connection", tag="v1")
async def connection(ctx: WS) -> AsyncIterator[Any]:
    async for _ in ctx.channel:
        say("a run of a connection")
        yield ids(ctx)


@shop.sse("/stream", tag="v1", policies=[policy])
async def stream(ctx: SSE) -> AsyncIterator[Any]:
    say("a stream")
    yield ids(ctx)


@shop.websocket("shared.{room}", tag="v1", run="topic", history=None)
async def shared(ctx: WS) -> AsyncIterator[Any]:
    say("a run of a room")
    yield ids(ctx)


@shop.websocket("fails", tag="v1")
async def fails(ctx: WS, message: Message) -> None:
    raise LookupError(message.data)


app = project(shop)
