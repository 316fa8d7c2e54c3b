"""How a run's output comes into its log, on a real NATS, where that does not answer everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead import runstore
from fairlead.bus import Bus, BusOptions
from fairlead.protocol.runlog import Start
from fairlead.protocol.subjects import Subjects
from fairlead_worker.writer import ENTRY, KEPT, SHORTER, Writer
from support.system import until
from support.unanswered import Silent, silent_about

RUN = "a-1-1"


@pytest_asyncio.fixture
async def purges(tmp_path: Path) -> AsyncIterator[Silent]:
    """A server that leaves purges without an answer."""
    async with silent_about("STREAM.PURGE", tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def bus(purges: Silent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setattr("fairlead.runstore.ACK_WITHIN", 0.2)
    made = await Bus.connect(BusOptions([purges.url], Subjects("writer"), "worker", "w1"))
    await runstore.ensure(made)
    yield made
    await made.close()


async def numbers(bus: Bus) -> range:
    """Of the entries that the log has."""
    oldest, newest = await runstore.first(bus, RUN), await runstore.last(bus, RUN)
    assert oldest is not None and newest is not None
    return range(oldest[1].number, newest[1].number + 1)


async def test_a_log_that_is_not_made_shorter_is_written_all_the_same(
    purges: Silent, bus: Bus
) -> None:
    """It stays longer than it is to be, and is made shorter when that is possible again."""
    lost: list[Exception] = []
    writer = Writer(bus, RUN, 1, lost.append)
    writer.unattended = True
    await writer.start(Start("w1", 0, 0.0), 0, 0)
    said = KEPT // ENTRY + 2
    for _ in range(said):
        await writer.append(bytes(ENTRY))

    async def stored() -> bool:
        assert lost == []
        return await numbers(bus) == range(1, 1 + said + 1)

    await until(stored, "all of it is stored, and nothing is forgotten")
    await purges.answer()
    more = SHORTER // ENTRY + 1
    for _ in range(more):
        await writer.append(bytes(ENTRY))
    assert await writer.close() and lost == []
    kept = await numbers(bus)
    assert kept.stop == 1 + said + more + 1
    assert (KEPT - SHORTER) // ENTRY <= len(kept) <= KEPT // ENTRY
