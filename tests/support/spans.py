"""Spans for tests of their picture: a chat message as Fairlead records it, times in ms."""

from __future__ import annotations

from typing import Any

from fairlead_console.spans import SCOPE, Event, Link, Origin, Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOON = 1_767_268_800_000_000_000
"""2026-01-01T12:00:00Z in ns."""

EDGE_1 = Origin("fairlead-edge", "1f0c22aa", SCOPE)
EDGE_2 = Origin("fairlead-edge", "b4e19d07", SCOPE)
WORKER = Origin("fairlead-worker", "77aa01cd", SCOPE)
USERS = Origin("fairlead-worker", "77aa01cd", "a user's own")
CLIENT = Origin("shop", "", "browser")


def ms(count: float) -> int:
    return round(count * 1_000_000)


def span(
    id: str,
    name: str,
    start: float,
    end: float,
    origin: Origin,
    parent: str = "",
    *,
    error: bool = False,
    links: tuple[Link, ...] = (),
    events: tuple[Event, ...] = (),
    **attributes: Any,
) -> Span:
    """One span.

    Args:
        start, end: ms after noon.
        attributes: `queue_wait=1` is `fairlead.queue.wait`.
    """
    named = {f"fairlead.{key.replace('_', '.')}": value for key, value in attributes.items()}
    if origin.scope == SCOPE:
        named["messaging.system"] = "nats"
    return Span(
        id, parent, name, NOON + ms(start), NOON + ms(end), origin, named, events, links, error
    )


def chat() -> list[Span]:
    """One message of a client, over two edges; one member of the second does not keep up."""
    topic = "rooms.{room}"
    return [
        span("a1", f"receive {topic}", 0, 10, EDGE_1, "c0ffee", attempt=1),
        span("b1", f"process {topic}", 1, 9.5, WORKER, "a1", attempt=1, queue_wait=0.0007),
        span("b2", "look it up", 1.5, 2.5, USERS, "b1"),
        span("b3", f"publish {topic}", 3, 3.2, WORKER, "b1"),
        span("a2", f"deliver {topic}", 5, 5.4, EDGE_1, "b3", members=1, slow=0, written=0.0004),
        span("d1", f"deliver {topic}", 6, 8, EDGE_2, "b3", members=3, slow=1, written=0.0003),
    ]
