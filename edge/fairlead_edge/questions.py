"""Where streams stand, asked once for all who want to know at the same time."""

from __future__ import annotations

import asyncio

from fairlead import roomlog
from fairlead.bus import Bus
from fairlead.roomlog import StreamState


class _Question:
    """A question to a stream that is out, and the one that follows it."""

    __slots__ = ("next", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[StreamState] | None = None
        self.next: asyncio.Task[StreamState] | None = None


class Questions:
    """Those who ask while a question is out share the next one.

    They cannot share that one: it may have been answered before they listened.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._asking: dict[str, _Question] = {}

    async def state(self, stream: str) -> StreamState:
        """Where a stream stands, as of after this call.

        Raises:
            NotStored: it does not answer.
        """
        running = self._asking.get(stream)
        if running is None:
            running = self._asking[stream] = _Question()
            running.task = self._loop.create_task(self._ask(stream, running))
            return await asyncio.shield(running.task)
        if running.next is None:
            running.next = self._loop.create_task(self._ask_after(stream, running))
        return await asyncio.shield(running.next)

    async def _ask(self, stream: str, question: _Question) -> StreamState:
        try:
            return await roomlog.state(self._bus, stream)
        finally:
            if question.next is None:
                del self._asking[stream]

    async def _ask_after(self, stream: str, before: _Question) -> StreamState:
        assert before.task is not None
        await asyncio.wait({before.task})
        question = self._asking[stream] = _Question()
        question.task = self._loop.create_task(self._ask(stream, question))
        return await question.task
