"""A room on one edge: who is in it, and each message encoded once for all of them.

The log of a run with `resume` is one, too: its members are those who read it.

Pure: members are anything with the methods below, and bytes go out through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import NamedTuple, Protocol, cast

import orjson
from websockets.frames import Frame, Opcode

from fairlead.protocol import cursor, frames
from fairlead.protocol.cursor import Position
from fairlead.protocol.envelope import DataType
from fairlead.protocol.lease import Fences
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead_edge.outgoing import Batch
from fairlead_edge.ring import Budget, Ring
from fairlead_edge.tally import TopicTally
from fairlead_edge.watched import Watch


class RoomMessage(NamedTuple):
    """A room's message as all its members share it.

    Attributes:
        id: its cursor, or None in a room without history.
        sender: connection id, or "" for a publisher from outside.
        exclude: connection id that does not get it, or "".
        trace: traceparent of its delivery, or "" if it is not sampled.
        sequence: its place in the room's stream; 0 in a room without history.
        hidden: it has its place, but nobody is shown it: its runner had lost the room by then.
        origin: traceparent that it came with, or "": what its replays link to.
        watch: told of its way to the members, if it is sampled.
    """

    type: DataType
    data: bytes
    id: str | None = None
    sender: str = ""
    exclude: str = ""
    trace: str = ""
    sequence: int = 0
    hidden: bool = False
    origin: str = ""
    watch: Watch | None = None


class Member(Protocol):
    """A connection that is in a room."""

    id: str

    @property
    def dialect(self) -> str:
        """Which encoding it wants: one of DIALECTS."""
        ...

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        """Take some messages' bytes, encoded in its dialect. Returns whether it is slow.

        Args:
            batch: what stands for them where they may be dropped; None where they may not.
        """
        ...

    def close(self, code: Close, reason: str) -> None:
        """End its connection."""


class Gatherer(Member, Protocol):
    """A member that is in several rooms: it gets whole messages, and gives them ids of its own."""

    def room_messages(self, messages: Sequence[RoomMessage]) -> bool:
        """Take some messages. Returns whether it is slow."""
        ...

    def room_position(self, position: Position) -> None:
        """Take notice of where the room stands."""


RAW, V1, SSE_JSON, SSE_TEXT = "raw", "v1", "sse json", "sse text"
GATHERED = "gathered"
"""Not encoded for all alike: members of this dialect are `Gatherer`s."""
DIALECTS = (RAW, V1, SSE_JSON, SSE_TEXT)

WRITE = 64 * 1024
"""Bytes of messages that are given to a member at once, unless one is larger: a transport that takes
them says then whether it takes more."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def data_type(declared: str, data: bytes) -> DataType:
    """How a room's bytes are to be read.

    Whoever may publish may be wrong: what is declared text or JSON but is not falls back
    to text if it is valid UTF-8, else to binary, so that no frame is ever invalid.

    Args:
        declared: the header `Fl-Type`, or "".
    """
    if declared == "b":
        return DataType.BINARY
    if declared == "j":
        try:
            orjson.loads(data)
            return DataType.JSON
        except orjson.JSONDecodeError:
            pass
    try:
        data.decode()
        return DataType.TEXT
    except UnicodeDecodeError:
        return DataType.BINARY


def websocket_frame(text: bool, data: bytes) -> bytes:
    """An unmasked frame, as a server sends it (RFC 6455, 5.2)."""
    opcode = Opcode.TEXT if text else Opcode.BINARY
    return Frame(opcode, data).serialize(mask=False)


def encode(message: RoomMessage, dialect: str) -> bytes:
    """The bytes that members of a dialect get."""
    if dialect == RAW:
        return websocket_frame(message.type is not DataType.BINARY, message.data)
    if dialect == V1:
        body = frames.message(
            message.type, message.data, id=message.id, sender=message.sender, trace=message.trace
        )
        return websocket_frame(True, body)
    return sse_item(message.type, message.data, text=dialect == SSE_TEXT, id=message.id)


def deliver(member: Member, messages: Sequence[RoomMessage]) -> bool:
    """Give some messages to one member. Returns whether it is slow."""
    if member.dialect == GATHERED:
        return cast(Gatherer, member).room_messages(messages)
    shown = [encode(message, member.dialect) for message in messages if not message.hidden]
    return bool(shown) and member.room_bytes(b"".join(shown))


def encode_cursor(at: str, dialect: str) -> bytes:
    """The bytes that tell members of a dialect where the room stands; none for raw ones."""
    if dialect == RAW:
        return b""
    if dialect == V1:
        return websocket_frame(True, frames.cursor(at))
    data = orjson.dumps({"cursor": at})
    return sse_item(DataType.JSON, data, text=False, id=at, event="cursor")


def sse_item(
    kind: DataType, data: bytes, *, text: bool, id: str | None = None, event: str = ""
) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2.5).

    Args:
        text: the route's format is "text": a str goes out as it is, line by line.
        event: its type; "" is `message`, or `base64` for bytes.
    """
    value, is_base64 = frames.json_value(kind, data)
    if is_base64:
        event, value = event or "base64", value[1:-1]
    else:
        value = data if text and kind is DataType.TEXT else value
        # JSON from outside may hold line breaks, too; one that stayed would end the field.
        lines = value.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        value = b"\ndata: ".join(lines)
    parts = []
    if event:
        parts.append(b"event: %b\n" % event.encode())
    if id is not None:
        parts.append(b"id: %b\n" % id.encode())
    parts.append(b"data: %b\n\n" % value)
    return b"".join(parts)


def milliseconds(timestamp: str) -> int:
    """`Nats-Time-Stamp` (RFC 3339) as ms since the epoch."""
    return (datetime.fromisoformat(timestamp) - _EPOCH) // _MILLISECOND


class Room:
    """One room on this edge.

    Attributes:
        subject: its NATS subject; the owner of its cursors. stream: what keeps it.
        topic, channel: what `subject` was made of; `template` is what the topic is a name of.
        history: what its stream keeps; None keeps nothing.
        position: up to where its log was seen; None without history, or before that is known.
        ring: its newest messages, for those who come back.
        members: by dialect.
        fences: of the runners that spoke here so far.
        pending: messages of this turn of the loop, not yet written.
        tally: what is counted of its topic. heard: messages of this room alone.
        watches: of those of them that are sampled.
    """

    __slots__ = (
        "channel", "fences", "heard", "history", "members", "pending", "position", "ring", "stream",
        "subject", "tally", "template", "topic", "watches",
    )  # fmt: skip

    def __init__(
        self, subject: str, template: str, topic: str, channel: str, history: History | None,
        budget: Budget, stream: str, tally: TopicTally,
    ) -> None:  # fmt: skip
        self.subject = subject
        self.stream = stream
        self.template = template
        self.topic = topic
        self.channel = channel
        self.history = history
        self.position: Position | None = None
        self.ring: Ring[RoomMessage] = Ring(budget)
        self.members: dict[str, dict[Member, None]] = {}
        self.pending: list[RoomMessage] = []
        self.watches: list[Watch] = []
        self.fences = Fences()
        self.heard = 0
        self.tally = tally

    @property
    def size(self) -> int:
        return sum(len(each) for each in self.members.values())

    @property
    def cursor(self) -> str | None:
        """The cursor of all that was seen so far."""
        return None if self.position is None else cursor.encode(self.position, self.subject)

    def join(self, member: Member) -> None:
        """Add a member; it gets what is received from now on, so write what is pending first."""
        assert not self.pending, "the room is flushed before a member joins"
        self.members.setdefault(member.dialect, {})[member] = None
        self.tally.members += 1

    def leave(self, member: Member) -> None:
        of_its_kind = self.members.get(member.dialect, {})
        if member in of_its_kind:
            del of_its_kind[member]
            self.tally.members -= 1
        if not of_its_kind:
            self.members.pop(member.dialect, None)

    def stands(self, position: Position | None) -> None:
        """Everything up to this position was received; None: nobody knows.

        In another stream than before, or one where messages were missed, the ring begins anew.
        """
        known = self.position
        if position is None or known is None or position.created != known.created:
            self.ring.clear(position.sequence if position is not None else 0)
        self.position = position

    def read(self, headers: Mapping[str, str], data: bytes, fences: Fences) -> RoomMessage:
        """A message as it was read from the room's stream. Args: fences: of those read before it."""
        return self._message(headers, data, self._place(headers), fences)

    def received(
        self, headers: Mapping[str, str], data: bytes, trace: str = "", watch: Watch | None = None
    ) -> None:
        """Take a message of the room; it goes out with the next `flush`.

        A message with `Nats-Sequence` came through the room's stream and moves the position.

        Args:
            trace, watch: of its delivery, if that is sampled.
        """
        here = self._place(headers)
        message = self._message(headers, data, here, self.fences)
        if here is not None and self.position and here.sequence > self.position.sequence:
            self.position = here
            # Who comes back later gets a copy of its own, not this delivery.
            self.ring.append(message)
        if trace:
            message = message._replace(trace=trace, watch=watch)
        if watch is not None:
            self.watches.append(watch)
        self.pending.append(message)

    def _place(self, headers: Mapping[str, str]) -> Position | None:
        if self.position is None or "Nats-Sequence" not in headers:
            return None
        time = milliseconds(headers["Nats-Time-Stamp"])
        return Position(self.position.created, int(headers["Nats-Sequence"]), time)

    def _message(
        self, headers: Mapping[str, str], data: bytes, place: Position | None, fences: Fences
    ) -> RoomMessage:
        fence = headers.get("Fl-Fence", "")
        stored = None if place is None else place.time
        return RoomMessage(
            data_type(headers.get("Fl-Type", ""), data),
            data,
            None if place is None else cursor.encode(place, self.subject),
            headers.get("Fl-From", ""),
            headers.get("Fl-Exclude", ""),
            "",
            0 if place is None else place.sequence,
            bool(fence) and not fences.passes(fence, stored),
            headers.get("traceparent", ""),
        )

    def tell_position(self) -> None:
        """Let the members know where the room stands, so that they can come back to it."""
        if self.position is None or self.cursor is None:
            return
        for dialect, members in list(self.members.items()):
            if dialect == GATHERED:
                for member in list(members):
                    cast(Gatherer, member).room_position(self.position)
            elif encoded := encode_cursor(self.cursor, dialect):
                for member in list(members):
                    member.room_bytes(encoded)

    def flush(self) -> int:
        """Write this turn's messages: encoded once per dialect, about 64 KiB a write.

        Returns:
            Members that were written to.
        """
        messages, self.pending = self.pending, []
        watches, self.watches = self.watches, []
        written = 0
        for part in _parts(messages):
            written = max(written, self._write(part, bool(watches)))
        for watch in watches:
            watch.shown()
        return written

    def _write(self, messages: Sequence[RoomMessage], watched: bool) -> int:
        """Write some of them at once; returns to how many members."""
        shown = [message for message in messages if not message.hidden]
        excluded = {message.exclude for message in shown if message.exclude}
        size = sum(len(message.data) for message in shown)
        written = 0
        for message in shown if watched else ():
            if message.watch is not None:
                message.watch.coalesced = len(shown)
        for dialect, members in list(self.members.items()):
            if dialect == GATHERED:
                for member in list(members):
                    theirs = [message for message in messages if message.exclude != member.id]
                    self._count(1, [message for message in theirs if not message.hidden])
                    if theirs:
                        written += 1
                        deliver(member, theirs)
                continue
            if not shown:
                continue
            self.tally.deliveries += len(members) * len(shown)
            self.tally.bytes += len(members) * size
            encoded = [encode(message, dialect) for message in shown]
            joined, whole = b"".join(encoded), _batch(encoded, shown, watched)
            if not excluded and not watched:  # as it is nearly always
                everybody = list(members)
                written += len(everybody)
                for member in everybody:
                    member.room_bytes(joined, whole)
                continue
            for member in list(members):
                data, batch, parts = joined, whole, encoded
                if excluded and member.id in excluded:
                    due = [m.exclude != member.id for m in shown]
                    self._count(-1, [m for m in shown if m.exclude == member.id])
                    parts = list(compress(encoded, due))
                    if not parts:
                        continue
                    data = b"".join(parts)
                    batch = _batch(parts, list(compress(shown, due)), watched)
                written += 1
                lags = member.room_bytes(data, batch)
                if watched:
                    batch.given(parts, lags)
        return written

    def _count(self, times: int, messages: Sequence[RoomMessage]) -> None:
        """Deliveries of a member that does not get what all others do."""
        self.tally.deliveries += times * len(messages)
        self.tally.bytes += times * sum(len(message.data) for message in messages)


def _parts(messages: Sequence[RoomMessage]) -> Iterator[Sequence[RoomMessage]]:
    """Those that are written at once: about WRITE bytes, or one that is larger."""
    first = size = 0
    for number, message in enumerate(messages):
        size += len(message.data)
        if size > WRITE and number > first:
            yield messages[first:number]
            first, size = number, len(message.data)
    if messages:
        yield messages[first:]


def _batch(encoded: Sequence[bytes], shown: Sequence[RoomMessage], watched: bool) -> Batch:
    watches = [message.watch for message in shown] if watched else ()
    return Batch.of(encoded, [message.id for message in shown], watches)
