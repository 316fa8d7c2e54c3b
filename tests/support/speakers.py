"""Clients that speak through edges which come and go, and the account of what became of each word.

They are our own: what was not acknowledged when a connection was lost, they send again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fairlead import client
from fairlead.client import Connection, FairleadError, Retry, Sent, StatusChange
from fairlead.testing.program import DEADLINE
from support.line import Line, served
from support.proof import Account, Crowd, Summary, Times
from support.system import Edge


class Balancer(Line):
    """A line that leads each new connection to one of the edges that there are."""

    def __init__(self, choose: Callable[[], Edge]) -> None:
        super().__init__(choose())
        self._choose = choose
        self._lines: dict[Edge, Line] = {}

    def to(self, edge: Edge) -> Line:
        """What it passes on to this edge goes over a line of its own."""
        return self._lines.setdefault(edge, Line(edge))

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.to(self._choose()).pass_on(reader, writer)

    async def cut(self) -> None:
        for line in self._lines.values():
            await line.cut()


@dataclass
class Speaker:
    """A client that speaks in a room, and does not wait for one word before it says the next.

    Attributes:
        members: accounts of others in the room.
        account: what it said, and what it got of it: it is a member of the room, too.
        acks: seconds from each word to its acknowledgement.
        again: words that were on their way when a connection was lost, and were sent again.
        failed: words that were given up.
    """

    members: list[Account]
    account: Account = field(default_factory=Account)
    acks: list[float] = field(default_factory=list)
    again: int = 0
    failed: list[FairleadError] = field(default_factory=list)
    _way: set[Sent] = field(default_factory=set)

    async def go(self, url: str, pause: float, done: asyncio.Event) -> None:
        """Speak until `done`; return when all of it is acknowledged, and heard."""
        async with client.connect(url, retry=Retry(first=0.2)) as room:
            room.on("status", self._changed)
            hearing = asyncio.create_task(self._hear(room))
            try:
                async with asyncio.TaskGroup() as group:
                    while not done.is_set():
                        group.create_task(self._say(room))
                        await asyncio.sleep(pause)
                await self._say(room, last=True)
                if not self.failed:
                    await hearing
            finally:
                hearing.cancel()

    async def _say(self, room: Connection, *, last: bool = False) -> None:
        word = f"{time.time():.6f} {'last' if last else len(self.account.sent)}"
        for account in (self.account, *self.members):
            account.sent.append(word)
        began = time.monotonic()
        sent = room.send(word)
        self._way.add(sent)
        try:
            await sent
            self.acks.append(time.monotonic() - began)
        except FairleadError as error:
            self.failed.append(error)
        finally:
            self._way.remove(sent)

    async def _hear(self, room: Connection) -> None:
        """Up to the last word, which is said when all others are acknowledged: in the room each
        repetition of one of those is before it."""
        async for message in room:
            self.account.got.append(message.data)
            if message.data.endswith("last"):
                return

    def _changed(self, change: StatusChange) -> None:
        if change.status == "reconnecting":
            self.account.cuts += 1
            # Those that have never been on the wire are not said again: they are said.
            self.again += sum(sent.since is not None for sent in self._way)


@dataclass
class Spoken:
    """The accounts of all speakers, and of those who listened, together."""

    clients: Summary
    said: int
    acknowledged: int
    again: int
    failed: int
    acks: Times

    def show(self, name: str) -> None:
        """Two lines for whoever reads the output (`make soak`, or pytest -s)."""
        self.clients.show(name)
        sys.stdout.write(
            f"{name}, the speakers: said {self.said}, acknowledged {self.acknowledged}, sent again "
            f"{self.again}, given up {self.failed}; ack {self.acks}\n"
        )


async def spoken_through(
    crowd: Crowd, pause: float, what: Callable[[Balancer], Coroutine[Any, Any, None]]
) -> Spoken:
    """Have somebody speak in each room of a crowd, who listens, while something happens to the edges.

    Args:
        pause: seconds between two words of a speaker.
        what: happens, once it is told how the speakers reach the edges.
    """
    speakers = {
        channel: Speaker([member.account for member in members])
        for channel, members in crowd.members.items()
    }

    async def speak() -> None:
        done = asyncio.Event()
        dice = random.Random(len(speakers))
        balancer = Balancer(lambda: dice.choice(crowd.edges))
        with contextlib.suppress(TimeoutError):  # what is missing then is shown as lost
            async with (
                served(balancer) as line,
                asyncio.timeout(None) as deadline,
                asyncio.TaskGroup() as group,
            ):
                for channel, speaker in speakers.items():
                    group.create_task(speaker.go(line.http(crowd.path(channel)), pause, done))
                await what(balancer)
                done.set()
                deadline.reschedule(asyncio.get_running_loop().time() + DEADLINE)

    await crowd.through(speak())
    everybody = list(speakers.values())
    accounts = [*(each.account for each in crowd), *(each.account for each in everybody)]
    return Spoken(
        Summary.of(accounts),
        sum(len(each.account.sent) for each in everybody),
        sum(len(each.acks) for each in everybody),
        sum(each.again for each in everybody),
        sum(len(each.failed) for each in everybody),
        Times.of([seconds for each in everybody for seconds in each.acks]),
    )
