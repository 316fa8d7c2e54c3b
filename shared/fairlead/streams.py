"""Streams of items, put together: `from fairlead.streams import merge, tap, …`.

Every operator takes its source or sources first: any `AsyncIterable`, such as a generator,
`ctx.channel`, or an object of another library. What they have in common:

- *Bounded.* One that reads ahead says by how much; the others ask their source for the next item
  only when they are asked for theirs.
- *The first error wins.* It is raised where the result is iterated; everything else is cancelled.
- *Every source is closed* before the result has ended, failed, been closed or been cancelled:
  tasks are cancelled first, then `aclose` is awaited, so that each `finally` has run.

Times are seconds, or texts such as "500ms", "5s", "2m".
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, overload

from fairlead.errorfeed import mark_of, process_errors, take_mark
from fairlead.protocol import durations

__all__ = [
    "Subject",
    "buffer",
    "debounce",
    "filter",
    "interval",
    "map",
    "merge",
    "process_errors",
    "take",
    "tap",
    "throttle",
    "timeout",
]

T = TypeVar("T")
U = TypeVar("U")

Seconds = float | str

TURN = 64
"""Items dropped one after the other, after which others on the loop have their turn."""


# One source, item by item


async def map(
    source: AsyncIterable[T], function: Callable[[T], U | Awaitable[U]]
) -> AsyncGenerator[U]:
    """What `function`, plain or async, makes of each item."""
    async with _closing(source) as items:
        async for item in items:
            yield await _result(function(item))


async def filter(
    source: AsyncIterable[T], function: Callable[[T], object | Awaitable[object]]
) -> AsyncGenerator[T]:
    """The items for which `function`, plain or async, is true."""
    async with _closing(source) as items:
        dropped = 0
        async for item in items:
            if await _result(function(item)):
                yield item
            else:
                dropped += 1
                await _others_turn(dropped)


async def tap(
    source: AsyncIterable[T], function: Callable[[T], object | Awaitable[object]]
) -> AsyncGenerator[T]:
    """The items as they come; `function`, plain or async, sees each before it goes on."""
    async with _closing(source) as items:
        async for item in items:
            await _result(function(item))
            yield item


async def take(source: AsyncIterable[T], number: int) -> AsyncGenerator[T]:
    """The first `number` items; then the source is closed, without being asked for another."""
    async with _closing(source) as items:
        if number <= 0:
            return
        taken = 0
        async for item in items:
            yield item
            taken += 1
            if taken >= number:
                return


async def timeout(source: AsyncIterable[T], seconds: Seconds) -> AsyncGenerator[T]:
    """The items as they come, each within `seconds` of being asked for.

    Raises:
        TimeoutError: one took longer.
    """
    within = durations.seconds(seconds)
    async with _closing(source) as items:
        while True:
            try:
                async with asyncio.timeout(within):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            yield item


async def throttle(source: AsyncIterable[T], seconds: Seconds) -> AsyncGenerator[T]:
    """At most one item each `seconds`: the first, and then the first after each pause.

    Those between are read and dropped.
    """
    pause = durations.seconds(seconds)
    clock = asyncio.get_running_loop().time
    async with _closing(source) as items:
        next_at, dropped = clock(), 0
        async for item in items:
            if clock() >= next_at:
                next_at = clock() + pause
                yield item
            else:
                dropped += 1
                await _others_turn(dropped)


async def interval(seconds: Seconds) -> AsyncGenerator[int]:
    """0 at once, then 1, 2, … every `seconds`; late ones do not pile up."""
    pause = durations.seconds(seconds)
    clock = asyncio.get_running_loop().time
    number, due = 0, clock()
    while True:
        yield number
        number += 1
        due = max(due + pause, clock())
        await asyncio.sleep(due - clock())


# Those that read ahead of their reader


def merge(*sources: AsyncIterable[T]) -> AsyncGenerator[T]:
    """The items of all sources, as they come; ends when all have ended.

    Reads one item of each source ahead, no more.
    """
    return _merged(sources)


async def _merged(sources: tuple[AsyncIterable[T], ...]) -> AsyncGenerator[T]:
    async with _reading(*sources) as readers:
        while readers:
            await asyncio.wait(
                [reader.task for reader in readers], return_when=asyncio.FIRST_COMPLETED
            )
            for reader in [reader for reader in readers if reader.task.done()]:
                if reader.ended:
                    readers.remove(reader)
                    continue
                yield reader.take()
                reader.read()


async def debounce(source: AsyncIterable[T], seconds: Seconds) -> AsyncGenerator[T]:
    """An item when `seconds` have gone by without another; the last one when the source ends.

    Holds one item.
    """
    quiet = durations.seconds(seconds)
    async with _reading(source) as readers:
        (reader,) = readers
        while True:
            await asyncio.wait([reader.task])
            if reader.ended:
                return
            item = reader.take()
            reader.read()
            while not reader.ended:
                done, _ = await asyncio.wait([reader.task], timeout=quiet)
                if not done:
                    break
                if not reader.ended:
                    item = reader.take()
                    reader.read()
            yield item


async def buffer(
    source: AsyncIterable[T], number: int, seconds: Seconds | None = None
) -> AsyncGenerator[list[T]]:
    """Lists of `number` items; a shorter one at the end, or `seconds` after its first item.

    Holds `number` items and reads one ahead.
    """
    if number < 1:
        raise ValueError(f"buffer of {number} items; expected 1 or more")
    within = None if seconds is None else durations.seconds(seconds)
    clock = asyncio.get_running_loop().time
    async with _reading(source) as readers:
        (reader,) = readers
        held: list[T] = []
        due: float | None = None
        while not reader.ended:
            left = None if due is None else max(0.0, due - clock())
            done, _ = await asyncio.wait([reader.task], timeout=left)
            if done and not reader.ended:
                held.append(reader.take())
                reader.read()
                if len(held) == 1 and within is not None:
                    due = clock() + within
            if len(held) >= number or (held and not done):
                yield held
                held, due = [], None
        if held:
            yield held


class Subject(AsyncIterable[T]):
    """A stream that is pushed to: `subject.push(x)` from anywhere on the loop; iterate to read.

    Each reader gets what is pushed after it began to read, and may be `bound` items behind;
    of a reader that is further behind the oldest ones are dropped, and counted.

    Attributes:
        dropped: items that slow readers lost.
    """

    def __init__(self, bound: int = 1024) -> None:
        """Args: bound: items that are held for each reader."""
        if bound < 1:
            raise ValueError(f"a subject of {bound} items; expected 1 or more")
        self.dropped = 0
        self._bound = bound
        self._closed = False
        self._readers: weakref.WeakSet[_Reading[T]] = weakref.WeakSet()

    def push(self, item: T) -> None:
        """Give `item` to every reader; never waits.

        Raises:
            RuntimeError: it is closed.
        """
        if self._closed:
            raise RuntimeError("the subject is closed; nobody would read this")
        for reader in self._readers:
            self.dropped += reader.push(item, self._bound)
            reader.mark = reader.mark or mark_of()

    def close(self) -> None:
        """End it: readers read what they have, and then their streams end."""
        self._closed = True
        for reader in self._readers:
            reader.news.set()

    def __aiter__(self) -> AsyncIterator[T]:
        reader: _Reading[T] = _Reading(self)
        self._readers.add(reader)
        return reader

    def forget(self, reader: _Reading[T]) -> None:
        """It reads no more."""
        self._readers.discard(reader)

    @property
    def closed(self) -> bool:
        """Whether nothing more will be pushed."""
        return self._closed


class _Reading(AsyncIterator[T]):
    """One reader of a Subject."""

    def __init__(self, subject: Subject[T]) -> None:
        self.mark = False
        self.news = asyncio.Event()
        self._subject = subject
        self._items: deque[T] = deque()

    def push(self, item: T, bound: int) -> int:
        """Hold an item; the number of those that were dropped for it."""
        dropped = 0
        if len(self._items) >= bound:
            self._items.popleft()
            dropped = 1
        self._items.append(item)
        self.news.set()
        return dropped

    async def __anext__(self) -> T:
        while not self._items:
            if self._subject.closed:
                self._subject.forget(self)
                raise StopAsyncIteration
            self.news.clear()
            await self.news.wait()
        take_mark(self.mark)
        return self._items.popleft()

    async def aclose(self) -> None:
        self._subject.forget(self)


# What all of them stand on


@overload
async def _result(value: Awaitable[U]) -> U: ...
@overload
async def _result(value: U | Awaitable[U]) -> U: ...
async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _others_turn(dropped: int) -> None:
    """A source that never waits must not hold the loop while its items are dropped."""
    if dropped % TURN == 0:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _closing(source: AsyncIterable[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Iterate a source and close it, however that ends."""
    items = aiter(source)
    try:
        yield items
    finally:
        await _close(items)


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


class _Reader:
    """A source of which one item is read ahead, by a task for each, all in one context.

    Attributes:
        task: the item that is being read, or was.
    """

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._context = contextvars.copy_context()
        self._items = aiter(source)
        self.read()

    def read(self) -> None:
        """Ask for the next item."""
        self.task: asyncio.Task[Any] = asyncio.create_task(
            _next(self._items), context=self._context
        )

    def take(self) -> Any:
        """What was read; raises what its source raised. If that reads errors, so does the caller."""
        take_mark(mark_of(self._context))
        return self.task.result()

    @property
    def ended(self) -> bool:
        """Whether the source has no more."""
        return self.task.done() and self.task.exception() is None and self.task.result() is _END

    async def close(self) -> None:
        """Cancel what is being read, and then close the source."""
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # seen: another one has won, or this one was raised already
        await _close(self._items)


_END = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    # A task can't end with StopAsyncIteration.
    return await anext(items, _END)


@contextlib.asynccontextmanager
async def _reading(*sources: AsyncIterable[Any]) -> AsyncGenerator[list[_Reader]]:
    """Read all sources at once; close every one, even if closing another fails."""
    readers: list[_Reader] = []
    try:
        for source in sources:
            readers.append(_Reader(source))  # noqa: PERF401 - one that is none leaves those before
        yield list(readers)
    finally:
        closed = await asyncio.gather(
            *(reader.close() for reader in readers), return_exceptions=True
        )
        for error in closed:
            if isinstance(error, BaseException):
                raise error
