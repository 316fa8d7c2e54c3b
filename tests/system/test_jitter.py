"""Bad networks: every client loses its connection again and again, and no message is lost.

The long form is that of a public benchmark, in which the best two reached 100 %: 1,000 clients,
each cut off about every 10 s for about 1 s (`make soak`).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest

from support.proof import Crowd
from support.system import System

SEED = 20261124


@dataclass(frozen=True)
class Form:
    """How long and with how many.

    Attributes:
        crowd: clients in one room; alone: clients in a room each.
        rate: messages per second, of the crowded room and of each other client's.
        every, away: mean seconds between two cuts, and of an absence.
    """

    crowd: int
    alone: int
    seconds: float
    rate: float
    every: float
    away: float


SHORT = Form(crowd=40, alone=40, seconds=6.0, rate=4.0, every=1.0, away=0.2)
LONG = Form(crowd=500, alone=500, seconds=120.0, rate=2.0, every=10.0, away=1.0)


async def test_clients_that_are_cut_off_again_and_again_get_every_message(app: System) -> None:
    await jitter(app, SHORT)


@pytest.mark.soak
async def test_a_thousand_of_them_for_two_minutes(app: System) -> None:
    await jitter(app, LONG)


async def jitter(app: System, form: Form) -> None:
    one, two, _ = await asyncio.gather(app.edge(), app.edge(), app.worker("logs.py"))
    for edge in (one, two):
        await edge.serves("/logs/v1/large")
    dice = random.Random(SEED)
    crowd = Crowd(app, [one, two])
    for number in range(form.crowd + form.alone):
        channel = "crowd" if number < form.crowd else f"alone{number}"
        crowd.add(channel, dice, form.every, form.away)
    summary = await crowd.through(crowd.talk(form.seconds, form.rate))
    summary.show("jitter")
    assert summary.cuts > summary.clients
    summary.assert_nothing_was_lost()
