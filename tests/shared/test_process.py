"""Ending what runs beside a process; its signals need a process: tests/system."""

from __future__ import annotations

import asyncio

from fairlead import process


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await process.end(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_what_a_task_raised_is_not_raised_again() -> None:
    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await process.end(task)
    assert isinstance(task.exception(), ValueError)


async def test_nothing_to_end_is_ended() -> None:
    await process.end()
