"""Three nats-servers, every stream on all of them: one of them dies or stands still under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from fairlead.protocol.subjects import Subjects
from support.cluster import Cluster, cluster
from support.proof import Crowd
from support.system import System, system


@pytest_asyncio.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path / "nats") as made:
        yield made


@pytest_asyncio.fixture
async def spread(brokers: Cluster, tmp_path: Path) -> AsyncIterator[System]:
    async with system(brokers, tmp_path) as app:  # type: ignore[arg-type]  # it is asked for its url
        yield app


async def roles(app: System) -> tuple[str, list[str]]:
    """(leader, followers) of the rooms' stream."""
    client: Any = await nats.connect(app.nats.url.split(","))
    info = await client.jetstream().stream_info(Subjects(app.app).stream("large"))
    await client.close()
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return info.cluster.leader, [each.name for each in info.cluster.replicas or []]


@pytest.mark.parametrize("what", ["leader killed", "follower frozen"])
async def test_no_acknowledged_message_is_lost_and_no_return_is_wrong(
    brokers: Cluster, spread: System, what: str
) -> None:
    """Clients come and go all the while, so that they are served by servers that lag."""
    one, two, _ = await asyncio.gather(
        spread.edge(), spread.edge(), spread.worker("logs.py", "--replicas", "3")
    )
    for edge in (one, two):
        await edge.serves("/logs/v1/large")
    dice = random.Random(20261124)
    crowd = Crowd(spread, [one, two])
    for number in range(40):
        crowd.add("crowd" if number < 20 else f"alone{number}", dice, every=2.0, away=0.3)

    async def trouble() -> None:
        leader, followers = await roles(spread)
        server = brokers.servers[leader if what == "leader killed" else followers[0]]
        assert server.process is not None
        if what == "leader killed":
            server.process.kill()
            await server.process.ended()
            await asyncio.sleep(2)
            await server.start()
        else:
            server.process.freeze()
            await asyncio.sleep(4)
            server.process.thaw()

    async def both() -> None:
        await asyncio.gather(trouble(), crowd.talk(10.0, 4.0))

    summary = await crowd.through(both())
    summary.show(what)
    assert summary.delivered == summary.sent > 0
    assert (summary.duplicates, summary.out_of_order) == (0, 0)
