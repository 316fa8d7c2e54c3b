"""A connection's messages on their way into its run."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.context import Message
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead_worker.inbox import Inbox


class Reads:
    """An inbox whose run is trusted, and the numbers that it said are done with."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.trusted = True
        self.inbox = Inbox(self._trust, self.done.append)

    def came(self, number: int, text: str) -> None:
        work = Work(Kind.MESSAGE, DataType.TEXT, text.encode())
        self.inbox.put(number, Message(work.type, work.data, "edge-1"), work)

    async def _trust(self) -> None:
        if not self.trusted:
            raise asyncio.CancelledError


async def test_messages_come_in_order_and_reading_on_is_being_done() -> None:
    reads = Reads()
    reads.came(1, "a")
    reads.came(2, "b")
    assert (await anext(reads.inbox)).data == "a"
    assert reads.done == []
    assert (await anext(reads.inbox)).data == "b"
    assert reads.done == [1]
    reads.inbox.finish()
    reads.inbox.finish()
    assert reads.done == [1, 2], "the last is done with once, when the run ends"


async def test_a_reader_waits_for_what_comes_later() -> None:
    reads = Reads()
    waiting = asyncio.ensure_future(anext(reads.inbox))
    await asyncio.sleep(0)
    reads.came(1, "a")
    assert (await waiting).data == "a"


async def test_cancelling_a_reader_loses_nothing() -> None:
    reads = Reads()
    waiting = asyncio.ensure_future(anext(reads.inbox))
    await asyncio.sleep(0)
    reads.came(1, "a")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await anext(reads.inbox)).data == "a"


async def test_two_readers_share_the_messages() -> None:
    reads = Reads()
    one, two = (asyncio.ensure_future(anext(reads.inbox)) for _ in range(2))
    await asyncio.sleep(0)
    reads.came(1, "a")
    reads.came(2, "b")
    assert {(await one).data, (await two).data} == {"a", "b"}


async def test_what_comes_a_second_time_is_not_read_again_but_answered_again() -> None:
    """After an outage of NATS the edge repeats: either the message or the answer was lost."""
    reads = Reads()
    reads.came(1, "a")
    await anext(reads.inbox)
    reads.inbox.finish()
    reads.came(1, "a")
    assert reads.done == [1, 1]
    reads.came(2, "b")
    assert (await anext(reads.inbox)).data == "b"


async def test_only_what_was_not_read_can_be_dropped() -> None:
    reads = Reads()
    reads.came(1, "a")
    reads.came(2, "b")
    reads.came(3, "c")
    await anext(reads.inbox)
    assert not reads.inbox.drop(1)
    assert reads.inbox.drop(2)
    assert not reads.inbox.drop(2)
    assert (await anext(reads.inbox)).data == "c"


async def test_a_run_that_is_in_other_hands_by_now_reads_nothing() -> None:
    reads = Reads()
    reads.trusted = False
    reads.came(1, "a")
    with pytest.raises(asyncio.CancelledError):
        await anext(reads.inbox)
    reads.trusted = True
    assert (await anext(reads.inbox)).data == "a"


async def test_who_traces_is_told_of_each_message_from_being_read_until_the_next_is_asked_for() -> (
    None
):
    reads = Reads()
    told: list[str] = []
    reads.inbox.on_taken = lambda work: told.append(f"took {work.data.decode()}")
    reads.inbox.on_done = lambda: told.append(f"done, of {reads.done} before")
    reads.came(1, "a")
    reads.came(2, "b")
    await anext(reads.inbox)
    assert told == ["took a"]
    reads.came(1, "a")
    assert told == ["took a"], "what comes a second time ends nothing"
    await anext(reads.inbox)
    reads.inbox.finish()
    reads.inbox.finish()
    assert told == ["took a", "done, of [0] before", "took b", "done, of [0, 1] before"]
