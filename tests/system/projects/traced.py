"""Workflows whose spans are looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import trace

from fairlead import (
    SSE,
    WS,
    Direct,
    History,
    Message,
    Reject,
    broadcast,
    direct,
    feature,
    project,
    reply,
    trigger,
    workflow,
)
from fairlead.streams import map, merge

support = feature("Support")
tracer = trace.get_tracer("a user's own")


async def signalled(file: Any) -> None:
    """Wait for a file to appear, as a test in another process says go."""
    while not os.path.exists(str(file)):  # noqa: ASYNC110, ASYNC240 - the test's signal
        await asyncio.sleep(0.02)


@support.websocket("rooms.{room}", tag="realtime", deliver="topic", history=History(100, "5m"))
async def everyone(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("echo", tag="realtime")
async def echo(ctx: WS, message: Message) -> Message:
    return message


@support.websocket("spans", tag="realtime")
async def spans(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Spans of the user's own, one beside an item and one in another."""
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        await asyncio.sleep(0)
    yield ctx.trace_id
    with tracer.start_as_current_span("after an item"):
        pass


@support.websocket("threads", tag="realtime")
def threads(ctx: WS, message: Message) -> str:
    """A plain function: its thread has the span, too."""
    with tracer.start_as_current_span("in a thread"):
        return "done"


@support.websocket("slow.{room}", tag="realtime")
async def slow(ctx: WS, message: Message) -> AsyncIterator[Any]:
    """Says that it began, waits for a file to appear, then tells the room."""
    yield reply(ctx.attempt)
    await signalled(message.data)
    yield broadcast("end")


@support.websocket("raises", tag="realtime")
async def raises(ctx: WS, message: Message) -> None:
    raise RuntimeError("a secret")


@support.websocket("rejects", tag="realtime")
async def rejects(ctx: WS, message: Message) -> None:
    raise Reject(402, "pay first")


@support.websocket(
    "plain.{room}", tag="realtime", deliver="topic", overflow="drop_oldest", history=None
)
async def plain(ctx: WS, message: Message) -> Any:
    """A room without history."""
    return message.data


async def named(ctx: WS) -> Any:
    """Who says no name stays outside; one name makes it fail."""
    name = ctx.query.get("name")
    if name == "broken":
        raise RuntimeError("a secret")
    with tracer.start_as_current_span("in a policy"):
        return name or False


@support.websocket("letters.{box}", tag="realtime", policies=[named])
async def letters(ctx: WS, message: Message) -> Direct:
    """`{"to": …, "text": …}`, to one of the topic."""
    letter = message.json()
    return direct(letter["to"], letter["text"])


@support.websocket("talk.{room}", tag="realtime", deliver="topic", policies=[named])
async def talk(ctx: WS) -> AsyncIterator[Any]:
    """One run for the connection: it says what it is told, and a word of its own before."""
    yield "hello"
    async for message in ctx.channel:
        if message.data == "raise":
            raise RuntimeError("a secret")
        if str(message.data).startswith("/"):
            yield reply(ctx.attempt)
            await signalled(message.data)
        with tracer.start_as_current_span("thinking"):
            await asyncio.sleep(0)
        yield message.data


@support.websocket("merged.{room}", tag="realtime", deliver="topic")
async def merged(ctx: WS) -> AsyncIterator[Any]:
    """The same, read by another task than the one that speaks."""
    yield reply("ready")

    def said(message: Message) -> Any:
        with tracer.start_as_current_span("reading"):
            return message.data

    async for item in merge(map(ctx.channel, said)):
        with tracer.start_as_current_span("speaking"):
            pass
        yield item


@support.websocket("ticks.{room}", tag="realtime", run="topic")
async def ticks(ctx: WS) -> AsyncIterator[str]:
    """A ticker for the room; one room's fails."""
    if ctx.path["room"] == "broken":
        raise RuntimeError("a secret")
    yield "tick"
    await asyncio.Event().wait()


@support.websocket("many.{room}", tag="realtime", deliver="topic")
async def many(ctx: WS, message: Message) -> AsyncIterator[int]:
    """As many items for the room as the client says."""
    for number in range(int(message.data)):
        yield number


@support.sse("/value", tag="stream")
async def value_sse(ctx: SSE) -> str:
    return ctx.trace_id


@support.sse("/refused", tag="stream")
async def refused_sse(ctx: SSE) -> AsyncIterator[str]:
    yield "a"
    raise RuntimeError("a secret")


@support.sse("/count", tag="stream", on_worker_lost="restart")
async def count(ctx: SSE) -> AsyncIterator[int]:
    """`?n=` numbers, and no more before a file `?go=` is there."""
    for number in range(int(ctx.query["n"])):
        yield number
    if "go" in ctx.query:
        await signalled(ctx.query["go"])


@support.sse("/once", tag="stream")
async def once(ctx: SSE) -> AsyncIterator[int]:
    """One item, and no more before a file `?go=` is there; a lost worker ends it."""
    yield 0
    await signalled(ctx.query["go"])


@support.sse("/kept", tag="stream", resume="5m")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    """Two items, a file `?go=`, two more."""
    for number in range(2):
        yield f"{ctx.attempt}:{number}"
    await signalled(ctx.query["go"])
    for number in range(2, 4):
        yield f"{ctx.attempt}:{number}"


# A member of the room that says nothing, and has no run.
support.workflows.append(
    workflow("Follow", tag="stream", trigger=trigger.sse("/follow/{room}", topic="rooms.{room}"))
)

app = project(support)
