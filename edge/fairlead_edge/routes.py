"""Which workflow a request means: pure, made anew when the live builds change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from fairlead.errors import BadName
from fairlead.protocol import names
from fairlead.protocol.manifest import History, Manifest, Route

WEBSOCKET = "websocket"
"""Stands where a method stands, for a request with the upgrade header."""


@dataclass(frozen=True, slots=True)
class Match:
    """Attributes: route; path: the values of its `{parameters}`, decoded."""

    route: Route
    path: dict[str, str]


@dataclass(slots=True)
class _Endpoint:
    segments: tuple[str, ...]
    ways: dict[str, Route] = field(default_factory=dict)

    def fits(self, segments: list[str]) -> bool:
        return len(segments) == len(self.segments) and all(
            wanted == found or wanted.startswith("{")
            for wanted, found in zip(self.segments, segments, strict=True)
        )


class RouteTable:
    """The routes of one or several builds.

    Args:
        builds: newest first; it wins where two builds claim one method of one endpoint.
    """

    def __init__(self, builds: Iterable[Manifest] = ()) -> None:
        self.topics: dict[str, History | None] = {}
        self._endpoints: dict[tuple[str, ...], _Endpoint] = {}
        for build in builds:
            for topic, history in build.topics.items():
                self.topics.setdefault(topic, history)
            for route in build.routes:
                self._add(route)
        # A literal segment beats a parameter: `/logs/all` before `/logs/{id}`.
        self._ordered = sorted(
            self._endpoints.values(), key=lambda e: [s.startswith("{") for s in e.segments]
        )

    def _add(self, route: Route) -> None:
        segments = tuple(route.endpoint.split("/")[1:])
        shape = tuple("{}" if s.startswith("{") else s for s in segments)
        endpoint = self._endpoints.setdefault(shape, _Endpoint(segments))
        for way in route.methods or (WEBSOCKET,):
            endpoint.ways.setdefault(way, route)

    def __iter__(self) -> Iterator[Route]:
        return (route for e in self._ordered for route in dict.fromkeys(e.ways.values()))

    def serves(self, route: Route) -> bool:
        """Whether this very route, with these options, is still in the table."""
        return any(route in e.ways.values() for e in self._endpoints.values())

    def find(self, raw_path: bytes, way: str) -> Match | frozenset[str]:
        """The route of a request, or the ways in which its path can be asked: none if unknown.

        Args:
            raw_path: as it was sent: a "%2F" is no "/" between segments.
            way: a method, or WEBSOCKET.
        """
        try:
            sent = raw_path.decode("ascii").split("/")[1:]
            segments = [unquote(segment, errors="strict") for segment in sent]
        except UnicodeDecodeError:
            return frozenset()
        if any(segment in ("", ".", "..") for segment in segments):
            return frozenset()
        allowed: set[str] = set()
        for endpoint in self._ordered:
            if not endpoint.fits(segments):
                continue
            route = endpoint.ways.get(way)
            if route is not None:
                values = zip(names_of(route.endpoint), segments, strict=True)
                return Match(route, {name: value for name, value in values if name})
            allowed.update(endpoint.ways)
        return frozenset(allowed)


def names_of(endpoint: str) -> list[str]:
    """Per segment of an endpoint the parameter's name, or "" for a literal."""
    return [s[1:-1] if s.startswith("{") else "" for s in endpoint.split("/")[1:]]


def room_of(match: Match, channels: list[str]) -> tuple[str, str]:
    """(topic, channel) that a request means.

    Args:
        channels: the values of `?channel=`, in order.

    Raises:
        BadName: more than one channel, or a name that may not stand in a NATS subject.
    """
    if len(channels) > 1:
        raise BadName(f"{len(channels)} channels are named; a connection has one")
    channel = names.channel(channels[0]) if channels else names.DEFAULT_CHANNEL
    if not match.route.topic:
        return names.DEFAULT_CHANNEL, channel
    return names.fill(names.topic_template(match.route.topic), match.path), channel
