"""A build of a project as edges know it: routes, and what is needed to serve them.

A worker writes its manifest once, under its digest; the newer of two builds is the one
whose manifest was first written later.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from fairlead.errors import Malformed

VERSION = 3


@dataclass(frozen=True, slots=True)
class History:
    """What a room keeps: at most `size` messages, none older than `age` seconds."""

    size: int = 1000
    age: float = 300.0


@dataclass(frozen=True, slots=True)
class Route:
    """One workflow, as an edge needs it.

    Attributes:
        feature, workflow: in kebab-case, as they stand in NATS subjects.
        label: `Feature/Workflow` as the user wrote them, for people.
        methods: of an SSE route; empty for a websocket.
        topic: the template, or "" for an SSE route without one.
        executes: False for an SSE route that only shows a room.
        run: what one execution is for: a message, a whole connection of a websocket, or a room.
        resume: seconds for which its output is kept for those who come back; None keeps none.
        overflow: what becomes of a room's messages that a client does not read.
        checks: it has policies or inputs: a worker is asked before anything is accepted.
    """

    feature: str
    workflow: str
    label: str
    transport: Literal["websocket", "sse"]
    endpoint: str
    methods: tuple[str, ...] = ()
    topic: str = ""
    history: History | None = None
    deliver: Literal["sender", "topic", "others"] = "sender"
    window: int = 1
    format: Literal["json", "text"] = "json"
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    on_worker_lost: Literal["error", "restart"] = "error"
    executes: bool = True
    run: Literal["message", "connection", "topic"] = "message"
    checks: bool = False
    resume: float | None = None
    overflow: Literal["disconnect", "drop_oldest", "latest"] = "disconnect"

    @property
    def name(self) -> str:
        """For spans and logs: the topic's template, or the endpoint where there is none."""
        return self.topic or self.endpoint


@dataclass(frozen=True, slots=True)
class Manifest:
    """The routes of one build, and the history of each of its topics."""

    routes: tuple[Route, ...] = ()
    topics: dict[str, History | None] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The same bytes for the same project, whatever process made them."""
        body = {
            "version": VERSION,
            "routes": [asdict(route) for route in self.routes],
            "topics": {t: h and asdict(h) for t, h in self.topics.items()},
        }
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()[:32]


def decode(payload: bytes) -> Manifest:
    """The inverse of `Manifest.encode`.

    Raises:
        Malformed: not a manifest, or of another version.
    """
    try:
        body = orjson.loads(payload)
        if body["version"] != VERSION:
            raise Malformed(f"a manifest of version {body['version']}; expected {VERSION}")
        return Manifest(
            routes=tuple(_route(route) for route in body["routes"]),
            topics={t: _history(h) for t, h in body["topics"].items()},
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not a manifest: {error!r}") from error


def _route(fields: dict[str, Any]) -> Route:
    history = _history(fields.pop("history"))
    methods = tuple(fields.pop("methods"))
    return Route(**fields, methods=methods, history=history)


def _history(fields: dict[str, Any] | None) -> History | None:
    return None if fields is None else History(**fields)


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says every two seconds.

    Attributes:
        build: digest of its manifest.
        hands: keys of the attempts in its hands (`envelope.key`).
        leaving: it takes no more work; with empty hands it is gone.
    """

    worker: str
    build: str
    hands: tuple[str, ...] = ()
    leaving: bool = False

    def encode(self) -> bytes:
        return orjson.dumps([self.worker, self.build, self.hands, self.leaving])


def decode_beat(payload: bytes) -> Beat:
    try:
        worker, build, hands, leaving = orjson.loads(payload)
        if type(hands) is not list or not all(type(s) is str for s in (worker, build, *hands)):
            raise TypeError("expected a worker, a build and a list of keys")
        return Beat(worker, build, tuple(hands), bool(leaving))
    except (orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise Malformed(f"not a beat: {error}") from error
