"""Does everything that may go wrong with what a client said, for tests/system/test_privacy.py."""
# ruff: noqa: ASYNC251, RUF006 -- what is wrong here is the point

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import structlog
from pydantic import BaseModel

from fairlead import (
    SSE,
    WS,
    Body,
    Event,
    Header,
    History,
    Message,
    Query,
    Reject,
    broadcast,
    direct,
    feature,
    project,
    reply,
)

shop = feature("Shop")
log = logging.getLogger("shop")
events = structlog.get_logger("shop")


class Order(BaseModel):
    number: int


class Says(Exception):
    """Carries what it is told, in its text and in a note."""

    def __init__(self, text: Any) -> None:
        super().__init__(text)
        self.add_note(str(text))


def raises(text: Any) -> None:
    raise Says(text)


class Secretive:
    """Its destructor cannot raise."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __del__(self) -> None:
        raises(self._text)


async def breaks(text: str) -> None:
    raises(text)


async def _chained(text: str) -> None:
    try:
        raises(text)
    except Says as error:
        raise LookupError(text) from error


async def _grouped(text: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(breaks(text))
        group.create_task(_chained(text))


async def _unretrieved(text: str) -> None:
    asyncio.create_task(breaks(text), name=f"break {text}")
    await asyncio.sleep(0.01)


async def _in_a_callback(text: str) -> None:
    asyncio.get_running_loop().call_soon(raises, text)
    await asyncio.sleep(0.01)


async def _in_a_thread(text: str) -> None:
    thread = threading.Thread(target=raises, args=(text,))
    thread.start()
    await asyncio.to_thread(thread.join)


async def _warned(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=1)


async def _ill_logged(text: str) -> None:
    log.info("%d of %d", text, text)
    events.info("%d of %d", text, text)


async def _destroyed(text: str) -> None:
    Secretive(text)


async def _in_an_executor(text: str) -> None:
    with concurrent.futures.ThreadPoolExecutor() as threads:
        threads.submit(int, text).add_done_callback(lambda done: done.result())


async def _logged_as_a_value(text: str) -> None:
    try:
        raises(text)
    except Says as error:
        events.warning("it failed", why=error)
        log.exception("it failed")


WAYS: dict[str, Callable[[str], Any]] = {
    each.__name__.strip("_"): each
    for each in (
        breaks, _chained, _grouped, _unretrieved, _in_a_callback, _in_a_thread, _warned,
        _ill_logged, _destroyed, _in_an_executor, _logged_as_a_value,
    )
}  # fmt: skip


@shop.websocket("ways", tag="v1")
async def ways(ctx: WS, message: Message) -> str:
    """The data are `[way, text]`."""
    way, text = message.json()
    await WAYS[way](text)
    return "done"


@shop.websocket("plain", tag="v1")
def plain(ctx: WS, message: Message) -> str:
    raise Says(message.data)


@shop.websocket("steps", tag="v1")
def steps(ctx: WS, message: Message) -> Iterator[str]:
    yield "before"
    raise Says(message.data)


@shop.websocket("wrong", tag="v1")
async def wrong(ctx: WS, message: Message) -> Any:
    """What cannot be encoded, or goes nowhere."""
    kind, text = message.json()
    match kind:
        case "object":
            return {text: object(), "of": {text}}
        case "model":
            return Order.model_construct(number=text)
        case "peer":
            return direct(text, text)
        case "event":
            return Event(text)
        case "broadcast":
            return broadcast(text)
        case "reject":
            raise Reject(418, text)
        case "key":
            return {}[text]
    return reply(text)


@shop.websocket("orders", tag="v1")
async def orders(ctx: WS, message: Message[Order]) -> int:
    return message.data.number


@shop.websocket("connection", tag="v1")
async def connection(ctx: WS) -> AsyncIterator[Any]:
    async for message in ctx.channel:
        yield "heard"
        raise Says(message.data)


@shop.websocket("rooms.{room}", tag="v1", deliver="topic", history=History(100, "60s"))
async def rooms(ctx: WS, message: Message) -> Any:
    if message.data == "go":
        raise Says(f"{ctx.path} {ctx.channel.name} {ctx.headers} {ctx.query}")
    return message.data


@shop.websocket("shared.{room}", tag="v1", run="topic", history=None)
async def shared(ctx: WS) -> AsyncIterator[str]:
    yield "one"
    log.info("a room's run speaks")
    raise Says(f"{ctx.path} {ctx.channel.name}")


@shop.sse("/stream", tag="v1")
async def stream(ctx: SSE) -> AsyncIterator[str]:
    yield "one"
    raise Says(f"{ctx.body!r} {ctx.query} {dict(ctx.headers)}")


@shop.sse("/kept", tag="v1", resume="60s")
async def kept(ctx: SSE) -> AsyncIterator[str]:
    yield "one"
    await asyncio.sleep(0.2)
    raise Says(f"{ctx.body!r} {ctx.query} {dict(ctx.headers)}")


@shop.sse("/body", tag="v1")
async def body(
    ctx: SSE,
    order: Annotated[Order, Body()],
    page: Annotated[int, Query()] = 1,
    x_shop: Annotated[int, Header()] = 1,
) -> str:
    return "done"


async def angry(ctx: WS | SSE) -> bool:
    how, text = ctx.query["how"], ctx.query["text"]
    match how:
        case "raise":
            raise Says(text)
        case "reject":
            raise Reject(403, text)
        case "subject":
            return {text: object()}  # type: ignore[return-value]  # what it must not do
        case "slow":
            await asyncio.sleep(60)
    return False


@shop.websocket("guarded", tag="v1", policies=[angry])
async def guarded(ctx: WS, message: Message) -> str:
    return "done"


@shop.sse("/guarded", tag="v1", policies=[angry])
async def guarded_stream(ctx: SSE) -> str:
    return "done"


@shop.websocket("stuck", tag="v1")
async def stuck(ctx: WS, message: Message) -> str:
    time.sleep(6)
    return "done"


app = project(shop)
