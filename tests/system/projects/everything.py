"""Every kind of workflow that there is, for the system tests."""
# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 -- files are how a test in another process speaks with it

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic import BaseModel

from fairlead import (
    SSE,
    WS,
    Event,
    History,
    Message,
    NoSuchPeer,
    Reject,
    broadcast,
    direct,
    feature,
    project,
    reply,
)

support = feature("Support")


class Model(BaseModel):
    name: str


@dataclasses.dataclass
class Data:
    number: int


@support.websocket("echo", tag="realtime")
async def echo(ctx: WS, message: Message) -> Message:
    return message


@support.websocket("rooms.{room}", tag="realtime", deliver="topic", history=History(100, "60s"))
async def everyone(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("rooms.{room}", tag="others", deliver="others", history=History(100, "60s"))
async def others(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("volatile", tag="realtime", deliver="topic", history=None)
async def volatile(ctx: WS, message: Message) -> Any:
    return message.data


@support.websocket("kinds", tag="realtime")
async def kinds(ctx: WS, message: Message) -> AsyncIterator[Any]:
    """Every kind of value, one after the other."""
    yield "text"
    yield b"\x00\xff"
    yield {"a": 1}
    yield [1, None]
    yield 7
    yield Model(name="x")
    yield Data(3)
    yield message
    yield None
    yield "end"


@support.websocket("nothing", tag="realtime")
async def nothing(ctx: WS, message: Message) -> None:
    return None


@support.websocket("talk", tag="realtime")
async def talk(ctx: WS, message: Message) -> AsyncIterator[Any]:
    """reply, broadcast and direct beside each other, by what the client asks for."""
    match message.json():
        case {"direct": to, "text": text}:
            yield direct(to, {"text": text})
            yield reply("sent")
        case {"try": to}:
            try:
                yield direct(to, "?")
            except NoSuchPeer as error:
                yield f"nobody: {error.peer}"
        case {"broadcast": text, "self": itself}:
            yield broadcast(text, exclude_self=not itself)
            yield reply("done")
        case {"channel": text}:
            await ctx.channel.send(f"to you: {text}")
            await ctx.channel.broadcast(f"to all: {text}")
        case {"first": text, "direct": to}:
            yield reply(text)
            yield direct(to, "?")


@support.websocket("returns", tag="realtime")
async def returns(ctx: WS, message: Message) -> Any:
    """Returns what the client asks for, of every kind."""
    return returned(message.json())


def returned(what: str) -> Any:
    async def items() -> AsyncIterator[Any]:
        yield "one"
        yield 2

    kinds: dict[str, object] = {
        "text": "text",
        "bytes": b"\x00\xff",
        "object": {"a": 1},
        "model": Model(name="x"),
        "dataclass": Data(3),
        "none": None,
        "iterator": items(),
        "reply": reply({"b": 2}),
        "reply none": reply(None),
    }
    return kinds[what]


@support.websocket("returns", tag="rooms", path="/returns", deliver="topic")
async def returns_to_room(ctx: WS, message: Message) -> Any:
    """`reply` and `direct` beside a `deliver="topic"`."""
    match message.json():
        case {"direct": to}:
            return direct(to, "directly")
        case {"broadcast": text}:
            return broadcast(text)
        case {"others": text}:
            return broadcast(text, exclude_self=True)
        case {"reply": text}:
            return reply(text)
        case other:
            return other


@support.websocket("plainly", tag="realtime")
def plainly(ctx: WS, message: Message) -> Iterator[Any]:
    """A plain generator that survives a peer that is not there."""
    try:
        yield direct(str(message.data), "?")
    except NoSuchPeer as error:
        yield f"nobody: {error.peer}"


@support.websocket("flood", tag="realtime")
async def flood(ctx: WS, message: Message) -> AsyncIterator[str]:
    """As much as it may send, and a count of it in a file; a note when it is cancelled."""
    count = 0
    try:
        while True:
            yield "x" * 10_000
            count += 10_000
            with open(f"{message.data}.count", "w") as file:
                file.write(str(count))
    finally:
        with open(str(message.data), "w") as note:
            note.write("cancelled")


@support.websocket("raises", tag="realtime")
async def raises(ctx: WS, message: Message) -> AsyncIterator[Any]:
    """Raises before, while or after it yields."""
    if message.data == "before":
        raise RuntimeError("a secret")
    yield "one"
    if message.data == "while":
        raise RuntimeError("a secret")
    yield "two"
    if message.data == "reject":
        raise Reject(418, "a teapot")
    if message.data == "unserializable":
        yield object()
    raise RuntimeError("a secret")


@support.websocket("context", tag="realtime", path="/context/{name}")
async def context(ctx: WS, message: Message) -> dict[str, object]:
    return {
        "query": dict(ctx.query),
        "path": dict(ctx.path),
        "header": ctx.headers.get("X-Test"),
        "topic": ctx.topic,
        "channel": ctx.channel.name,
        "connection": ctx.connection,
        "sender": message.sender,
        "attempt": ctx.attempt,
        "run": ctx.run_id,
        "trace": ctx.trace_id,
    }


@support.websocket("blocking", tag="realtime")
def blocking(ctx: WS, message: Message) -> str:
    """A plain function: it may block its thread."""
    time.sleep(float(message.data))
    return f"slept {message.data}"


@support.websocket("plain", tag="realtime")
def plain(ctx: WS, message: Message) -> Iterator[str]:
    """A plain generator, stepped in threads."""
    yield "one"
    yield "two"


class Countdown:
    """An iterator that is no generator."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Countdown:
        return self

    def __next__(self) -> Any:
        self.number -= 1
        if self.number < 0:
            raise StopIteration
        return direct("nobody", "?") if self.number == 7 else self.number


@support.websocket("iterators", tag="realtime")
def iterators(ctx: WS, message: Message) -> Iterator[Any]:
    return iter([1, 2]) if message.data == "list" else Countdown(int(message.data))


@support.sse("/dozing", tag="stream")
def dozing(ctx: SSE) -> Iterator[str]:
    """A plain generator whose client may leave while it is in its thread."""
    note = ctx.query["note"]
    try:
        yield "dozes"
        with open(f"{note}.dozes", "w"):
            time.sleep(1)
        yield "woke"
    finally:
        with open(note, "w") as file:
            file.write("closed")


@support.websocket("slow", tag="realtime")
async def slow(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Says that it began, then waits for a file to appear: the test decides when it ends."""
    path = str(message.data)
    yield f"attempt {ctx.attempt} in {os.getpid()}"
    while not os.path.exists(path):
        await asyncio.sleep(0.02)
    yield "end"


@support.websocket("held", tag="realtime")
async def held(ctx: WS, message: Message) -> AsyncIterator[Any]:
    """Waits for a file to appear; or tells a peer of itself, or asks whether one is there."""
    match str(message.data).split():
        case ["tell", peer]:
            yield direct(peer, "here I am")
        case ["try", peer]:
            try:
                yield direct(peer, "are you there?")
                yield "there"
            except NoSuchPeer:
                yield "nobody"
        case [path, *_]:
            yield "begun"
            while not os.path.exists(path):
                await asyncio.sleep(0.02)
            yield "end"


@support.websocket("wide", tag="realtime", window=4)
async def wide(ctx: WS, message: Message) -> str:
    """Four of a connection's messages run at a time."""
    await asyncio.sleep(float(message.data))
    return f"slept {message.data}"


@support.websocket("endless", tag="realtime")
async def endless(ctx: WS, message: Message) -> AsyncIterator[str]:
    """Until it is cancelled; then it leaves a note at the path that it was given."""
    try:
        while True:
            yield "x"
            await asyncio.sleep(0.01)
    finally:
        with open(str(message.data), "w") as note:
            note.write("cancelled")


@support.sse("/kinds", tag="stream")
async def kinds_sse(ctx: SSE) -> AsyncIterator[Any]:
    yield "text"
    yield b"\x00\xff"
    yield {"a": 1}
    yield None
    yield Event({"b": 2}, event="named", retry=500, comment="note")
    yield Event(comment="only a note")


@support.sse("/text", tag="stream", format="text")
async def text_sse(ctx: SSE) -> AsyncIterator[Any]:
    yield "one\ntwo\r\nthree"
    yield {"a": 1}


@support.sse("/value", tag="stream", method="get")
async def value_sse(ctx: SSE) -> dict[str, object]:
    return {"query": dict(ctx.query), "body": ctx.body.decode()}


@support.sse("/post", tag="stream", method="post")
async def post_sse(ctx: SSE) -> dict[str, object]:
    return {"size": len(ctx.body), "start": ctx.body[:10].decode(), "header": ctx.headers["X-Test"]}


@support.sse("/raises", tag="stream")
async def raises_sse(ctx: SSE) -> AsyncIterator[str]:
    if ctx.query["when"] == "before":
        raise RuntimeError("a secret")
    if ctx.query["when"] == "reject":
        raise Reject(400, "not like this")
    yield "one"
    raise RuntimeError("a secret")


@support.sse("/endless", tag="stream")
async def endless_sse(ctx: SSE) -> AsyncIterator[int]:
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


@support.sse("/flood", tag="stream")
async def flood_sse(ctx: SSE) -> AsyncIterator[str]:
    """As much as it may send, and a count of it in a file."""
    count = 0
    while True:
        yield "x" * 10_000
        count += 10_000
        with open(ctx.query["count"], "w") as file:
            file.write(str(count))


@support.sse("/returns", tag="stream")
async def returns_sse(ctx: SSE) -> Any:
    """Returns what the client asks for, of every kind."""
    return returned(ctx.query["what"])


@support.sse("/comments", tag="stream")
async def comments_sse(ctx: SSE) -> AsyncIterator[Any]:
    """More events with fields of their own than a client's credit would carry."""
    for _ in range(20_000):
        yield Event(comment="c")
    yield "all"


@support.sse("/plain", tag="stream", method="get")
def plain_sse(ctx: SSE) -> Iterator[str]:
    yield "one"
    yield "two"


@support.sse("/slow", tag="stream", on_worker_lost="error")
async def slow_sse(ctx: SSE) -> AsyncIterator[str]:
    yield f"attempt {ctx.attempt}"
    await asyncio.sleep(3600)


@support.sse("/again", tag="stream", on_worker_lost="restart")
async def again_sse(ctx: SSE) -> AsyncIterator[str]:
    yield f"attempt {ctx.attempt}"
    if ctx.attempt == 1:
        await asyncio.sleep(3600)


@support.sse("/rooms/{room}", tag="stream", topic="rooms.{room}")
async def room_sse(ctx: SSE) -> str:
    """A room's messages, and a word before them."""
    return f"you read {ctx.topic}"


app = project(support)
