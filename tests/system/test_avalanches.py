"""Deploys and crashes of edges under load: all clients back, every message with them.

Workers have theirs in test_failures.py: clients do not even notice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from support.proof import Crowd, Summary
from support.speakers import Balancer, Spoken, spoken_through
from support.system import Edge, System

NEVER = 1e6


@dataclass(frozen=True)
class Form:
    """Clients in one room, and in a room each; messages per second; seconds between two edges."""

    crowd: int
    alone: int
    rate: float
    pause: float


SHORT = Form(crowd=30, alone=30, rate=5.0, pause=0.5)
LONG = Form(crowd=400, alone=400, rate=2.0, pause=10.0)

FORMS = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=pytest.mark.soak),
]


async def crowd_of(app: System, form: Form) -> Crowd:
    one, two, _ = await asyncio.gather(new_edge(app), new_edge(app), app.worker("logs.py"))
    for edge in (one, two):
        await edge.serves("/logs/v1/large")
    dice = random.Random(20261124)
    crowd = Crowd(app, [one, two])
    for number in range(form.crowd + form.alone):
        channel = "crowd" if number < form.crowd else f"alone{number}"
        crowd.add(channel, dice, NEVER, away=0.2)
    return crowd


async def new_edge(app: System) -> Edge:
    return await app.edge("--drain-grace", "10s")


async def roll(app: System, crowd: Crowd, pause: float) -> None:
    """One after the other: a new one comes, an old one is drained."""
    for old in list(crowd.edges):
        new = await new_edge(app)
        await new.serves("/logs/v1/large")
        crowd.edges.append(new)
        crowd.edges.remove(old)
        assert await old.stop() == 0
        await asyncio.sleep(pause)


async def kill(crowd: Crowd, pause: float) -> None:
    killed = crowd.edges.pop()
    killed.kill()
    await killed.ended()
    await asyncio.sleep(pause)


@pytest.mark.parametrize("form", FORMS)
async def test_a_rolling_restart_of_all_edges_loses_nothing(app: System, form: Form) -> None:
    crowd = await crowd_of(app, form)
    summary = await during_talk(crowd, form, roll(app, crowd, form.pause))
    summary.show("rolling restart of edges")
    assert summary.cuts >= summary.clients
    summary.assert_nothing_was_lost()


@pytest.mark.parametrize("form", FORMS)
async def test_an_edge_that_is_killed_loses_nothing_of_clients_that_come_back(
    app: System, form: Form
) -> None:
    crowd = await crowd_of(app, form)
    summary = await during_talk(crowd, form, kill(crowd, form.pause))
    summary.show("an edge killed")
    assert summary.cuts > 0
    summary.assert_nothing_was_lost()


async def during_talk(crowd: Crowd, form: Form, what: Coroutine[Any, Any, None]) -> Summary:
    async def both() -> None:
        await asyncio.gather(what, crowd.talk(6 * form.pause + 4, form.rate))

    return await crowd.through(both())


SPEAKERS = [
    pytest.param(Form(crowd=0, alone=20, rate=10.0, pause=0.5), id="short"),
    pytest.param(Form(crowd=0, alone=100, rate=4.0, pause=10.0), id="long", marks=pytest.mark.soak),
]


@pytest.mark.parametrize("form", SPEAKERS)
async def test_what_is_said_while_all_edges_are_replaced_is_heard_once(
    app: System, form: Form
) -> None:
    crowd = await crowd_of(app, form)
    spoken = await spoken_through(crowd, 1 / form.rate, lambda _: roll(app, crowd, form.pause))
    spoken.show("spoken through edges that are rolled")
    assert_each_word_was_heard_once(spoken)
    assert spoken.clients.cuts >= 2 * form.alone, "speakers and listeners were handed over"


@pytest.mark.parametrize("form", SPEAKERS)
async def test_what_is_said_while_an_edge_is_killed_is_heard_once(app: System, form: Form) -> None:
    """Also what had been executed, and its speaker was not told."""
    crowd = await crowd_of(app, form)

    async def kill_one(balancer: Balancer) -> None:
        await asyncio.sleep(form.pause)  # they speak
        balancer.to(crowd.edges[-1]).deaf = True
        await asyncio.sleep(5 / form.rate)  # they speak, and no ack comes through
        await kill(crowd, form.pause)

    spoken = await spoken_through(crowd, 1 / form.rate, kill_one)
    spoken.show("spoken through an edge that is killed")
    assert_each_word_was_heard_once(spoken)
    assert spoken.again > 0, "some of it had to be sent again"


def assert_each_word_was_heard_once(spoken: Spoken) -> None:
    spoken.clients.assert_nothing_was_lost()
    assert (spoken.acknowledged, spoken.failed) == (spoken.said, 0)
