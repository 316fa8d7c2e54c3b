"""What the console knows of a span, wherever it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCOPE = "fairlead"
"""The instrumentation scope of the spans that Fairlead makes."""

OPERATIONS = frozenset(
    {"receive", "process", "publish", "deliver", "connect", "close", "replay", "nats"}
)
"""First words of their names."""

LATEST = 2**62
"""ns since the epoch that no clock shows before 2116."""

_MESSAGES = frozenset({"receive", "publish", "deliver"})

_CONNECTIONS = frozenset({"connect", "close", "replay"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a span.

    Attributes:
        service, instance: `service.name` and `service.instance.id` of its resource.
        scope: the name of its instrumentation scope; "" where the source does not tell.
    """

    service: str = ""
    instance: str = ""
    scope: str = ""


NOBODY = Origin()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened within a span; its time in ns since the epoch."""

    name: str
    time: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Another span, maybe of another trace, that a span belongs to."""

    trace: str
    span: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Attributes:
        id, parent: in hex digits, never ""; but `parent` is for the first of a trace.
        start, end: ns since the epoch, below `LATEST`; an end before the start is the start.
    """

    id: str
    parent: str
    name: str
    start: int
    end: int
    origin: Origin = NOBODY
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    error: bool = False

    @property
    def operation(self) -> str:
        """`receive`, `process`, … of a span of ours; "" of anybody else's."""
        return operation(self.name, self.origin.scope, self.attributes.get("messaging.system"))


def operation(name: str, scope: str, system: object = None) -> str:
    """See `Span.operation`.

    Args:
        system: `messaging.system`, by which ours are known where no scope is told. Where one is,
            it counts alone: other instrumentations of NATS name their spans as we do.
    """
    word = name.partition(" ")[0]
    ours = scope == SCOPE or (not scope and system == "nats")
    return word if ours and word in OPERATIONS else ""


@dataclass(slots=True)
class Matter:
    """What a trace is about, as far as its spans have been seen.

    A connection that comes, goes or comes back has spans of user code, too: its policies.
    """

    _messages: bool = False
    _connections: bool = False

    def add(self, operation: str) -> None:
        """One more span of it, by its operation."""
        self._messages = self._messages or operation in _MESSAGES
        self._connections = self._connections or operation in _CONNECTIONS

    @property
    def message(self) -> bool:
        """Whether there is a message in it, or at least nothing that tells of a connection."""
        return self._messages or not self._connections
