"""Clients that speak through workers, and the account of what became of each message."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from support.proof import Times
from support.system import V1, Edge, until

ENDPOINT = "/support/realtime/rooms"
"""Of everything.py: what a client says, its room hears; with history."""


@dataclass
class Talk:
    """One room: a speaker on one edge, who waits for each ack, and a listener on another.

    Attributes:
        acks: seconds from each message to its ack.
        heard: what the listener got. failed: errors, and connections that ended.
    """

    acks: list[float] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    said: int = 0

    async def go(self, room: str, speaker: Edge, listener: Edge, done: asyncio.Event) -> None:
        """Speak until `done`, then until all that was said was heard."""
        path = f"{ENDPOINT}/{room}"
        async with speaker.v1(path) as speaking, listener.v1(path) as hearing:
            listening = asyncio.create_task(self._listen(hearing))
            try:
                while not done.is_set():
                    await self._say(speaking)
                    await asyncio.sleep(0.05)  # the pace of a quick typist
                await until(
                    lambda: self.heard[-1:] == [self.said - 1] or listening.done(),
                    "all that was said is heard",
                )
            except Exception as error:  # whatever it is, the account says so
                self.failed.append(error)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _say(self, client: V1) -> None:
        sent = time.monotonic()
        ref = await client.send(str(self.said))
        self.said += 1
        while True:
            frame = await client.next()
            if frame.get("ref") == ref and frame["type"] in ("ack", "error"):
                self.acks.append(time.monotonic() - sent)
                if frame["type"] == "error":
                    self.failed.append(frame)
                return

    async def _listen(self, client: V1) -> None:
        while True:
            message = await client.until("message")
            self.heard.append(int(message["data"]))


@dataclass
class Outcome:
    """The accounts of all rooms together."""

    said: int
    heard: int
    duplicates: int
    out_of_order: int
    failed: int
    acks: Times

    @classmethod
    def of(cls, talks: list[Talk]) -> Outcome:
        pairs = [itertools.pairwise(dict.fromkeys(talk.heard)) for talk in talks]
        return cls(
            sum(talk.said for talk in talks),
            sum(len(set(talk.heard)) for talk in talks),
            sum(len(talk.heard) - len(set(talk.heard)) for talk in talks),
            sum(b < a for a, b in itertools.chain.from_iterable(pairs)),
            sum(len(talk.failed) for talk in talks),
            Times.of(itertools.chain.from_iterable(talk.acks for talk in talks)),
        )

    def show(self, name: str, rooms: int) -> None:
        """One line for whoever reads the output (`make soak`, or pytest -s)."""
        sys.stdout.write(
            f"\n{name}: {rooms} rooms, {2 * rooms} connections; sent {self.said}, delivered {self.heard}, "
            f"duplicates {self.duplicates}, out of order {self.out_of_order}, dropped connections and "
            f"errors {self.failed}; ack {self.acks}\n"
        )


async def talk_through(
    edges: tuple[Edge, Edge], rooms: int, what: Coroutine[Any, Any, None]
) -> Outcome:
    """Have all rooms talk over two edges while something happens to the system."""
    done = asyncio.Event()
    talks = [Talk() for _ in range(rooms)]
    one, two = edges
    async with asyncio.TaskGroup() as group:
        for number, talk in enumerate(talks):
            pair = (one, two) if number % 2 else (two, one)
            group.create_task(talk.go(f"room{number}", *pair, done))
        await what
        done.set()
    return Outcome.of(talks)
