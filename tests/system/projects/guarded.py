"""Policies and inputs, for tests/system/test_policies.py and test_inputs.py."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel

from fairlead import (
    SSE,
    WS,
    Body,
    Header,
    Message,
    Path,
    Query,
    Reject,
    direct,
    feature,
    project,
    trigger,
    workflow,
)

support = feature("Support")


@dataclasses.dataclass
class User:
    id: str
    role: str


async def who(ctx: WS | SSE) -> Any:
    """`?user=` says who it is; nobody without it."""
    if ctx.query.get("user") == "boom":
        raise RuntimeError("secret")
    if ctx.query.get("user") == "slow":
        await asyncio.sleep(60)
    if "user" not in ctx.query:
        raise Reject(401, "say who you are: ?user=NAME")
    return User(ctx.query["user"], "admin" if ctx.query["user"] == "ann" else "guest")


def not_banned(ctx: WS | SSE) -> bool:
    """A plain function that may block."""
    time.sleep(0.01)
    return bool(ctx.subject.id != "mallory")


def admins(ctx: WS | SSE) -> bool:
    return bool(ctx.subject["role"] == "admin")


@support.websocket("talk", tag="realtime", deliver="topic", policies=[who, not_banned])
async def talk(ctx: WS, message: Message) -> Any:
    return {"worker": os.getpid(), "subject": ctx.subject, "same": message.subject == ctx.subject}


@support.websocket("talk", tag="whole", deliver="topic", policies=[who, not_banned])
async def whole(ctx: WS) -> AsyncIterator[Any]:
    yield {"subject": ctx.subject, "attempt": ctx.attempt}
    async for message in ctx.channel:
        yield {"said": message.data, "by": message.subject.id}


@support.websocket("talk", tag="direct", policies=[who])
async def one_to_one(ctx: WS, message: Message) -> Any:
    to, text = message.data.split(" ", 1)
    return direct(to, text)


@support.sse("/me", tag="realtime", policies=[who, admins])
async def me(ctx: SSE) -> Any:
    return ctx.subject


@support.sse("/post", tag="realtime", method="post", policies=[who])
async def post(ctx: SSE) -> str:
    return ctx.body.decode()


room = workflow("Room", tag="realtime", trigger=trigger.sse("/room", topic="talk", policies=[who]))
support.workflows.append(room)


class Order(BaseModel):
    name: str
    count: int


@support.sse("/inputs/{number}", tag="realtime", method="get")
async def inputs(
    ctx: SSE,
    number: Annotated[int, Path()],
    channel_name: Annotated[str, Query(alias="name")],
    user_agent: Annotated[str, Header()],
    many: Annotated[list[int], Query()],
    limit: Annotated[int, Query()] = 10,
) -> Any:
    return [number, channel_name, user_agent, many, limit]


@support.sse("/order", tag="realtime", method="post")
async def order(ctx: SSE, order: Annotated[Order, Body()]) -> Any:
    return {"ordered": order.name, "count": order.count}


@support.websocket("orders", tag="realtime", path="/orders/{shop}")
async def orders(
    ctx: WS, message: Message[Order], shop: Annotated[int, Path()], lang: Annotated[str, Query()]
) -> Any:
    return {"name": message.data.name, "shop": shop, "lang": lang}


@support.websocket("wholeorders", tag="realtime")
async def whole_orders(ctx: WS, lang: Annotated[str, Query()]) -> AsyncIterator[Any]:
    async for message in ctx.channel:
        yield f"{lang} {message.data}"


app = project(support)
