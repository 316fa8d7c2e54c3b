"""Three nats-servers, every stream on all of them: one of them dies or stands still under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors
import pytest
import pytest_asyncio

from fairlead.protocol.subjects import Subjects
from fairlead.storing import ACK_WITHIN
from support import reading
from support.cluster import Cluster, cluster
from support.proof import Crowd
from support.system import System, system, until


@pytest_asyncio.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path / "nats") as made:
        yield made


@pytest_asyncio.fixture
async def spread(brokers: Cluster, tmp_path: Path) -> AsyncIterator[System]:
    async with system(brokers, tmp_path) as app:  # type: ignore[arg-type]  # it is asked for its url
        yield app


async def roles(app: System, stream: str) -> tuple[str, list[str]]:
    """(leader, followers) of a stream."""
    client: Any = await nats.connect(app.nats.url.split(","))
    info = await client.jetstream().stream_info(stream)
    await client.close()
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return info.cluster.leader, [each.name for each in info.cluster.replicas or []]


@dataclass(frozen=True)
class Form:
    """How long and with how many.

    Attributes:
        crowd: clients in one room; alone: clients in a room each.
        every: mean seconds between two cuts of a client.
        times: how often it happens, with `pause` seconds between.
    """

    crowd: int
    alone: int
    every: float
    seconds: float
    times: int
    pause: float


SHORT = Form(crowd=20, alone=20, every=2.0, seconds=10.0, times=1, pause=0.0)
LONG = Form(crowd=100, alone=100, every=5.0, seconds=90.0, times=3, pause=10.0)


def forms(short: tuple[Any, ...], long: tuple[Any, ...]) -> list[Any]:
    return [
        pytest.param(*short, id="short"),
        pytest.param(*long, id="long", marks=pytest.mark.soak),
    ]


async def until_all_have_it(app: System, stream: str) -> None:
    """Wait until each of the three has all of a stream: one more may go then."""
    client: Any = await nats.connect(app.nats.url.split(","))

    async def all_current() -> bool:
        try:
            cluster = (await client.jetstream().stream_info(stream)).cluster
        except (nats.errors.Error, nats.js.errors.Error):
            return False
        followers = cluster.replicas or [] if cluster is not None and cluster.leader else []
        return len(followers) == 2 and all(each.current for each in followers)

    await until(all_current, "all three servers have it all")
    await client.close()


KILLED = "leader killed"
FROZEN = "follower frozen"
FROZEN_BELOW = "follower frozen with an edge on it"


@pytest.mark.parametrize("form", forms((SHORT,), (LONG,)))
@pytest.mark.parametrize("what", [KILLED, FROZEN, FROZEN_BELOW])
async def test_no_acknowledged_message_is_lost_and_no_return_is_wrong(
    brokers: Cluster, spread: System, what: str, form: Form
) -> None:
    """Clients come and go all the while, so that they are served by servers that lag."""
    await spread.worker("logs.py", "--replicas", "3")
    stream = Subjects(spread.app).stream("large")
    leader, (follower, third) = await roles(spread, stream)
    standing = brokers.urls(leader, third)
    below = brokers.urls(follower) if what == FROZEN_BELOW else standing
    one, two = await asyncio.gather(
        spread.edge(env={"FAIRLEAD_NATS": standing}), spread.edge(env={"FAIRLEAD_NATS": below})
    )
    for edge in (one, two):
        await edge.serves("/logs/v1/large")
    dice = random.Random(20261124)
    crowd = Crowd(spread, [one, two])
    for number in range(form.crowd + form.alone):
        channel = "crowd" if number < form.crowd else f"alone{number}"
        crowd.add(channel, dice, form.every, away=0.3)

    async def trouble() -> None:
        if what != KILLED:
            frozen = brokers.process(follower)
            frozen.freeze()
            await asyncio.sleep(4)
            frozen.thaw()
            return
        name, _ = await roles(spread, stream)
        brokers.process(name).kill()
        await brokers.process(name).ended()
        await asyncio.sleep(2)
        await brokers.servers[name].start()

    async def troubles() -> None:
        for again in range(form.times):
            if again:
                await asyncio.sleep(form.pause)
                await until_all_have_it(spread, stream)
            await trouble()

    async def both() -> None:
        await asyncio.gather(troubles(), crowd.talk(form.seconds, 4.0))

    summary = await crowd.through(both())
    summary.show(f"{what}, {form.times} times")
    summary.assert_nothing_was_lost()


async def test_what_waits_for_a_quorum_is_acknowledged_once_it_is_stored(
    brokers: Cluster, spread: System
) -> None:
    """It is published again after 2 s, which the leader refuses: the first try is still under way."""
    stream = Subjects(spread.app).stream("large")
    assert (
        await (await spread.worker("logs.py", "--replicas", "3")).stop() == 0
    )  # it made the stream
    await until_all_have_it(spread, stream)
    leader, followers = await roles(spread, stream)
    there = {"FAIRLEAD_NATS": brokers.urls(leader)}
    edge, _ = await asyncio.gather(spread.edge(env=there), spread.worker("logs.py", env=there))
    await edge.serves("/logs/v1/large")
    async with edge.v1("/logs/v1/large?channel=a") as client:
        for name in followers:
            brokers.process(name).freeze()
        await client.send("first")
        await asyncio.sleep(ACK_WITHIN + 1)
        for name in followers:
            brokers.process(name).thaw()
        message, _ = await client.each("message", "ack")
        await client.send("second")
        after, _ = await client.each("message", "ack")
    assert (message["data"], after["data"]) == ("first", "second")


@pytest.mark.parametrize(("runs", "items"), forms((10, 400), (50, 1500)))
async def test_a_kept_run_goes_on_without_the_leader_of_its_stream(
    brokers: Cluster, spread: System, runs: int, items: int
) -> None:
    """No item is lost, none comes twice, and nothing is begun anew: also not what was being stored."""
    edge, _ = await asyncio.gather(spread.edge(), spread.worker("runs.py", "--replicas", "3"))
    await edge.serves("/runs/kept/count")
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(edge.events(f"/runs/kept/count?n={items}"))
            for _ in range(runs)
        ]
        readers = [asyncio.create_task(reading.read_to_end(stream)) for stream in streams]
        leader, _ = await roles(spread, Subjects(spread.app).runs)
        brokers.process(leader).kill()
        found = await asyncio.gather(*readers)
    reading.show("leader of the runs' stream killed", found, items)
    assert {(run.items, run.attempts) for run in found} == {(items, 1)}
