"""What may wait to be read."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.client.queue import Queue


def none_expected() -> None:
    pytest.fail("it overflowed")


async def test_it_keeps_order_and_ends_after_what_waited() -> None:
    queue: Queue[int] = Queue(10, none_expected)
    early = asyncio.create_task(anext(aiter(queue)))
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        queue.push(number)
    queue.end()
    queue.push(4)
    assert await early == 1
    assert [number async for number in queue] == [2, 3]


async def test_too_full_it_drops_the_oldest_and_says_so_once_until_it_was_read() -> None:
    said: list[None] = []
    queue: Queue[int] = Queue(2, lambda: said.append(None))
    for number in (1, 2, 3, 4):
        queue.push(number)
    assert len(said) == 1
    assert [await anext(queue), await anext(queue)] == [3, 4]
    for number in (5, 6, 7):
        queue.push(number)
    assert len(said) == 2


async def test_it_fails_once_for_one_of_those_who_wait() -> None:
    queue: Queue[int] = Queue(2, none_expected)

    async def read() -> list[int]:
        return [number async for number in queue]

    waiting = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.end(OSError("lost"))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert sorted(map(str, found)) == ["[]", "lost"]


async def test_what_is_unwanted_is_not_read() -> None:
    queue: Queue[int] = Queue(10, none_expected)
    for number in range(4):
        queue.push(number)
    queue.remove(lambda number: number % 2 == 0)
    queue.end()
    assert [number async for number in queue] == [1, 3]
