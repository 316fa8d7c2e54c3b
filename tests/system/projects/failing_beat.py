"""A worker with an error of ours: its second beat fails, and so would each one after it."""

from __future__ import annotations

import itertools

from fairlead import WS, Message, feature, project
from fairlead_worker.hands import Hands

failing = feature("Failing")

_beats = itertools.count(1)
_beat = Hands.beat


@failing.websocket("echo", tag="beat")
async def echo(ctx: WS, message: Message) -> None:
    """Says nothing."""


def beat(self: Hands) -> None:
    if next(_beats) > 1:
        raise RuntimeError("an error of ours")
    _beat(self)


Hands.beat = beat  # type: ignore[method-assign]  # what is wrong with it is the test's

app = project(failing)
