"""Tries whether NATS lets a role say and hear what it must. Harms nothing that is there.

A server answers what it forbids with an error, and what it allows not at all. So each subject of
`protocol.permissions` is tried where nobody is: below a name that no process, topic or run has. What
would be stored names a stream that is none, and is refused by the one that is; a question to
JetStream asks about a stream that is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from fairlead.bus import Bus
from fairlead.protocol.manifest import Beat
from fairlead.protocol.permissions import Role, permissions

NOBODY = "doctor"
"""Stands for a name where one is needed; whoever has this name would be disturbed."""

_DEEP = ".".join([NOBODY] * 20)
"""More levels than a topic has: no stream keeps it."""

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')


@dataclass(frozen=True, slots=True)
class Denied:
    """Subjects that a role needs and NATS does not let it have."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.publish) + len(self.subscribe)


async def denied(bus: Bus, role: Role, within: float) -> Denied:
    """Try all that a role needs, with the user that this bus is.

    Raises:
        Unusable: the server does not answer in time.
    """
    needed = permissions(bus.subjects, role)
    refused: set[tuple[str, str]] = set()

    def complained(text: str) -> None:
        # nats-py writes what the server says in lower case.
        if found := _DENIED.search(text.lower()):
            refused.add((found[1], found[2]))

    bus.on_error.append(complained)
    try:
        said = {pattern: _say(bus, pattern) for pattern in needed.publish}
        heard = {pattern: _hear(bus, pattern) for pattern in needed.subscribe}
        # The server answers in order: what it forbids has been said when it answers this.
        await bus.ping(within)
    finally:
        bus.on_error.remove(complained)
    return Denied(
        tuple(p for p, subject in said.items() if ("publish", subject.lower()) in refused),
        tuple(p for p, subject in heard.items() if ("subscription", subject.lower()) in refused),
    )


def _hear(bus: Bus, pattern: str) -> str:
    """Subscribe to a part of what the pattern covers, and no longer at once; returns it."""
    subject, _, queue = pattern.partition(" ")
    tried = subject.replace("*", NOBODY).replace(">", f"{NOBODY}.>")
    bus.unsubscribe(bus.subscribe(tried, lambda *_: None, queue))
    return tried


def _say(bus: Bus, pattern: str) -> str:
    """Publish to a subject that the pattern covers; returns it, or "" where that cannot be tried."""
    if pattern == bus.subjects.errors:
        return ""  # those who read the fleet's errors would be told of one
    tried = pattern.replace("*", NOBODY)
    payload, headers = b"", {"Nats-Expected-Stream": NOBODY}
    if pattern == bus.subjects.beats:
        payload = Beat(NOBODY, NOBODY, leaving=True).encode()
    elif pattern.startswith("$JS.API."):
        tried, headers = tried.replace(">", NOBODY), {}
        # Of what a purge is asked for nothing matches, and of that what is before the first.
        nothing = {"filter": f"{bus.subjects.root}.run.{NOBODY}.{_DEEP}", "seq": 1}
        payload = orjson.dumps(nothing if ".PURGE." in pattern else {})
    tried = tried.replace(">", _DEEP)
    bus.publish(tried, payload, headers=headers or None)
    return tried
