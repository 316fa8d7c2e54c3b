"""A program that is right: neither type checker has anything to say about it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel

from fairlead import (
    SSE,
    WS,
    Broadcast,
    Direct,
    Event,
    History,
    Message,
    Path,
    Query,
    broadcast,
    direct,
    feature,
    project,
    reply,
    trigger,
    workflow,
)


class Said(BaseModel):
    text: str
    to: str | None = None


@dataclass
class Position:
    x: float
    y: float


class Row(TypedDict):
    name: str


chat = feature("Chat")


@chat.websocket("chat", tag="v1", deliver="topic", history=History(size=10, age="1m"), window=4)
async def said(ctx: WS, message: Message[Said]) -> str | Direct:
    if message.data.to is not None:
        return direct(message.data.to, message.data.text)
    return f"{ctx.query['name']}: {message.data.text}"


@chat.websocket("model", tag="v1")
async def model(ctx: WS, message: Message[Said]) -> Said:
    return message.data


@chat.websocket("rows", tag="v1")
async def rows(ctx: WS, message: Message) -> list[Row]:
    return [{"name": str(message.data)}]


@chat.websocket("moves", tag="v1", run="connection", history=None)
async def moves(ctx: WS) -> AsyncIterator[Position | Broadcast]:
    async for _ in ctx.channel:
        yield Position(1.0, 2.0)
        yield broadcast({"moved": True}, exclude_self=True)


@chat.websocket("prices.{market}", tag="v1", run="topic")
async def prices(ctx: WS, market: Annotated[str, Path()]) -> AsyncIterator[Position]:
    yield Position(1.0, len(market))


@chat.sse("/numbers", tag="v1", method="get", format="text", on_disconnect="continue")
async def numbers(ctx: SSE, up_to: Annotated[int, Query()] = 3) -> AsyncIterator[str | Event]:
    for number in range(up_to):
        yield str(number)
    yield Event(None, comment="done")


@chat.sse("/thread", tag="v1")
def thread(ctx: SSE) -> Iterator[bytes]:
    yield ctx.body


@chat.websocket("whatever", tag="v1")
async def whatever(ctx: WS, message: Message) -> Any:
    return reply(message.json())


@workflow("Echo", tag="v1", trigger=trigger.websocket(topic="echo", deliver="others"))
async def echo(ctx: WS) -> Any:
    return ctx.channel


async def plain(ctx: WS, message: Message) -> None:
    await ctx.channel.send(message.data)


app = project(
    chat,
    feature(
        "More",
        workflows=[
            echo,
            workflow("Plain", tag="v1", trigger=trigger.websocket("plain"), execute=plain),
        ],
    ),
)
