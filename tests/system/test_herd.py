"""A herd: an edge has died, and all of its clients come back at once, each to a room of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import nats
import pytest
from nats.aio.client import Client as NatsClient
from websockets.exceptions import InvalidStatus

from fairlead.protocol.subjects import Subjects
from fairlead.testing.clients import V1
from support.proof import AIM, Times, store
from support.system import Edge, System

WORDS = ["one", "two", "three"]


@pytest.mark.parametrize(
    "number", [pytest.param(300, id="short"), pytest.param(5000, id="long", marks=pytest.mark.soak)]
)
async def test_all_come_back_and_none_has_missed_anything(app: System, number: int) -> None:
    one, two, _ = await asyncio.gather(app.edge(), app.edge(), app.worker("logs.py"))
    for edge in (one, two):
        await edge.serves("/logs/v1/large")
    cursors = await met(one, number)
    one.kill()
    await one.ended()
    await speak(app, number)
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        backs = [group.create_task(back(two, n, cursor)) for n, cursor in enumerate(cursors)]
    seconds = time.monotonic() - started
    tries = sum(task.result()[0] for task in backs)
    replay = Times.of(task.result()[1] for task in backs)
    sent = number * len(WORDS)
    sys.stdout.write(
        f"\nherd: {number} clients in {number} rooms; sent {sent}, delivered {sent} (100.000 %), "
        f"duplicates 0, out of order 0, not recovered 0; all recovered in {seconds:.1f} s, "
        f"{tries - number} handshakes refused for the moment; replay {replay} (the aim, p99 below "
        f"{AIM:g} s: {'met' if replay.p99 < AIM else 'not met'})\n"
    )


def path(room: int) -> str:
    return f"/logs/v1/large?channel=herd{room}"


async def met(edge: Edge, number: int) -> list[str]:
    """Where clients are who were all connected to an edge at one time."""
    stay = asyncio.Event()
    welcomed: list[asyncio.Future[str]] = []
    loop = asyncio.get_running_loop()

    async def stand(room: int, cursor: asyncio.Future[str]) -> None:
        async with edge.v1(path(room), open_timeout=60) as client:
            cursor.set_result(client.welcome["cursor"])
            await stay.wait()

    async with asyncio.TaskGroup() as group:
        for room in range(number):
            welcomed.append(loop.create_future())
            group.create_task(stand(room, welcomed[-1]))
            if room % 100 == 99:
                await welcomed[-1]
        cursors = [await each for each in welcomed]
        stay.set()
    return cursors


async def speak(app: System, number: int) -> None:
    """Three messages in each room."""
    client = await nats.connect(app.nats.url)
    subjects = Subjects(app.app)
    for first in range(0, number, 100):
        async with asyncio.TaskGroup() as group:
            for room in range(first, min(first + 100, number)):
                group.create_task(say(client, subjects.log("large", f"herd{room}")))
    await client.close()


async def say(client: NatsClient, subject: str) -> None:
    for word in WORDS:
        await store(client, subject, word)


async def back(edge: Edge, room: int, cursor: str) -> tuple[int, float]:
    """Come back and hear it all; how many handshakes and seconds that took."""
    began = time.monotonic()
    for tries in range(1, 100):
        with contextlib.suppress(InvalidStatus, TimeoutError):
            async with edge.v1(path(room) + f"&cursor={cursor}", open_timeout=60) as client:
                await heard_all(client)
                return tries, time.monotonic() - began
        await asyncio.sleep(0.5)
    raise AssertionError(f"room {room} was never joined")


async def heard_all(client: V1) -> None:
    assert client.welcome["recovered"] is True
    assert [await client.hears() for _ in WORDS] == WORDS
