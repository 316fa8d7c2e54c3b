"""What came and was not yet read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Queue(Generic[T]):
    """An async iterator with a bound.

    Args:
        limit: so many wait for a reader; then the oldest is dropped.
        overflowed: called when the first is dropped, and again only after the reader has
            caught up.
    """

    def __init__(self, limit: int, overflowed: Callable[[], None]) -> None:
        self._limit = limit
        self._overflowed = overflowed
        self._items: deque[T] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._ended = False
        self._error: Exception | None = None

    def push(self, item: T) -> None:
        if self._ended:
            return
        self._items.append(item)
        self._news.set()
        if len(self._items) <= self._limit:
            return
        self._items.popleft()
        if not self._over:
            self._over = True
            self._overflowed()

    def remove(self, unwanted: Callable[[T], bool]) -> None:
        """Drop what nobody has read."""
        self._items = deque(item for item in self._items if not unwanted(item))

    def end(self, error: Exception | None = None) -> None:
        """What waits can still be read; then it is over, or fails once."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()

    def __aiter__(self) -> Queue[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        if not self._items:
            self._over = False
        return item
