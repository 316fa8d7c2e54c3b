"""A message on its way, as the application holds it."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from fairlead.client import Ack, FairleadError, Message
from fairlead.client.errors import ours
from fairlead.client.sent import Sent
from fairlead.testing.waiting import until


def made(cancelled: list[Sent] | None = None, buffer: int = 10) -> Sent:
    return Sent("a", b"", buffer, (cancelled if cancelled is not None else []).append)


async def test_awaiting_it_gives_its_acknowledgement_however_often() -> None:
    sent = made()
    sent.acknowledged("t")
    assert [await sent, await sent] == [Ack("a", "t"), Ack("a", "t")]


async def test_a_loop_that_is_left_cancels_it_at_once() -> None:
    cancelled: list[Sent] = []
    sent = made(cancelled)
    sent.replied(Message("one"))
    gc.disable()  # it must not take a collection
    try:
        async for _ in sent:
            break
        await until(lambda: cancelled, "it was cancelled")
    finally:
        gc.enable()
    assert cancelled == [sent]


async def test_a_loop_that_is_closed_cancels_it() -> None:
    cancelled: list[Sent] = []
    sent = made(cancelled)
    sent.replied(Message("one"))
    async with contextlib.aclosing(aiter(sent)) as replies:
        await anext(replies)
    assert cancelled == [sent]


async def test_an_await_that_is_cancelled_cancels_it() -> None:
    cancelled: list[Sent] = []
    sent = made(cancelled)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await sent
    assert cancelled == [sent]


async def test_a_loop_to_the_end_cancels_nothing() -> None:
    cancelled: list[Sent] = []
    sent = made(cancelled)
    sent.replied(Message("one"))
    sent.acknowledged(None)
    assert [reply.data async for reply in sent] == ["one"]
    sent.cancel()
    assert cancelled == []


async def test_replies_that_nobody_reads_are_bounded_and_a_late_reader_is_told() -> None:
    sent = made()
    for number in range(12):
        sent.replied(Message(number))
    sent.acknowledged(None)
    with pytest.raises(FairleadError, match="more than 10 replies were not read"):
        async for _ in sent:
            pass
    assert await sent == Ack("a")


async def test_a_failure_that_nobody_awaits_is_no_warning_of_the_loop() -> None:
    made().failed(ours("lost"))
    gc.collect()
