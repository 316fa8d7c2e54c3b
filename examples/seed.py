"""The seven programs that Fairlead began with, each a few lines. `fairlead dev examples/seed.py`

curl -N 'localhost:8000/support/realtime/stream?channel=blue'
python -m websockets ws://localhost:8000/support/realtime/broadcast
curl -N localhost:8000/support/realtime/answer -d 'why is the sky blue?'
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fairlead import (
    SSE,
    WS,
    Broadcast,
    Channel,
    Direct,
    Message,
    Query,
    Reject,
    Reply,
    broadcast,
    direct,
    feature,
    project,
    reply,
    trigger,
    workflow,
)
from fairlead.streams import interval, map, merge, process_errors, tap

log = logging.getLogger("seed")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@workflow("StreamSSE", tag="realtime", trigger=trigger.sse("/stream"))
async def stream(ctx: SSE) -> AsyncIterator[dict[str, str]]:
    """The channel's name and the time, each second. Without `?channel=` it ends with a 400."""
    if "channel" not in ctx.query:
        raise Reject(400, "say which channel: ?channel=NAME")
    async for _ in interval("1s"):
        yield {"channel": ctx.query["channel"], "time": now()}


@workflow("StreamValidSSE", tag="realtime", trigger=trigger.sse("/valid"))
async def valid(ctx: SSE, channel: Annotated[str, Query()]) -> AsyncIterator[dict[str, str]]:
    """The same, injected: without `?channel=` the request is refused before anything is sent."""
    async for _ in interval("1s"):
        yield {"channel": channel, "time": now()}


@workflow("EchoWebsocket", tag="realtime", trigger=trigger.websocket(topic="chat", path="/echo"))
async def echo(ctx: WS) -> Channel:
    """The client's own messages, streamed back to it: one run for the whole connection."""
    return ctx.channel


@workflow(
    "BroadcastWebsocket",
    tag="realtime",
    trigger=trigger.websocket(topic="chat", path="/broadcast", deliver="topic"),
)
async def everyone(ctx: WS, message: Message) -> Any:
    """What one says all in its room hear. Called once a message, on any worker."""
    return message.data


@workflow(
    "OneToOneWebsocket", tag="realtime", trigger=trigger.websocket(topic="letters", path="/direct")
)
async def one_to_one(ctx: WS, message: Message) -> Reply | Direct:
    """`{"to": CONNECTION, "text": …}` goes there; anything else is answered with your own id."""
    try:
        letter = message.json()
        to, text = letter["to"], letter["text"]
    except (ValueError, TypeError, KeyError):
        return reply({"you": ctx.connection, "expected": {"to": "CONNECTION", "text": "…"}})
    return direct(to, {"text": text})


@workflow(
    "StreamChatWebsocket",
    tag="realtime",
    trigger=trigger.websocket(topic="lobby", path="/lobby", deliver="topic"),
)
async def lobby(ctx: WS) -> AsyncIterator[dict[str, Any]]:
    """The client's messages and a clock, merged, into the room; a good-bye when it leaves."""
    said = map(ctx.channel, lambda message: {"says": message.data})
    clock = map(interval("5s"), lambda tick: {"tick": tick, "time": now()})
    try:
        async for item in merge(said, clock):
            yield item
    finally:
        await ctx.channel.broadcast({"left": ctx.connection})


@workflow("StreamErrorsLogging", tag="realtime", trigger=trigger.sse("/errors"))
async def errors(ctx: SSE) -> AsyncIterator[Any]:
    """What goes wrong in any worker, as it happens; logged here, too."""
    seen = tap(process_errors("fleet"), lambda error: log.warning("seen: %(type)s", error))
    beats = map(interval("15s"), lambda tick: {"alive": tick})
    async for item in merge(seen, beats):
        yield item


@workflow("AnswerSSE", tag="realtime", trigger=trigger.sse("/answer", method="post", format="text"))
async def answer(ctx: SSE) -> AsyncIterator[str]:
    """POST a question, read the answer as it is made; examples/tokens.py asks a real model."""
    for word in f"You asked: {ctx.body.decode()} I would say it depends.".split():
        yield word + " "
        await asyncio.sleep(0.05)


@workflow(
    "AnnounceWebsocket", tag="realtime", trigger=trigger.websocket(topic="chat", path="/announce")
)
def announce(ctx: WS, message: Message) -> Broadcast:
    """A plain function runs in a thread: it may block, and nobody waits for it."""
    if message.data == "fail":
        raise RuntimeError("asked to fail")  # GET /support/realtime/errors shows it
    return broadcast({"announcement": message.data}, exclude_self=True)


app = project(
    feature(
        "Support",
        workflows=[
            stream, valid, echo, everyone, one_to_one, lobby, errors, answer, announce,
        ],
    )
)  # fmt: skip
