"""What is stored of runs, on a real NATS that does not answer everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead import runstore
from fairlead.bus import Bus, BusOptions
from fairlead.errors import NotStored
from fairlead.protocol.runlog import Entry, Start, encode_entry
from fairlead.protocol.subjects import Subjects
from fairlead.storing import OutOfOrder
from support.unanswered import Silent, silent_about

RUN = "a-1-1"

FIRST = Entry(1, 1, [Start("w1", 0, 0.0).encode()])


@pytest_asyncio.fixture
async def reads(tmp_path: Path) -> AsyncIterator[Silent]:
    """A server that does not say what is stored."""
    async with silent_about("STREAM.MSG.GET", tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def bus(reads: Silent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setattr("fairlead.runstore.ACK_WITHIN", 0.2)
    made = await Bus.connect(BusOptions([reads.url], Subjects("store"), "worker", "w1"))
    await runstore.ensure(made)
    yield made
    await made.close()


async def there(bus: Bus, entry: Entry) -> None:
    """Have an entry stored, as by a try that a new leader does not know by its id."""
    await bus.request(bus.subjects.run_log(RUN), encode_entry(entry), within=5)


async def test_whose_entry_is_there_is_asked_until_somebody_says_it(
    reads: Silent, bus: Bus
) -> None:
    """Else a run whose words are all stored would be begun anew."""
    await there(bus, FIRST)
    appending = asyncio.create_task(runstore.append(bus, RUN, FIRST, 0))
    await asyncio.wait({appending}, timeout=0.5)
    await reads.answer()
    assert await appending == 1


async def test_another_ones_entry_is_out_of_order(reads: Silent, bus: Bus) -> None:
    await reads.answer()
    await there(bus, Entry(1, 1, [Start("w2", 0, 0.0).encode()]))
    with pytest.raises(OutOfOrder):
        await runstore.append(bus, RUN, FIRST, 0)


async def test_a_refusal_is_no_answer(bus: Bus) -> None:
    """Neither "there are no runs" nor "it is forgotten": nobody knows."""
    await bus.jetstream.delete_stream(bus.subjects.runs)
    with pytest.raises(NotStored, match="stream not found"):
        await runstore.stored(bus)
    with pytest.raises(NotStored, match="stream not found"):
        await runstore.forget(bus, RUN)
