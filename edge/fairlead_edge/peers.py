"""Who is on this edge, for `direct`: by connection id, and by subject where policies found one."""

from __future__ import annotations

from typing import Protocol

from fairlead import logs
from fairlead.bus import Bus, Interest
from fairlead.errors import Malformed
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType


class Peer(Protocol):
    """A client that peers can speak to."""

    id: str

    @property
    def topic(self) -> str:
        """The name of its room's topic, or "" if it is in none."""
        ...

    @property
    def who(self) -> str:
        """Its subject's id, or ""."""
        ...

    def direct(self, sender: str, data_type: DataType, data: bytes) -> bool:
        """Give it a peer's message; False if it is gone."""
        ...


class Peers:
    """The clients of one edge.

    One NATS subscription per subject and topic, while such a client is here: so a worker
    learns at once, from NATS alone, that somebody is nowhere.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._by_id: dict[str, Peer] = {}
        self._by_subject: dict[str, tuple[Interest, set[Peer]]] = {}

    def entered(self, peer: Peer) -> None:
        self._by_id[peer.id] = peer

    def known(self, peer: Peer) -> None:
        """Policies found who it is."""
        if not peer.who or not peer.topic or peer.id not in self._by_id:
            return
        subject = self._bus.subjects.peer(peer.topic, peer.who)
        if subject not in self._by_subject:
            interest = self._bus.subscribe(subject, self._received)
            self._by_subject[subject] = interest, set()
        self._by_subject[subject][1].add(peer)

    def left(self, peer: Peer) -> None:
        self._by_id.pop(peer.id, None)
        if not peer.who or not peer.topic:
            return
        subject = self._bus.subjects.peer(peer.topic, peer.who)
        interest, peers = self._by_subject.get(subject, (None, set()))
        peers.discard(peer)
        if interest is not None and not peers:
            self._bus.unsubscribe(interest)
            del self._by_subject[subject]

    def deliver(
        self, connection: str, topic: str, sender: str, data_type: DataType, data: bytes
    ) -> bool:
        """Give a peer's message to a connection; False if it is not here, or not in the topic."""
        peer = self._by_id.get(connection)
        if peer is None or not topic or peer.topic != topic:
            return False
        return peer.direct(sender, data_type, data)

    def _received(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        """For a subject: to each of its connections here."""
        try:
            _topic, sender, data_type, body = envelope.decode_direct(data)
        except Malformed as error:
            logs.dropped(subject, data, error)
            return
        found = self._by_subject.get(subject)
        peers = found[1] if found is not None else set()
        reached = [peer.direct(sender, data_type, body) for peer in peers]
        if any(reached) and reply:
            # Another edge may have the one that is left: who reached nobody says nothing.
            self._bus.publish(reply, b"1")
