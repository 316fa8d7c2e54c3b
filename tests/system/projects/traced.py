"""Workflows whose spans are looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import trace

from fairlead import SSE, WS, History, Message, broadcast, feature, project, reply

support = feature("Support")
tracer = trace.get_tracer("a user's own")


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
    while not os.path.exists(str(message.data)):  # noqa: ASYNC110, ASYNC240 - the test's signal
        await asyncio.sleep(0.02)
    yield broadcast("end")


@support.websocket("raises", tag="realtime")
async def raises(ctx: WS, message: Message) -> None:
    raise RuntimeError("a secret")


@support.sse("/value", tag="stream")
async def value_sse(ctx: SSE) -> str:
    return ctx.trace_id


app = project(support)
