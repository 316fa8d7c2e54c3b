"""What `execute` sees and says: the context, the message, and where an item goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from fairlead import values
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType


class Message:
    """What a client sent.

    Attributes:
        type: how it came: text, binary, or JSON (only `fairlead.v1` tells JSON from text).
        raw: the bytes, as they came.
        sender: id of the connection that sent it.
        subject: who that is, as the policies found; None without one.
        id: the client's own unique id of it, or "".
    """

    def __init__(
        self, type: DataType, raw: bytes, sender: str, id: str = "", subject: Any = None
    ) -> None:
        self.type = type
        self.raw = raw
        self.sender = sender
        self.id = id
        self.subject = subject

    @cached_property
    def data(self) -> Any:
        """str for text, bytes for binary, else the JSON value."""
        return values.decode(self.type, self.raw)

    def json(self) -> Any:
        """The value of a text that holds JSON, or the JSON value.

        Raises:
            ValueError: it is not JSON.
        """
        return orjson.loads(self.raw)

    def __repr__(self) -> str:
        return f"<Message {self.type.name.lower()} of {len(self.raw)} bytes from {self.sender}>"


@dataclass(frozen=True, slots=True)
class Event:
    """An item of an SSE stream with fields of its own (WHATWG HTML, 9.2.6).

    Attributes:
        data: as any item; encoded by the same rules.
        event: the event's type; None is `message` to an EventSource.
        retry: milliseconds until an EventSource reconnects.
        comment: a line that clients ignore; without data it is all that is sent.
    """

    data: Any = None
    event: str | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for text in (self.event, self.comment):
            if text is not None and ("\n" in text or "\r" in text):
                raise ValueError("an event's type and comment are one line each")


@dataclass(frozen=True, slots=True)
class Reply:
    """See `reply`."""

    data: Any


@dataclass(frozen=True, slots=True)
class Broadcast:
    """See `broadcast`."""

    data: Any
    exclude_self: bool = False


@dataclass(frozen=True, slots=True)
class Direct:
    """See `direct`."""

    to: str
    data: Any


def reply(x: Any) -> Reply:
    """Send `x` to the client whose message this answers, whatever the trigger's `deliver` says."""
    return Reply(x)


def broadcast(x: Any, exclude_self: bool = False) -> Broadcast:
    """Send `x` to all members of the room.

    Args:
        exclude_self: not to the client whose message this answers.
    """
    return Broadcast(x, exclude_self)


def direct(to: str, x: Any) -> Direct:
    """Send `x` to one connection of the same topic, on whatever edge it is.

    Raises (where it is yielded, returned or awaited):
        NoSuchPeer: nobody has that id in this topic.
    """
    return Direct(to, x)


class Headers(Mapping[str, str]):
    """Request headers; names are case-insensitive (RFC 9110, 5.1)."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self._fields)}>"  # names only: values may be secrets


Emit = Callable[[Any], Awaitable[None]]
"""Send one item, as if it were yielded; returns when it is on its way (stored, for a room)."""


class Channel:
    """The connection's handle on its room.

    Attributes:
        name: the client's `?channel=`, "-" without it.
    """

    def __init__(self, name: str, emit: Emit) -> None:
        self.name = name
        self._emit = emit

    async def send(self, x: Any) -> None:
        """Send `x` to this client only."""
        await self._emit(Reply(x))

    async def broadcast(self, x: Any) -> None:
        """Send `x` to all members of the room."""
        await self._emit(Broadcast(x))


@dataclass  # not frozen: that makes it three times as dear, on each message
class _Context:
    """What both transports know.

    Attributes:
        topic: its name with the parameters filled in, or "" where the trigger has none.
        channel: the room's handle.
        connection: id of the client's connection; `direct` reaches it.
        run_id: of this execution, the same over its attempts.
        attempt: 1, 2, …: more than 1 where a worker was lost before.
        trace_id: 32 hex digits, in spans, logs and problems alike.
        subject: who the client is, as the policies found; None without one.
    """

    topic: str
    channel: Channel
    connection: str
    run_id: str
    attempt: int
    trace_id: str
    encoded: bytes
    subject: Any = None

    @cached_property
    def _request(self) -> envelope.Context:
        return envelope.decode_context(self.encoded)

    @property
    def query(self) -> Mapping[str, str]:
        """The URL's query; of a name that stands twice, the last value."""
        return self._request.query

    @cached_property
    def headers(self) -> Headers:
        return Headers(self._request.headers)

    @property
    def path(self) -> Mapping[str, str]:
        """The path's `{parameters}`."""
        return self._request.path


@dataclass
class WS(_Context):
    """The context of a websocket workflow."""


@dataclass
class SSE(_Context):
    """The context of an SSE workflow.

    Attributes:
        body: of a POST; b"" for a GET.
    """

    body: bytes = b""
