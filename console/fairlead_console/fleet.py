"""What the edges and workers of an app told of themselves, as one picture. Pure.

Each tells only of itself; what is seen of a room over several edges, how fast counters grow, and
who has gone, is worked out here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from fairlead.protocol.manifest import Route
from fairlead.protocol.report import EdgeReport, Report, Run, WorkerReport

GONE_AFTER = 4.0
"""Seconds without an answer after which a process is gone: it is asked each second."""

REMEMBERED = 20
"""Processes that have gone, and are still shown."""

ROOMS, RUNS, SLOW = 200, 300, 50
"""Entries of each list, at most; how many there are is told, too."""

T = TypeVar("T", EdgeReport, WorkerReport)


@dataclass(slots=True)
class _Known(Generic[T]):
    """A process that answers. `rates` are its counters' growth a second, between the last two reports."""

    report: T
    seen: float
    rates: dict[str, float] = field(default_factory=dict)

    def told(self, report: T, now: float) -> None:
        passed = max(now - self.seen, 1e-3)
        before = self.report.counters
        self.rates = {
            name: round(max(0, value - before.get(name, value)) / passed, 2)
            for name, value in report.counters.items()
        }
        self.report, self.seen = report, now


class _Heard(NamedTuple):
    """Of a room by one edge: how many messages, when it said so, and how many a second."""

    messages: int
    at: float
    rate: float


class Fleet:
    """All processes of one app, as they last told.

    Args:
        now: seconds, of any clock that `told`, `looked` and `picture` are given.
    """

    def __init__(self) -> None:
        self._edges: dict[str, _Known[EdgeReport]] = {}
        self._workers: dict[str, _Known[WorkerReport]] = {}
        self._gone: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._rooms: dict[tuple[str, str], dict[str, _Heard]] = {}

    def told(self, report: Report, now: float) -> None:
        """A process has answered."""
        if isinstance(report, WorkerReport):
            _tell(self._workers, report, now)
            return
        _tell(self._edges, report, now)
        for room in report.rooms:
            self._heard((room.topic, room.channel), report.id, room.messages, now)

    def _heard(self, room: tuple[str, str], edge: str, messages: int, now: float) -> None:
        by_edge = self._rooms.setdefault(room, {})
        before = by_edge.get(edge, _Heard(messages, now, 0.0))
        passed = now - before.at
        rate = max(0, messages - before.messages) / passed if passed > 0 else before.rate
        by_edge[edge] = _Heard(messages, now, round(rate, 2))

    def looked(self, now: float, clock: float) -> None:
        """All that answer have had the time to. Args: clock: seconds since the epoch, for people."""
        silent: list[Report] = [*_silent(self._edges, now), *_silent(self._workers, now)]
        for report in silent:
            gone = {"role": report.role, "id": report.id, "host": report.host}
            self._gone.appendleft({**gone, "at": clock, "drained": report.draining})
        kept = {
            (room.topic, room.channel)
            for process in self._edges.values() for room in process.report.rooms
        }  # fmt: skip
        for room in self._rooms.keys() - kept:
            del self._rooms[room]

    # Who may be spoken to

    def address(self, edge: str) -> str | None:
        """Where clients of an edge connect; None if it is not known or has no port of its own."""
        known = self._edges.get(edge)
        return known.report.address or None if known is not None else None

    def run(self, worker: str, run: str) -> Run | None:
        """A run in a worker's hands, if it has told of it."""
        known = self._workers.get(worker)
        return next((r for r in known.report.runs if r.run == run), None) if known else None

    @property
    def builds(self) -> set[str]:
        """Those of the workers that live."""
        return {known.report.build for known in self._workers.values()}

    # The picture

    def picture(self, now: float, routes: Iterable[Route]) -> dict[str, Any]:
        """All of it, as the page and `fairlead top` show it."""
        edges = sorted(self._edges.values(), key=lambda known: known.report.id)
        workers = sorted(self._workers.values(), key=lambda known: known.report.id)
        return {
            "edges": [_edge(known, now) for known in edges],
            "workers": [_worker(known, now) for known in workers],
            "gone": list(self._gone),
            **self._rooms_of(edges),
            **_runs_of(edges, workers),
            **_slow_of(edges),
            "routes": [_route(route) for route in routes],
        }

    def _rooms_of(self, edges: Sequence[_Known[EdgeReport]]) -> dict[str, Any]:
        rooms: dict[tuple[str, str], dict[str, Any]] = {}
        for known in edges:
            for room in known.report.rooms:
                name = room.topic, room.channel
                shown = rooms.setdefault(
                    name,
                    {"topic": room.topic, "channel": room.channel, "members": 0, "edges": 0},
                )
                shown["members"] += room.members
                shown["edges"] += 1
                # Each edge with members hears all of a room's messages, so they are not added up.
                shown["rate"] = max(heard.rate for heard in self._rooms[name].values())
        largest = sorted(rooms.values(), key=lambda room: -int(room["members"]))[:ROOMS]
        # A room with members on two edges counts once where it was told of, else it cannot be seen.
        told = sum(len(known.report.rooms) for known in edges)
        in_all = sum(known.report.rooms_in_all for known in edges) - told + len(rooms)
        return {"rooms": largest, "rooms_in_all": in_all}


def _tell(known: dict[str, _Known[T]], report: T, now: float) -> None:
    process = known.get(report.id)
    if process is None:
        known[report.id] = _Known(report, now)
    else:
        process.told(report, now)


def _silent(known: dict[str, _Known[T]], now: float) -> list[T]:
    """Forget those that do not answer any more, and return what they told last."""
    silent = [id for id, process in known.items() if now - process.seen > GONE_AFTER]
    return [known.pop(id).report for id in silent]


_OF_LISTS = {"rooms", "viewed", "slow", "runs", "counters", "role"}


def _edge(known: _Known[EdgeReport], now: float) -> dict[str, Any]:
    return {
        **known.report.model_dump(exclude=_OF_LISTS),
        "rates": known.rates,
        "seen": round(now - known.seen, 1),
    }


def _worker(known: _Known[WorkerReport], now: float) -> dict[str, Any]:
    return {
        **known.report.model_dump(exclude=_OF_LISTS),
        "rates": known.rates,
        "seen": round(now - known.seen, 1),
    }


def _runs_of(
    edges: Sequence[_Known[EdgeReport]], workers: Sequence[_Known[WorkerReport]]
) -> dict[str, Any]:
    viewers: dict[str, int] = {}
    for edge in edges:
        for viewed in edge.report.viewed:
            viewers[viewed.run] = viewers.get(viewed.run, 0) + viewed.viewers
    runs = [
        {
            **run.model_dump(exclude={"key"}),
            "worker": known.report.id,
            "viewers": viewers.get(run.run),
        }
        for known in workers
        for run in known.report.runs
    ]
    runs.sort(key=lambda run: -float(run["age"] or 0))
    in_all = sum(known.report.runs_in_all for known in workers)
    return {"runs": runs[:RUNS], "runs_in_all": in_all}


def _slow_of(edges: Sequence[_Known[EdgeReport]]) -> dict[str, Any]:
    slow = [
        {**client.model_dump(), "edge": known.report.id}
        for known in edges
        for client in known.report.slow
    ]
    slow.sort(key=lambda client: -int(client["bytes"]))
    return {"slow": slow[:SLOW], "slow_in_all": sum(k.report.slow_in_all for k in edges)}


def _route(route: Route) -> dict[str, Any]:
    return {
        "workflow": route.label,
        "transport": route.transport,
        "endpoint": route.endpoint,
        "methods": list(route.methods),
        "topic": route.topic,
        "run": "stream" if route.transport == "sse" else route.run,
        "deliver": route.deliver if route.transport == "websocket" else "",
        "checks": route.checks,
        "resume": route.resume,
    }
