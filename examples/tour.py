"""A tour of what a workflow may be: each kind once, in a few lines.

Run it with `fairlead dev examples/tour.py`; it prints a line to try for each.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from fairlead import SSE, WS, Message, Reject, broadcast, direct, feature, project, reply, trigger
from fairlead import workflow as flow


@flow(
    "BroadcastWebsocket",
    tag="realtime",
    trigger=trigger.websocket(topic="chat", path="/broadcast", deliver="topic"),
)
async def everyone(ctx: WS, message: Message) -> object:
    """What a client says goes to the whole room."""
    return message.data


@flow("EchoWebsocket", tag="realtime", trigger=trigger.websocket(topic="chat", path="/echo"))
async def echo(ctx: WS, message: Message) -> Message:
    """What a client says goes back to it, as it came."""
    return message


@flow("OneToOneWebsocket", tag="realtime", trigger=trigger.websocket(topic="chat", path="/direct"))
async def one_to_one(ctx: WS, message: Message) -> AsyncIterator[object]:
    """`{"to": CONNECTION, "text": …}` goes to that connection; anything else tells you your id."""
    try:
        letter = message.json()
        peer, text = letter["to"], letter["text"]
    except (ValueError, TypeError, KeyError):
        yield reply({"you": ctx.connection, "expected": {"to": "CONNECTION", "text": "..."}})
        return
    yield direct(peer, {"from": ctx.connection, "text": text})
    yield reply({"sent": True})


@flow(
    "AnnounceWebsocket", tag="realtime", trigger=trigger.websocket(topic="chat", path="/announce")
)
def announce(ctx: WS, message: Message) -> object:
    """A plain function runs in a thread: it may block, and nobody waits for it."""
    return broadcast({"announcement": message.data, "channel": ctx.channel.name}, exclude_self=True)


@flow("StreamSSE", tag="realtime", trigger=trigger.sse("/clock"))
async def clock(ctx: SSE) -> AsyncIterator[dict[str, str]]:
    """The channel's name and the time, each second."""
    if "channel" not in ctx.query:
        raise Reject(400, "say which channel: ?channel=NAME")
    while True:
        yield {"channel": ctx.query["channel"], "time": datetime.now(UTC).isoformat()}
        await asyncio.sleep(1)


@flow("CountSSE", tag="realtime", trigger=trigger.sse("/words", format="text"))
async def words(ctx: SSE) -> AsyncIterator[str]:
    """POST a text, read it back word by word."""
    for word in ctx.body.decode(errors="replace").split() or ["POST", "me", "a", "text"]:
        yield word
        await asyncio.sleep(0.1)


room = flow("RoomSSE", tag="realtime", trigger=trigger.sse("/room", topic="chat"))
"""The room, for reading only."""

app = project(
    feature("Support", workflows=[everyone, echo, one_to_one, announce, clock, words, room])
)
