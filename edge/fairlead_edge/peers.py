"""Who is on this edge, for `direct`: by connection id, and by subject where policies found one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fairlead import logs
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.interest import Interest
from fairlead.natsheaders import parse_headers
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType
from fairlead_edge.watched import Watch

if TYPE_CHECKING:
    from fairlead.protocol.manifest import Route
    from fairlead_edge.spans import Spans

FOUND_WITHIN = 1.0
"""Seconds that a client waits for NATS to know its subject; without NATS nobody could speak to it."""

Said = tuple[str, str, DataType, bytes]
"""(topic, sender, type, data), as `envelope.decode_direct` has it."""


class Peer(Protocol):
    """A client that peers can speak to."""

    id: str

    @property
    def route(self) -> Route: ...

    @property
    def topic(self) -> str:
        """The name of its room's topic, or "" if it is in none."""
        ...

    @property
    def who(self) -> str:
        """Its subject's id, or ""."""
        ...

    def direct(
        self, sender: str, data_type: DataType, data: bytes, trace: str = "",
        watch: Watch | None = None,
    ) -> bool:  # fmt: skip
        """Give it a peer's message; False if it is gone.

        Args:
            trace, watch: of its delivery, if that is sampled.
        """
        ...


class _Subject(NamedTuple):
    """One that is listened to.

    Attributes:
        found: done when whoever asks NATS is led here.
    """

    interest: Interest
    peers: set[Peer]
    found: asyncio.Task[None]


class Peers:
    """The clients of one edge.

    One NATS subscription per subject and topic, while such a client is here: so a worker
    learns at once, from NATS alone, that somebody is nowhere.
    """

    def __init__(self, bus: Bus, spans: Spans | None) -> None:
        self._bus = bus
        self._spans = spans
        self._by_id: dict[str, Peer] = {}
        self._by_subject: dict[str, _Subject] = {}

    def entered(self, peer: Peer) -> None:
        self._by_id[peer.id] = peer

    async def known(self, peer: Peer) -> None:
        """Policies found who it is. When this returns, what is said to its subject comes here."""
        if not peer.who or not peer.topic or peer.id not in self._by_id:
            return
        subject = self._bus.subjects.peer(peer.topic, peer.who)
        if subject not in self._by_subject:
            interest = self._bus.subscribe(subject, self._received)
            self._by_subject[subject] = _Subject(
                interest, set(), asyncio.ensure_future(self._found())
            )
        listened = self._by_subject[subject]
        listened.peers.add(peer)
        await asyncio.shield(listened.found)

    async def _found(self) -> None:
        """Wait until NATS has what was subscribed, or does not answer."""
        with contextlib.suppress(TimeoutError):
            await self._bus.round_trip(FOUND_WITHIN)

    def left(self, peer: Peer) -> None:
        self._by_id.pop(peer.id, None)
        if not peer.who or not peer.topic:
            return
        subject = self._bus.subjects.peer(peer.topic, peer.who)
        listened = self._by_subject.get(subject)
        if listened is None:
            return
        listened.peers.discard(peer)
        if not listened.peers:
            self._bus.unsubscribe(listened.interest)
            del self._by_subject[subject]

    def deliver(self, connection: str, said: Said, headers: bytes) -> bool:
        """Give a peer's message to a connection; False if it is not here, or not in the topic.

        Args:
            headers: raw; they have the trace that it belongs to.
        """
        peer = self._by_id.get(connection)
        if peer is None or not said[0] or peer.topic != said[0]:
            return False
        return self._give([peer], said, headers)

    def _received(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        """For a subject: to each of its connections here."""
        try:
            said = envelope.decode_direct(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        found = self._by_subject.get(subject)
        if found is not None and self._give(found.peers, said, headers) and reply:
            # Another edge may have the one that is left: who reached nobody says nothing.
            self._bus.publish(reply, b"1")

    def _give(self, peers: Iterable[Peer], said: Said, headers: bytes) -> bool:
        """Whether somebody got it."""
        topic, sender, data_type, data = said
        trace, watch = "", None
        if self._spans is not None and headers:
            origin, name = parse_headers(headers).get("traceparent", ""), _template(peers)
            trace, watch = self._spans.direct(name, topic, origin, len(data))
        reached = [peer.direct(sender, data_type, data, trace, watch) for peer in peers]
        if watch is not None:
            watch.shown()
        return any(reached)


def _template(peers: Iterable[Peer]) -> str:
    """Of the topic that they are in, all of them."""
    return next((peer.route.name for peer in peers), "")
