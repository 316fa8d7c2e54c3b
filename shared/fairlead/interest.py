"""What this process listens to on NATS, and how a message comes in.

A nats-py subscription costs a task and 5 KB, a queue hop and (with headers) 6 µs a message,
so messages are handed to a plain function as they are parsed, in order.

What is used of nats-py's inside is pinned by tests/shared/test_bus_contract.py.
"""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.client import Client

from fairlead import logs
from fairlead.protocol.subjects import kind_of

log = logs.get("fairlead.bus")
_broken = logs.Seldom(log.error, "a handler of NATS messages failed", per=["kind"], burst=5)

Handler = Callable[[str, str, bytes, bytes], None]
"""(subject, reply subject or "", data, raw headers or b""); must neither block nor raise."""


class Interest:
    """A subscription of ours, in the form in which nats-py repeats it after a reconnect."""

    __slots__ = (
        "_id", "_jsi", "_max_msgs", "_message_iterator", "_pending_next_msgs_calls",
        "_queue", "_received", "_subject", "_wait_for_msgs_task", "handler",
    )  # fmt: skip

    def __init__(self, sid: int, subject: str, queue: str, handler: Handler) -> None:
        self._id = sid
        self._subject = subject
        self._queue = queue
        self._max_msgs = 0
        self._received = 0
        self._wait_for_msgs_task = None
        self._message_iterator = None
        self._pending_next_msgs_calls = None
        self._jsi = None
        self.handler = handler


class DirectClient(Client):
    """A nats-py client that hands the messages of an `Interest` over as they are parsed."""

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        interest = self._subs.get(sid)
        if not isinstance(interest, Interest):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            interest.handler(subject.decode(), reply.decode(), data, headers or b"")
        except Exception as error:
            # An exception here would end nats-py's read loop, and with it everything.
            _broken(kind=kind_of(interest._subject), exc_info=error)
