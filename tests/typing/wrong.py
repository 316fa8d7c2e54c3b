"""A program that is wrong in each line that ends in `# wrong`, for mypy and pyright alike."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from fairlead import SSE, WS, History, Message, Query, broadcast, feature, trigger, workflow


class Said(BaseModel):
    text: str


chat = feature("Chat")


# What execute returns has no form on the wire.


@chat.websocket("a", tag="v1")  # wrong
async def a_set(ctx: WS, message: Message) -> set[str]:
    return {"neither text", "nor JSON"}


@chat.sse("/b", tag="v1")  # wrong
async def a_stream_of_locks(ctx: SSE) -> AsyncIterator[asyncio.Lock]:
    yield asyncio.Lock()


@workflow("C", tag="v1", trigger=trigger.websocket("c"))  # wrong
async def an_exception(ctx: WS, message: Message) -> Exception:
    return ValueError("raise it instead")


async def a_task(ctx: WS) -> "asyncio.Task[str]":
    return asyncio.create_task(asyncio.sleep(1, "await it instead"))


D = workflow("D", tag="v1", trigger=trigger.websocket("d"), execute=a_task)  # wrong


# Message[Model] has the model's fields, and no others.


@chat.websocket("e", tag="v1")
async def a_field(ctx: WS, message: Message[Said]) -> str:
    return message.data.txt  # wrong


@chat.websocket("f", tag="v1")
async def not_a_dict(ctx: WS, message: Message[Said]) -> str:
    return message.data["text"]  # wrong


@chat.websocket("g", tag="v1")
async def a_context(ctx: WS, message: Message[Said]) -> str:
    return ctx.body.decode()  # wrong


# Options: their names, their values, their types.

trigger.websocket("h", deliver="everyone")  # wrong
trigger.websocket("i", delivery="topic")  # wrong
trigger.websocket("j", window="1")  # wrong
trigger.websocket("k", history={"size": 10})  # wrong
trigger.websocket("l", history=History(sise=10))  # wrong
trigger.websocket("l", run="room")  # wrong
trigger.sse("/m", method="put")  # wrong
trigger.sse("/n", format="xml")  # wrong
chat.websocket("o", tag="v1", deliver="everyone")  # wrong
chat.websocket("p", tag="v1", delivery="topic")  # wrong
chat.websocket("q")  # wrong
chat.sse("/r", tag="v1", on_disconnect="wait")  # wrong
chat.sse("/s", tag="v1", deliver="topic")  # wrong
chat.sse("/t", tag="v1", policies=[1])  # wrong
broadcast("u", exclude=True)  # wrong
Query("v", default=3)  # wrong
