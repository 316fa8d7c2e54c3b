"""How an edge or a worker stands: one small JSON, told to who asks on the subject `report`.

Pure. Whoever reads it may be of another version than who wrote it: what is not known is left out,
what is missing has its default. Lists hold the largest or the oldest, with how many there are.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fairlead.errors import Malformed

MAX_SIZE = 64 * 1024
"""Bytes of a report; longer lists are cut until it has no more."""

ROOMS, SLOW, VIEWED, RUNS = 50, 20, 50, 100
"""Entries of each list, at most."""

Kind = Literal["message", "connection", "stream", "kept", "room"]
"""What a run is for; `kept` is a stream with `resume`, `room` one that a room shares."""


class _Told(BaseModel):
    # Built when somebody asks: most processes are never looked at.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Room(_Told):
    """A room on one edge. `messages` are those heard since the edge first listened to it."""

    topic: str
    template: str = ""
    channel: str = "-"
    members: int = 0
    messages: int = 0


class Slow(_Told):
    """A client that does not read: bytes that wait for it."""

    connection: str
    workflow: str = ""
    bytes: int = 0


class Viewed(_Told):
    """A run with `resume` that clients of one edge read."""

    run: str
    workflow: str = ""
    viewers: int = 0


class Run(_Told):
    """A run in a worker's hands.

    Attributes:
        run: its id. key: what this attempt is called between edge and worker; of a room's, the NATS
            subject of its work.
        age: seconds in this worker's hands.
    """

    run: str
    key: str = ""
    kind: Kind = "message"
    workflow: str = ""
    connection: str = ""
    attempt: int = 1
    age: float = 0.0
    cancelled: bool = False


class _Process(_Told):
    """What every process tells.

    Attributes:
        started: seconds since the epoch. lag: of its loop, at most, in the last 10 s, in seconds.
        rtt: of NATS, in seconds. memory: bytes in RAM.
        reasons: why it is not ready.
        counters: what it has counted since it began, by name.
    """

    id: str
    version: str = ""
    host: str = ""
    pid: int = 0
    started: float = 0.0
    ready: bool = False
    reasons: tuple[str, ...] = ()
    draining: bool = False
    lag: float = 0.0
    rtt: float | None = None
    reconnects: int = 0
    memory: int = 0
    counters: dict[str, int] = {}


class EdgeReport(_Process):
    """An edge. `address` is where its clients connect, "" for one in somebody's application."""

    role: Literal["edge"] = "edge"
    address: str = ""
    websockets: int = 0
    streams: int = 0
    rooms: tuple[Room, ...] = ()
    rooms_in_all: int = 0
    viewed: tuple[Viewed, ...] = ()
    viewed_in_all: int = 0
    slow: tuple[Slow, ...] = ()
    slow_in_all: int = 0
    buffered: int = 0
    buffer_limit: int = 0
    routes: int = 0


class WorkerReport(_Process):
    """A worker. `limits` and `in_hand` are messages, and connections with streams."""

    role: Literal["worker"] = "worker"
    build: str = ""
    limits: tuple[int, int] = (0, 0)
    in_hand: tuple[int, int] = (0, 0)
    runs: tuple[Run, ...] = ()
    runs_in_all: int = 0


Report = EdgeReport | WorkerReport


def encode(report: Report) -> bytes:
    """At most MAX_SIZE bytes: what does not fit of its lists is left out."""
    while len(told := report.model_dump_json().encode()) > MAX_SIZE:
        report = _halved(report)
    return told


def _halved(report: Report) -> Report:
    lists = ("rooms", "viewed", "slow", "runs", "reasons")
    held = {name: getattr(report, name) for name in lists if hasattr(report, name)}
    shorter = {name: value[: len(value) // 2] for name, value in held.items()}
    return report.model_copy(update=shorter)


def decode(data: bytes) -> Report:
    """Read a report.

    Raises:
        Malformed: it is none.
    """
    kinds: dict[bytes, type[EdgeReport] | type[WorkerReport]] = {
        b'"role":"edge"': EdgeReport,
        b'"role":"worker"': WorkerReport,
    }
    for mark, kind in kinds.items():
        if mark in data:
            try:
                return kind.model_validate_json(data)
            except ValidationError as error:
                first = error.errors()[0]
                raise Malformed(f"a report's {first['loc']}: {first['type']}") from None
    raise Malformed("neither an edge's nor a worker's report")
