"""A client's messages on their way into the run of its connection: `async for m in ctx.channel`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from fairlead.context import Message
from fairlead.protocol.envelope import Work


class Inbox:
    """What the edge has sent of one connection, and the run has not read.

    It is bounded by the edge, which sends no more than its window ahead. Reading on means
    that the message before is done with: only then the edge forgets it.

    Attributes:
        in_hand: number of the message that the run works on, 0 without one.
        message: that message; the last one where there is none.
        on_taken, on_done: told of each message as the run takes it, and before `read` of the
            one that it had; for those who trace it.

    Args:
        trusted: awaited before a message is given out; after a standstill of the loop it
            raises if the run is in other hands by now.
        read: told the number of each message that is done with.
    """

    def __init__(self, trusted: Callable[[], Awaitable[None]], read: Callable[[int], None]) -> None:
        self._trusted = trusted
        self._read = read
        self.on_taken: Callable[[Work], None] | None = None
        self.on_done: Callable[[], None] | None = None
        self._waiting: deque[tuple[int, Message[Any], Work]] = deque()
        self._news = asyncio.Event()
        self._latest = 0  # number of the newest message that came
        self.in_hand = 0
        self.message: Message[Any] | None = None
        self._done = 0  # number of the last message that is done with

    def put(self, number: int, message: Message[Any], work: Work) -> None:
        """A message came. After an outage of NATS the edge repeats what may have been lost.

        Args:
            work: what the message was made of.
        """
        if number <= self._latest:
            self._read(self._done)
            return
        self._latest = number
        self._waiting.append((number, message, work))
        self._news.set()

    def drop(self, number: int) -> bool:
        """Forget a message; False if it was read already."""
        for entry in self._waiting:
            if entry[0] == number:
                self._waiting.remove(entry)
                return True
        return False

    def finish(self) -> None:
        """The run is done with the message that it has in hand."""
        if self.in_hand:
            self._done, self.in_hand = self.in_hand, 0
            if self.on_done is not None:
                self.on_done()
            self._read(self._done)

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Message[Any]:
        """The next message. Cancelling loses none. It ends only with the run."""
        self.finish()
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            await self._trusted()
            if self._waiting:  # a second reader may have been quicker
                self.in_hand, self.message, work = self._waiting.popleft()
                if self.on_taken is not None:
                    self.on_taken(work)
                return self.message
