"""Clients that are cut off again and again, and the account of what reached them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from fairlead.protocol.subjects import Subjects
from fairlead.testing import clients
from fairlead.testing.clients import V1
from fairlead.testing.program import DEADLINE
from support.system import Edge, System

AIM = 1.0
"""Seconds within which 99 of 100 returns are to have all that was missed."""


@dataclass(frozen=True)
class Times:
    """How long something took, in seconds."""

    p50: float
    p99: float
    slowest: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Times:
        found = sorted(seconds) or [0.0]
        return cls(found[len(found) // 2], found[int(len(found) * 0.99)], found[-1])

    def __str__(self) -> str:
        p50, p99, slowest = (
            f"{each * 1000:,.0f} ms" for each in (self.p50, self.p99, self.slowest)
        )
        return f"p50 {p50}, p99 {p99}, slowest {slowest}"


@dataclass
class Account:
    """What was sent to a client and what it got.

    Attributes:
        sent: messages that its room stored while it was a client, in order.
        got: those that it received.
        refused: returns that were answered with `recovered: false`.
        returns: seconds from each reconnect to the last message that was missed by then.
        late: seconds from a message's saying to its coming, at most.
    """

    sent: list[str] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    refused: int = 0
    cuts: int = 0
    returns: list[float] = field(default_factory=list)
    late: float = 0.0


@dataclass
class Summary:
    """The accounts of all clients together."""

    clients: int
    cuts: int
    sent: int
    delivered: int
    duplicates: int
    out_of_order: int
    refused: int
    replay: Times

    @classmethod
    def of(cls, accounts: list[Account]) -> Summary:
        delivered = duplicates = disorder = 0
        for account in accounts:
            unique = list(dict.fromkeys(account.got))
            delivered += len(set(unique) & set(account.sent))
            duplicates += len(account.got) - len(unique)
            place = {word: number for number, word in enumerate(account.sent)}
            order = [place[word] for word in unique if word in place]
            disorder += sum(after < before for before, after in itertools.pairwise(order))
        return cls(
            len(accounts),
            sum(account.cuts for account in accounts),
            sum(len(account.sent) for account in accounts),
            delivered,
            duplicates,
            disorder,
            sum(account.refused for account in accounts),
            Times.of(seconds for account in accounts for seconds in account.returns),
        )

    def show(self, name: str) -> None:
        """One line for whoever reads the output (`make soak`, or pytest -s)."""
        share = 100 * self.delivered / self.sent if self.sent else 100.0
        sys.stdout.write(
            f"\n{name}: {self.clients} clients, {self.cuts} cuts; sent {self.sent}, delivered "
            f"{self.delivered} ({share:.3f} %), duplicates {self.duplicates}, out of order "
            f"{self.out_of_order}, not recovered {self.refused}; replay {self.replay} "
            f"(the aim, p99 below {AIM:g} s: {'met' if self.replay.p99 < AIM else 'not met'})\n"
        )

    def assert_nothing_was_lost(self) -> None:
        # Not rewritten by pytest here: the summary says what it was.
        assert self.delivered == self.sent > 0, self
        assert (self.duplicates, self.out_of_order, self.refused) == (0, 0, 0), self


class Door(Protocol):
    """Where a client connects: an edge, or a balancer."""

    def ws(self, path: str) -> str: ...


class Wanderer:
    """A client that loses its connection at random and comes back with its cursor.

    Args:
        edges: asked for each connection, as a balancer would choose.
        every, away: mean seconds between two cuts, and of an absence.
    """

    def __init__(
        self, edges: Callable[[], Door], path: str, dice: random.Random, every: float, away: float
    ) -> None:
        self.account = Account()
        self.joined = asyncio.Event()
        self._edges = edges
        self._path = path
        self._dice = dice
        self._every = every
        self._away = away
        self._cursor: str | None = None
        self._done = asyncio.Event()
        self._client: V1 | None = None

    async def run(self) -> None:
        """Until `finish`, and then until all that was sent has come."""
        while not self.complete:
            started = time.time()
            try:
                async with clients.v1(self._url(), open_timeout=30) as client:
                    self._welcomed(client)
                    await self._listen(client, started)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            if not self.complete:
                self.account.cuts += 1
                await asyncio.sleep(self._dice.expovariate(1 / self._away))

    @property
    def complete(self) -> bool:
        return self._done.is_set() and set(self.account.sent) <= set(self.account.got)

    def finish(self) -> None:
        """Nothing more is sent; what is missing may still come."""
        self._done.set()
        if self.complete and self._client is not None:
            self._client.socket.transport.abort()

    def _url(self) -> str:
        query = f"&cursor={self._cursor}" if self._cursor else ""
        return self._edges().ws(self._path + query)

    def _welcomed(self, client: V1) -> None:
        self.account.refused += client.welcome["recovered"] is False
        self._cursor = client.welcome["cursor"]
        self._client = client
        self.joined.set()

    async def _listen(self, client: V1, started: float) -> None:
        stays = self._dice.expovariate(1 / self._every)
        caught_up = 0.0
        try:
            async with asyncio.timeout(None if self._done.is_set() else stays):
                while not self.complete:
                    frame: dict[str, Any] = json.loads(await client.socket.recv())
                    self._cursor = frame.get("id") or frame.get("cursor") or self._cursor
                    if frame["type"] == "message":
                        self.account.got.append(frame["data"])
                        said = float(frame["data"].split()[0])
                        self.account.late = max(self.account.late, time.time() - said)
                        if said < started:
                            caught_up = time.time() - started
        except TimeoutError:
            pass
        finally:
            if caught_up:
                self.account.returns.append(caught_up)
        if not self.complete:
            await client.cut()


@dataclass
class Crowd:
    """Wanderers, by the channel of the topic that each is in.

    Attributes:
        edges: those that a returning client may find; a test takes away and adds.
    """

    app: System
    edges: list[Edge]
    topic: str = "large"
    members: dict[str, list[Wanderer]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Wanderer]:
        return itertools.chain.from_iterable(self.members.values())

    def add(self, channel: str, dice: random.Random, every: float, away: float) -> None:
        """One client more."""
        made = Wanderer(lambda: dice.choice(self.edges), self.path(channel), dice, every, away)
        self.members.setdefault(channel, []).append(made)

    def path(self, channel: str) -> str:
        return f"/logs/v1/{self.topic}?channel={channel}"

    async def through(self, what: Coroutine[Any, Any, None]) -> Summary:
        """Have all of them connected while something happens; then wait until each has it all, but
        no longer than the deadline of the tests: what is missing then is shown as lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
                for number, wanderer in enumerate(self, 1):
                    group.create_task(wanderer.run())
                    if number % 50 == 0:
                        await wanderer.joined.wait()
                for wanderer in self:
                    await wanderer.joined.wait()
                await what
                for wanderer in self:
                    wanderer.finish()
                deadline.reschedule(asyncio.get_running_loop().time() + DEADLINE)
        return Summary.of([wanderer.account for wanderer in self])

    async def talk(self, seconds: float, rate: float) -> None:
        """Store so many messages per second in each room, straight in its stream."""
        client: NatsClient = await nats.connect(self.app.nats.url.split(","))
        subjects = Subjects(self.app.app)

        async def say(channel: str) -> None:
            until = time.time() + seconds
            # Not all rooms at once; the same way each time.
            await asyncio.sleep(random.Random(channel).random() / rate)
            for number in itertools.count():
                if time.time() >= until:
                    return
                word = f"{time.time():.6f} {number}"
                await store(client, subjects.log(self.topic, channel), word)
                for wanderer in self.members[channel]:
                    wanderer.account.sent.append(word)
                await asyncio.sleep(1 / rate)

        await asyncio.gather(*(say(channel) for channel in self.members))
        await client.close()


async def store(client: NatsClient, subject: str, word: str) -> None:
    """Have a stream store a message, once, whatever happens to its servers meanwhile."""
    headers = {"Nats-Msg-Id": f"{subject} {word}"}
    while True:
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
            await client.jetstream(timeout=1).publish(subject, word.encode(), headers=headers)
            return
        await asyncio.sleep(0.05)
