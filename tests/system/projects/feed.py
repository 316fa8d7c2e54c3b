"""A feed of errors whose readers are broken, for tests/system/test_error_feed.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fairlead import SSE, WS, Message, feature, project
from fairlead.streams import interval, map, merge, process_errors, tap

support = feature("Support")


async def fails(error: Any) -> None:
    raise RuntimeError("the logger of errors is broken")


def log(error: Any) -> None:
    asyncio.get_running_loop().create_task(fails(error))


@support.sse("/errors", tag="feed")
async def errors(ctx: SSE) -> AsyncIterator[Any]:
    """As the seed's StreamErrorsLogging; what logs is broken, and so is what sends."""
    yield "listening"
    beats = map(interval("60s"), lambda tick: {"alive": tick})
    async for item in merge(tap(process_errors("fleet"), log), beats):
        if "message" in item:
            asyncio.get_running_loop().create_task(fails(item))
        yield item


@support.websocket("fail", tag="feed")
async def fail(ctx: WS, message: Message) -> None:
    raise ValueError(message.data)


app = project(support)
