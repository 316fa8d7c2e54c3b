"""A publisher that lives longer than what it publishes to, over the kit's edges and workers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fairlead
from fairlead import appbus
from fairlead.protocol import cursor
from fairlead.protocol.cursor import Position
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History
from fairlead.protocol.subjects import Subjects
from fairlead.testing.system import System

LATE = """
from fairlead import WS, History, Message, feature, project

late = feature("Late")

@late.websocket("late", tag="v1", deliver="topic", history={history})
async def talk(ctx: WS, message: Message):
    return message.data

app = project(late)
"""


class Clock:
    """The time of publishers, which a test can let go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        own = SimpleNamespace(monotonic=lambda: time.monotonic() + self.passed)
        monkeypatch.setattr(appbus, "time", own)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_deploy_that_gives_a_topic_a_history_is_noticed_within_a_minute(
    fairlead_system: System, tmp_path: Path, clock: Clock
) -> None:
    """From then on what is published is stored, and the same id once."""
    for name, history in (("one.py", "None"), ("two.py", "History(size=100)")):
        (tmp_path / name).write_text(LATE.format(history=history))
    old = await fairlead_system.worker(str(tmp_path / "one.py"))
    async with fairlead.connect(fairlead_system.nats.url, app=fairlead_system.app) as bus:
        topic = bus.topic("late")
        assert await topic.publish("to whoever is there") is None
        await fairlead_system.worker(str(tmp_path / "two.py"))
        await old.stop()
        clock.passed = 61.0
        first, again = [await topic.publish("once", id="7") for _ in range(2)]
    room = Subjects(fairlead_system.app).log("late", "-")
    places = [cursor.decode(each or "not stored", room) for each in (first, again)]
    assert [each.sequence for each in places if isinstance(each, Position)] == [1, 1]


class Heard:
    """A bus that is told what is published without being stored."""

    subjects = Subjects("a")

    def __init__(self) -> None:
        self.said: list[bytes] = []

    async def ready(self) -> None: ...
    async def round_trip(self) -> None: ...

    def publish(self, subject: str, payload: bytes, **_: Any) -> None:
        self.said.append(payload)


class Declared:
    """What workers have declared.

    Attributes:
        asked: how often that was looked up; fails: NATS does not say.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.fails = False
        self.topics: dict[str, History | None] = {"chat": None}
        monkeypatch.setattr(appbus, "declared", self._look)

    async def _look(self, _: Any) -> dict[str, History | None]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise TimeoutError
        return self.topics


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Declared:
    return Declared(monkeypatch)


async def say(publisher: appbus.LookingPublisher, *texts: bytes, topic: str = "chat") -> None:
    said = (publisher.publish(topic, "-", DataType.TEXT, text) for text in texts)
    await asyncio.gather(*said)


async def test_topics_are_looked_up_once_a_minute_for_all_who_publish(
    clock: Clock, declared: Declared
) -> None:
    bus = Heard()
    publisher = appbus.LookingPublisher(bus)  # type: ignore[arg-type]
    for passed, asked in ((0.0, 1), (59.0, 1), (61.0, 2), (119.0, 2), (122.0, 3)):
        clock.passed = passed
        await say(publisher, b"a", b"b")
        assert declared.asked == asked
    assert len(bus.said) == 10


async def test_what_is_known_will_do_while_nobody_says_more(
    clock: Clock, declared: Declared
) -> None:
    """A room without history needs no JetStream; what is not known does."""
    bus = Heard()
    publisher = appbus.LookingPublisher(bus)  # type: ignore[arg-type]
    await say(publisher, b"a")
    declared.fails = True
    clock.passed = 61.0
    await say(publisher, b"b", b"c", b"d")
    assert declared.asked == 2, "one look is enough for all who wait"
    clock.passed = 63.0
    await say(publisher, b"e")
    assert declared.asked == 3, "soon it is asked again"
    assert bus.said == [b"a", b"b", b"c", b"d", b"e"]
    with pytest.raises(TimeoutError):
        await say(publisher, b"f", topic="unknown")
