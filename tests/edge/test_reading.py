"""How many questions a stream is asked at a time, and how many may wait for theirs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fairlead.bus import Bus
from fairlead.errors import NotStored
from fairlead_edge import reading as reading_module
from fairlead_edge.reading import READS, WAITING, Crowded, Reading
from fairlead_edge.ring import Budget
from fairlead_edge.room import Room
from fairlead_edge.tally import TopicTally


def room_of(stream: str, channel: str = "a") -> Room:
    return Room(f"log.{channel}", "chat", "chat", channel, None, Budget(), stream, TopicTally())


class Slow:
    """A NATS that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def last(self, bus: Any, stream: str, subject: str) -> int:
        self.asked += 1
        await self.answers.wait()
        return 7


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    made = Slow()
    monkeypatch.setattr(reading_module, "roomlog", made)
    return made


async def test_a_stream_is_asked_eight_questions_at_a_time(slow: Slow) -> None:
    reading = Reading(cast(Bus, None))
    ours = [asyncio.ensure_future(reading.last(room_of("ONE"))) for _ in range(3 * READS)]
    theirs = asyncio.ensure_future(reading.last(room_of("OTHER")))
    await asyncio.sleep(0)
    assert slow.asked == READS + 1, "another stream has eight of its own"
    slow.answers.set()
    assert await asyncio.gather(*ours, theirs) == [7] * (3 * READS + 1)
    assert slow.asked == 3 * READS + 1


def test_who_comes_back_when_too_many_wait_is_to_come_later() -> None:
    reading = Reading(cast(Bus, None))
    waiting = [reading.coming(room_of("ONE")) for _ in range(WAITING)]
    for each in waiting:
        each.__enter__()
    with pytest.raises(Crowded, match="come back later"), reading.coming(room_of("ONE", "b")):
        raise AssertionError
    with reading.coming(room_of("OTHER")):
        pass
    waiting[0].__exit__()
    with reading.coming(room_of("ONE", "b")):
        assert reading.waiting("ONE") == WAITING


def test_it_is_refused_as_when_the_stream_does_not_answer() -> None:
    """503 with `Retry-After`, before the handshake is answered."""
    assert issubclass(Crowded, NotStored)
