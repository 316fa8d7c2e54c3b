"""How `execute` is called, and what it yields fetched; what may block does so in a thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

from fairlead.context import Message
from fairlead.errors import NoSuchPeer

PLAIN = frozenset({type(None), str, bytes, int, float, bool, dict, list, Message})
"""What is no iterator to be driven, known without asking an abstract class (1 µs)."""

TURN = 64
"""Items after which others on the loop have their turn, whatever a generator does."""


async def call(function: Callable[..., Any], arguments: dict[str, Any], in_thread: Any) -> Any:
    """What `execute` returns; a plain function runs in a thread."""
    if _runs_on_the_loop(function):
        result = function(**arguments)
    else:
        result = await in_thread(functools.partial(function, **arguments))
    return await result if inspect.isawaitable(result) else result


@functools.cache
def _runs_on_the_loop(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


async def drive(
    items: AsyncIterator[Any], emit: Callable[[Any], Awaitable[None]], stopped: Callable[[], bool]
) -> None:
    """Send what an iterator yields; a `NoSuchPeer` is raised where it was yielded.

    Args:
        stopped: whether it was cancelled.
    """
    sent = 0
    try:
        step = items.__anext__()
        while True:
            try:
                item = await step
            except StopAsyncIteration:
                return
            if stopped():
                raise asyncio.CancelledError  # it was told once, and took no notice
            try:
                await emit(item)
                sent += 1
                if sent % TURN == 0:  # a generator that never waits must not hold the loop
                    await asyncio.sleep(0)
                step = items.__anext__()
            except NoSuchPeer as error:
                if not isinstance(items, AsyncGenerator):
                    raise
                step = items.athrow(error)
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def in_threads(items: Iterator[Any], in_thread: Any) -> AsyncGenerator[Any]:
    """A plain iterator as an async one: each step runs in a thread.

    Nothing can cancel a step, so what is cancelled meanwhile is closed when that is over.
    """
    ended, turn = object(), threading.Lock()

    def in_turn(call: Callable[[], Any]) -> Any:
        with turn:
            return call()

    step = functools.partial(next, items, ended)
    try:
        while (item := await in_thread(functools.partial(in_turn, step))) is not ended:
            step = functools.partial(next, items, ended)
            try:
                yield item
            except NoSuchPeer as error:
                if not isinstance(items, Generator):
                    raise
                step = functools.partial(_throw, items, error, ended)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await in_thread(functools.partial(in_turn, close))


def _throw(items: Generator[Any], error: Exception, ended: object) -> Any:
    try:
        return items.throw(error)
    except StopIteration:
        return ended
