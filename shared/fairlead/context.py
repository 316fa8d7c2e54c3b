"""What `execute` sees and says: the context, the message, and where an item goes."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar, Generic, NoReturn, Protocol, TypeAlias
from uuid import UUID

import orjson
from pydantic import BaseModel
from typing_extensions import TypeVar

from fairlead import values
from fairlead.errors import FairleadError, Missing
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType

T = TypeVar("T", default=Any)


class Message(Generic[T]):
    """What a client sent. `Message[Model]` as an annotation has its data validated.

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
    def data(self) -> T:
        """The model of a `Message[Model]`; else str for text, bytes for binary, or the JSON value."""
        decoded: T = values.decode(self.type, self.raw)
        return decoded

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


class Parameters(Mapping[str, str]):
    """Names and values of a request; a name that is not there refuses the request with 400."""

    def __init__(self, fields: Mapping[str, str], what: str) -> None:
        self._fields = fields
        self._what = what

    def __getitem__(self, name: str) -> str:
        try:
            return self._fields[name]
        except KeyError:
            raise Missing(name, self._what) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Parameters {dict(self._fields)}>"


class Subject(dict[str, Any]):
    """Who the client is, where a policy returned more than a str: fields, as keys and attributes.

    Those of a dict, or that a dataclass, a named tuple or a pydantic model declares (names that
    begin with `_` are left out), and its id. Of any other object there is the id alone. The object
    itself stays on the worker that asked; this is what JSON makes of it.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"the subject has no {name!r}; it has {', '.join(self)}. To have more of it, let "
                "the policy return a dict, a dataclass or a model: of any other object only the id "
                "leaves its worker"
            ) from None


def subject_of(value: Any) -> Any:
    """A subject as it came over the wire: a str, a `Subject`, or whatever JSON value it is."""
    return Subject(value) if type(value) is dict else value


def subject_id(subject: Any) -> str | None:
    """Its id: the str itself, else its `id` or `sub`; None where it has none."""
    if isinstance(subject, str):
        return subject
    if isinstance(subject, Mapping):
        for key in ("id", "sub"):
            found = subject.get(key)
            if isinstance(found, str | int) and not isinstance(found, bool):
                return str(found)
    return None


Emit = Callable[[Any], Awaitable[None]]
"""Send one item, as if it were yielded; returns when it is on its way (stored, for a room)."""


class Channel:
    """The connection's handle on its room: `async for message in ctx.channel` is its client.

    Attributes:
        name: the client's `?channel=`, "-" without it.
    """

    def __init__(
        self, name: str, emit: Emit, inbox: AsyncIterator[Message[Any]] | None = None
    ) -> None:
        self.name = name
        self._emit = emit
        self._inbox = inbox

    def __aiter__(self) -> AsyncIterator[Message[Any]]:
        """What the client says, in order; it ends with the connection.

        Raises:
            TypeError: the workflow runs once per message or per room, or is an event stream.
        """
        if self._inbox is None:
            raise TypeError(
                "ctx.channel has no messages here: a workflow with a message parameter is called "
                "once per message; the run of a room (run='topic') and an event stream take none"
            )
        return self._inbox

    async def send(self, x: Any) -> None:
        """Send `x` to this client only."""
        await self._emit(Reply(x))

    async def broadcast(self, x: Any) -> None:
        """Send `x` to all members of the room."""
        await self._emit(Broadcast(x))

    async def members(self) -> NoReturn:
        """Who is in the room: not built in this version, as `presence=` of the trigger is not.

        Raises:
            FairleadError: always; it says what to do instead.
        """
        raise FairleadError(
            "ctx.channel.members() is not built in this version of Fairlead; have a run per "
            "connection say who comes and who leaves: broadcast at its begin and in its `finally`"
        )


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
    """

    topic: str
    channel: Channel
    connection: str
    run_id: str
    attempt: int
    trace_id: str
    encoded: bytes

    @cached_property
    def subject(self) -> Any:
        """Who the client is: a str or a `Subject`; None where no policy found one."""
        return subject_of(self._request.subject)

    @cached_property
    def _request(self) -> envelope.Context:
        return envelope.decode_context(self.encoded)

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The URL's query; of a name that stands twice, the last value.

        Raises (when a name is looked up):
            Missing: it is not there; `.get` does not mind.
        """
        last = {name: found[-1] for name, found in self.queries.items()}
        return Parameters(last, "query parameter")

    @cached_property
    def queries(self) -> Mapping[str, list[str]]:
        """The URL's query with every value of each name, in order."""
        return {
            name: found if isinstance(found, list) else [found]
            for name, found in self._request.query.items()
        }

    @cached_property
    def headers(self) -> Headers:
        return Headers(self._request.headers)

    @cached_property
    def path(self) -> Mapping[str, str]:
        """The path's `{parameters}`."""
        return Parameters(self._request.path, "path parameter")


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


class _Dataclass(Protocol):
    """An instance of a dataclass, as type checkers know one."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Sendable: TypeAlias = (
    str | bytes | bytearray | memoryview | int | float | bool
    | Mapping[str, object] | Sequence[object] | datetime | date | time | UUID | Enum
    | BaseModel | _Dataclass
    | Message[Any] | Event | Reply | Broadcast | Direct | None
)  # fmt: skip
"""An item: text, binary, what orjson makes JSON of, or one that says where it goes."""

Result: TypeAlias = Sendable | AsyncIterable[Sendable] | Iterator[Sendable]
"""What `execute` may return: an item, or items; None sends nothing."""
