"""Runs that nobody looks after, on a real NATS: found, whatever else is stored among them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fairlead import runstore
from fairlead.bus import Bus, BusOptions
from fairlead.protocol.runlog import Opening
from fairlead.protocol.subjects import Subjects
from fairlead.testing.system import NatsServer
from fairlead_worker.sweeper import Sweeper
from support.system import until

EVERY = 0.05


def opening(inbound: str = "fl.t.in.runs.count.-.-") -> Opening:
    return Opening(inbound, "key", "", 60.0, b"")


@pytest_asyncio.fixture
async def bus(fairlead_nats: NatsServer) -> AsyncIterator[Bus]:
    options = BusOptions(
        [fairlead_nats.url], Subjects(f"sweeper-{secrets.token_hex(4)}"), "worker", "w1"
    )
    made = await Bus.connect(options)
    await runstore.ensure(made)
    yield made
    await made.close()


async def test_what_is_strange_among_the_runs_hides_none_of_them(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may publish can store under any name: no run's id, and no subject of a workflow."""
    taken: list[str] = []

    def take_up(run: str, kept: Opening) -> None:
        bus.subjects.workflow_of_inbound(kept.inbound)  # as `Hands.take_up` begins
        taken.append(run)

    watching = asyncio.create_task(Sweeper(bus, take_up).watch(EVERY, EVERY))
    try:
        await bus.request(f"{bus.subjects.root}.run.no!id.open", b"x", within=5)
        await bus.request(f"{bus.subjects.root}.run.no!id2.end", b"x", within=5)
        await runstore.open_run(bus, "strange", opening(inbound="x"))
        await until(lambda: "a run cannot be looked at" in caplog.text, "they were looked at")
        await runstore.open_run(bus, "orphan", opening())
        await until(lambda: "orphan" in taken, "the next sweep finds who needs it")
    finally:
        watching.cancel()


async def test_a_sweep_that_fails_is_told_and_not_the_last(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours, too: else nobody would take a run up any more, and nobody would know."""
    sweeps: list[str] = []

    def take_up(run: str, _: Opening) -> None:
        sweeps.append(run)
        raise RuntimeError("an error of ours")

    await runstore.open_run(bus, "orphan", opening())
    watching = asyncio.create_task(Sweeper(bus, take_up).watch(EVERY, EVERY))
    try:
        await until(lambda: len(sweeps) > 1, "it looks around again")
    finally:
        watching.cancel()
    assert "a sweep of the runs failed" in caplog.text
