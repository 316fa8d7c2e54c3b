"""A message on its way, and what comes in answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal

from fairlead.client.clock import Moment
from fairlead.client.errors import FairleadError, ours
from fairlead.client.queue import Queue

SentState = Literal["queued", "sent", "waiting", "acknowledged", "failed"]


@dataclass(frozen=True)
class Message:
    """What came from the room, from the connection's run, or as a reply to one message.

    Attributes:
        data: a str, bytes, or what JSON said.
        id: its cursor, on messages of a room with history.
        attempt: 1; more after a restart, when what the earlier attempts said is to be discarded.
        sender: a subject's id, else a connection's.
        run: the id of the run that said it, where it is one.
        trace: a whole traceparent, where the message is traced.
    """

    data: Any
    id: str | None = None
    attempt: int = 1
    sender: str | None = None
    run: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class Ack:
    """What an acknowledged message was: executed, after all its replies.

    Attributes:
        id: of the message.
        trace: a whole traceparent, where the message was traced.
    """

    id: str
    trace: str | None = None


class Sent:
    """A message on its way: await its acknowledgement, or iterate over its replies.

    Both raise a FairleadError where the server answers with one. A loop that is left early, and
    an `await` that is cancelled, cancel the message.

    Attributes:
        id: unique by being random; a repetition with the same one is known as such.
        state: "queued" until it is on the wire, and again while the connection is away;
            "waiting" for a worker.
        members: its data as it stands in its frame.
        ref: its number on the connection that is.
        since: when it was first sent.
        watched: whether anybody would see it fail.
        cancelled: whether it is not to be sent again.
    """

    def __init__(
        self, id: str, members: bytes, buffer: int, cancel: Callable[[Sent], None]
    ) -> None:
        self.id = id
        self.state: SentState = "queued"
        self.members = members
        self.ref: int | None = None
        self.since: Moment | None = None
        self.watched = False
        self.cancelled = False
        self._attempt = 1
        self._cancel = cancel
        self._replies: Queue[Message] = Queue(buffer, lambda: self._overflowed(buffer))
        self._answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()

    @property
    def settled(self) -> bool:
        """Whether it is acknowledged or has failed."""
        return self._answer.done()

    def cancel(self) -> None:
        """Have it stopped, wherever it is; it then ends with an error of status 499."""
        if not self.settled:
            self._cancel(self)

    def __await__(self) -> Generator[Any, None, Ack]:
        self.watched = True
        return self._acknowledgement().__await__()

    async def _acknowledgement(self) -> Ack:
        try:
            return await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def __aiter__(self) -> AsyncGenerator[Message, None]:
        self.watched = True
        return self._read()

    async def _read(self) -> AsyncGenerator[Message, None]:
        try:
            async for message in self._replies:
                yield message
        finally:
            self.cancel()

    # What the session says of it.

    def replied(self, message: Message) -> None:
        self._replies.push(replace(message, attempt=self._attempt))

    def restarted(self) -> None:
        """It is executed again: what nobody has read yet is not to be read."""
        self._attempt += 1
        self._replies.remove(lambda _: True)

    def acknowledged(self, trace: str | None) -> None:
        self.state = "acknowledged"
        self._replies.end()
        self._answer.set_result(Ack(self.id, trace))

    def failed(self, error: FairleadError) -> None:
        self.state = "failed"
        self._replies.end(error)
        self._answer.set_exception(error)
        self._answer.exception()  # seen: whoever wants to know awaits, or hears the event

    def _overflowed(self, buffer: int) -> None:
        self._replies.end(ours(f"more than {buffer} replies were not read", id=self.id))
