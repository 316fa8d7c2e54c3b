"""Rooms that run topics.py's tickers: who is in them, and what they heard."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.system import V1, Edge

TICKS = "/support/realtime/ticks/"

Item = dict[str, Any]


class Notes:
    """What the runs wrote down."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "notes"

    def of(self, word: str) -> list[str]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [line for line in lines if line.startswith(word)]


class Member:
    """A client that keeps what it heard.

    Attributes:
        heard: each frame. times: by pid, when it first and last heard that runner (monotonic seconds).
    """

    def __init__(self, client: V1) -> None:
        self.client = client
        self.heard: list[Item] = []
        self.times: dict[int, tuple[float, float]] = {}

    async def listen(self) -> None:
        while True:
            frame = json.loads(await self.client.socket.recv())
            self.heard.append(frame)
            if frame["type"] == "message" and isinstance(frame["data"], dict):
                pid, now = frame["data"]["pid"], time.monotonic()
                self.times[pid] = self.times.get(pid, (now, now))[0], now

    @property
    def items(self) -> list[Item]:
        return [
            frame["data"]
            for frame in self.heard
            if frame["type"] == "message" and isinstance(frame["data"], dict)
        ]

    @property
    def runner(self) -> int:
        """Pid of the worker that spoke last; 0 before the first."""
        return self.items[-1]["pid"] if self.items else 0


@asynccontextmanager
async def member(edge: Edge, path: str) -> AsyncIterator[Member]:
    async with edge.v1(path) as client:
        made = Member(client)
        listening = asyncio.create_task(made.listen())
        try:
            yield made
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def assert_one_voice(items: list[Item]) -> None:
    """Each run counts from 1 without a hole, and speaks no more once the next has spoken."""
    runs: dict[tuple[int, int], list[int]] = defaultdict(list)
    order: list[tuple[int, int]] = []
    for item in items:
        run = item["attempt"], item["pid"]
        if not order or order[-1] != run:
            order.append(run)
        runs[run].append(item["number"])
    assert len(order) == len(set(order)), f"a run spoke again after another had: {order}"
    assert [attempt for attempt, _ in order] == sorted({attempt for attempt, _ in order})
    first, *later = order
    assert runs[first] == list(range(runs[first][0], runs[first][0] + len(runs[first])))
    for run in later:
        assert runs[run] == list(range(1, len(runs[run]) + 1))
