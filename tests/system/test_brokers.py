"""Three nats-servers, every stream on all of them: one of them dies or stands still under load."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from fairlead.protocol.subjects import Subjects
from support.cluster import Cluster, cluster
from support.proof import Crowd
from support.system import Events, System, system


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
        leader, followers = await roles(spread, Subjects(spread.app).stream("large"))
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


async def test_a_kept_run_goes_on_without_the_leader_of_its_stream(
    brokers: Cluster, spread: System
) -> None:
    """No item is lost, none comes twice, and nothing is begun anew: also not what was being stored."""
    edge, _ = await asyncio.gather(spread.edge(), spread.worker("runs.py", "--replicas", "3"))
    await edge.serves("/runs/kept/count")
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(edge.events("/runs/kept/count?n=400"))
            for _ in range(10)
        ]
        reading = [asyncio.create_task(items(stream)) for stream in streams]
        leader, _ = await roles(spread, Subjects(spread.app).runs)
        server = brokers.servers[leader]
        assert server.process is not None
        server.process.kill()
        for read in await asyncio.gather(*reading):
            assert read == [f"1:{number}" for number in range(400)]


async def items(stream: Events) -> list[str]:
    """What a run says, to its end."""
    found: list[str] = []
    while (event := await stream.next()).get("event") != "end":
        assert event.get("event") in (None, "run"), event
        if "data" in event and "event" not in event:
            found.append(json.loads(event["data"]))
    return found
