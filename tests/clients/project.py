"""What the scenarios of the clients talk to."""
# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 -- files are how a test in another process speaks with it

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from fairlead import SSE, WS, Event, Message, Reject, feature, project, trigger, workflow

support = feature("Support")


@support.websocket("rooms.{room}", tag="realtime", deliver="topic")
async def everyone(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("volatile", tag="realtime", deliver="topic", history=None)
async def volatile(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("echo", tag="realtime")
async def echo(ctx: WS, message: Message) -> Message:
    return message


@support.websocket("fails", tag="realtime")
async def fails(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Fails before it yields, while it yields, or not."""
    if message.data == "before":
        raise RuntimeError("a secret")
    yield "one"
    if message.data == "while":
        raise Reject(418, "a teapot")


@support.websocket("endless", tag="realtime")
async def endless(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Until it is cancelled; then it leaves a note at the path that it was given."""
    try:
        while True:
            yield "token"
            await asyncio.sleep(0.01)
    finally:
        with open(str(message.data), "w") as note:
            note.write("cancelled")


@support.websocket("held", tag="realtime")
async def held(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Begins, then waits for a file to appear: the test decides when it ends."""
    yield f"attempt {ctx.attempt}"
    while not os.path.exists(str(message.data)):
        await asyncio.sleep(0.02)
    yield "end"


@support.websocket("counter", tag="realtime")
async def counter(ctx: WS) -> AsyncIterator[str]:
    """Once per connection: numbers what the client says, until it says `end`."""
    yield f"open {ctx.attempt}"
    number = 0
    async for message in ctx.channel:
        number += 1
        if message.data == "end":
            return
        yield f"{number} {message.data}"


@support.sse("/post", tag="stream", method="post")
async def post(ctx: SSE) -> dict[str, str]:
    return {"body": ctx.body.decode(), "header": ctx.headers["X-Test"]}


@support.sse("/text", tag="stream", format="text")
async def text(ctx: SSE) -> AsyncIterator[Any]:
    yield "one\ntwo\r\nthree"
    yield {"a": 1}


@support.sse("/kinds", tag="stream")
async def kinds(ctx: SSE) -> AsyncIterator[Any]:
    yield "text"
    yield b"\x00\xff"
    yield Event({"b": 2}, event="named")


@support.sse("/fails", tag="stream")
async def fails_streaming(ctx: SSE) -> AsyncIterator[str]:
    yield "one"
    raise RuntimeError("a secret")


@support.sse("/endless", tag="stream")
async def endless_stream(ctx: SSE) -> AsyncIterator[int]:
    """Until its client goes; then it leaves a note at the path that it was given."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.01)
    finally:
        with open(ctx.query["note"], "w") as note:
            note.write("cancelled")


@support.sse("/again", tag="stream", on_worker_lost="restart")
async def again(ctx: SSE) -> AsyncIterator[str]:
    """Its first attempt never ends."""
    yield f"attempt {ctx.attempt}"
    if ctx.attempt == 1:
        await asyncio.Event().wait()


@support.sse("/kept", tag="stream", method="post", resume="1m")
async def kept(ctx: SSE) -> AsyncIterator[int]:
    """Ten numbers, and then one more when a file is there; a note when it begins, and when it is
    cancelled."""
    async for number in _until_there(ctx.body.decode()):
        yield number


@support.sse("/brief", tag="stream", method="post", resume="1s", on_disconnect="continue")
async def brief(ctx: SSE) -> AsyncIterator[int]:
    """The same, whoever is there to read it; soon after its end it is forgotten."""
    async for number in _until_there(ctx.body.decode()):
        yield number


@support.sse("/unwatched", tag="stream", method="post", on_disconnect="continue")
async def unwatched(ctx: SSE) -> AsyncIterator[int]:
    """The same, whoever is there to read it."""
    async for number in _until_there(ctx.body.decode()):
        yield number


async def _until_there(path: str) -> AsyncIterator[int]:
    with open(f"{path} begun", "w") as note:
        note.write("begun")
    try:
        for number in range(10):
            yield number
        while not os.path.exists(path):
            await asyncio.sleep(0.02)
        yield 10
    except asyncio.CancelledError:
        with open(f"{path} cancelled", "w") as note:
            note.write("cancelled")
        raise


support.workflows.append(
    workflow("Watch", tag="stream", trigger=trigger.sse("/rooms/{room}", topic="rooms.{room}"))
)

app = project(support)
