"""Deploys and crashes of all workers, a frozen edge, and NATS away: under load, nobody notices more than a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from support import reading
from support.system import Edge, System, Worker, nats_server, system
from support.talk import Outcome, talk_through

Step = Callable[[System, Worker, float], Coroutine[Any, Any, None]]


async def drained(app: System, old: Worker, pause: float) -> None:
    """SIGTERM."""
    assert await old.stop() == 0


async def killed(app: System, old: Worker, pause: float) -> None:
    """SIGKILL."""
    old.kill()
    await old.ended()


async def frozen(app: System, old: Worker, pause: float) -> None:
    """SIGSTOP, SIGCONT: it comes back, and has to see that others have its work."""
    old.freeze()
    await asyncio.sleep(pause)  # the freeze itself
    old.thaw()
    await old.says("the loop stood still")


def forms(**short_and_long: tuple[int, int, float]) -> list[Any]:
    """Rooms, workers, and seconds of a freeze or between two steps."""
    return [
        pytest.param(*form, id=id, marks=[pytest.mark.soak] if id == "long" else [])
        for id, form in short_and_long.items()
    ]


@pytest.mark.parametrize("step", [drained, killed, frozen])
@pytest.mark.parametrize(
    ("rooms", "workers", "pause"), forms(short=(20, 2, 3.0), long=(100, 4, 10.0))
)
async def test_all_workers_are_replaced_one_after_the_other(
    app: System, step: Step, rooms: int, workers: int, pause: float
) -> None:
    await asyncio.gather(*(app.worker() for _ in range(workers)))
    one, two = await asyncio.gather(app.edge(), app.edge())

    async def roll() -> None:
        for old in list(app.workers):
            if step is not frozen:
                await app.worker()
            await asyncio.sleep(pause / 10)
            await step(app, old, pause)

    outcome = await talk_through((one, two), rooms, roll())
    outcome.show(f"all of {workers} workers {step.__name__}", rooms)
    assert_nobody_noticed(outcome)


@pytest.mark.parametrize(
    ("rooms", "pause"),
    [(20, 3.0), pytest.param(100, 10.0, marks=pytest.mark.soak)],
    ids=["short", "long"],
)
async def test_an_edge_that_is_frozen_loses_nothing(app: System, rooms: int, pause: float) -> None:
    _, one, two = await asyncio.gather(app.worker(), app.edge(), app.edge())

    async def freeze() -> None:
        await asyncio.sleep(1)
        one.freeze()
        await asyncio.sleep(pause)  # the freeze itself
        one.thaw()

    outcome = await talk_through((one, two), rooms, freeze())
    outcome.show(f"an edge frozen for {pause:g} s", rooms)
    assert_nobody_noticed(outcome)


@pytest.mark.soak
async def test_nats_away_for_twenty_seconds(tmp_path: Path) -> None:
    """Five are tested with each run of the tests: test_failures.py."""
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        _, one, two = await asyncio.gather(app.worker(), app.edge(), app.edge())

        async def outage() -> None:
            await asyncio.sleep(1)
            await nats.stop()
            await asyncio.sleep(20)  # the outage itself
            await nats.start()

        outcome = await talk_through((one, two), 50, outage())
        outcome.show("NATS away for 20 s", 50)
        assert_nobody_noticed(outcome)


def assert_nobody_noticed(outcome: Outcome) -> None:
    assert outcome.heard == outcome.said > 0
    assert (outcome.duplicates, outcome.out_of_order, outcome.failed) == (0, 0, 0)


@pytest.mark.parametrize("step", [drained, killed])
@pytest.mark.parametrize(
    ("runs", "workers", "items"),
    [(10, 2, 500), pytest.param(100, 4, 1500, marks=pytest.mark.soak)],
    ids=["short", "long"],
)
async def test_runs_that_are_kept_go_on_while_all_workers_are_replaced(
    app: System, step: Step, runs: int, workers: int, items: int
) -> None:
    """Each reader has one whole attempt at the end, and of those before no item twice."""
    flags = ("runs.py", "--drain-grace", "1")
    await asyncio.gather(*(app.worker(*flags) for _ in range(workers)))
    one, two = await asyncio.gather(app.edge(), app.edge())
    for edge in (one, two):
        await edge.serves("/runs/kept/count")

    async def roll() -> None:
        for old in list(app.workers):
            await app.worker(*flags)
            await asyncio.sleep(1)
            await step(app, old, 0)

    readers = [asyncio.create_task(read(edge, items)) for edge in (one, two) * (runs // 2)]
    await roll()
    found = await asyncio.gather(*readers)
    reading.show(f"all of {workers} workers {step.__name__}", found, items)
    assert {run.items for run in found} == {items}
    assert max(run.attempts for run in found) > 1, "some were begun anew"


async def read(edge: Edge, items: int) -> reading.Read:
    async with edge.events(f"/runs/kept/count?n={items}") as stream:
        return await reading.read_to_end(stream)
