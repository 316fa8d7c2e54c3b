"""Publishing from outside a run, on a real NATS that does not answer everything."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead import roomlog, roomstreams
from fairlead.bus import Bus, BusOptions
from fairlead.errors import NotStored
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History
from fairlead.protocol.subjects import Subjects
from fairlead.publisher import Publisher
from support.system import nats_server, until
from support.unanswered import Silent, silent_about

TOPICS = {"chat": History(10, 300), "volatile": None}


@pytest_asyncio.fixture
async def states(tmp_path: Path) -> AsyncIterator[Silent]:
    """A server that does not say where a stream stands."""
    async with silent_about("STREAM.INFO", tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def asking(states: Silent) -> AsyncIterator[Bus]:
    """A process that is answered, of the app in whose room something is to be published."""
    made = await connected(states.server.url)
    await roomstreams.ensure(made, "chat", History(10, 300), 1, False)
    yield made
    await made.close()


async def connected(url: str) -> Bus:
    options = BusOptions([url], Subjects("publishing"), "publisher", secrets.token_hex(4))
    return await Bus.connect(options)


def published(bus: Bus, topic: str = "chat") -> asyncio.Task[str | None]:
    publisher = Publisher(bus, lambda: TOPICS)
    return asyncio.create_task(publisher.publish(topic, "-", DataType.TEXT, b"hello"))


async def stored(bus: Bus) -> int:
    return (await roomlog.state(bus, bus.subjects.stream("chat"))).sequence


async def test_a_question_without_an_answer_is_asked_again(
    states: Silent, asking: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the message's cursor in the end, and is in the room once."""
    monkeypatch.setattr("fairlead.roomlog.ACK_WITHIN", 0.2)
    bus = await connected(states.url)
    publishing = published(bus)
    await asyncio.wait({publishing}, timeout=0.5)
    await states.answer()
    assert await publishing is not None
    assert await stored(asking) == 1
    await bus.close()


async def test_what_is_said_not_to_be_stored_is_not(
    states: Silent, asking: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no id of their own tries again, and it is to be in the room once."""
    monkeypatch.setattr("fairlead.roomlog.ACK_WITHIN", 0.2)
    monkeypatch.setattr("fairlead.storing.STORE_PATIENCE", 0.5)
    bus = await connected(states.url)
    with pytest.raises(NotStored, match="does not answer"):
        await published(bus)
    assert await stored(asking) == 0
    await bus.close()


async def test_without_history_a_nats_that_does_not_answer_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.storing.STORE_PATIENCE", 0.5)
    async with nats_server(tmp_path / "nats") as server:
        bus = await connected(server.url)
        assert await published(bus, "volatile") is None
        frozen = server.process
        assert frozen is not None
        frozen.freeze()
        await until(lambda: stands_still(frozen.pid), "each of its threads stands still")
        try:
            with pytest.raises(NotStored, match="may have been said"):
                await published(bus, "volatile")
        finally:
            frozen.thaw()
            await bus.close()


def stands_still(pid: int) -> bool:
    """Whether SIGSTOP has reached all threads: until then one of them may still answer."""
    states = (each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat"))
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)
