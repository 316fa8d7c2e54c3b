"""What an edge does beside serving: none of it ends as long as the edge lives."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fairlead_edge.life import always
from support.clock import OwnClock


def test_a_chore_that_fails_is_told_and_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    begun: list[float] = []

    async def chore() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) < 3:
            raise RuntimeError("an error of ours")
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await always("rooms", chore)

    with caplog.at_level(logging.ERROR):
        OwnClock.run(main())
    assert begun == [0, 1, 2]
    assert "a chore of the edge failed" in caplog.text and "an error of ours" in caplog.text
