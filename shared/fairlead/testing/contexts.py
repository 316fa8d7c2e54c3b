"""A workflow alone, as the plain function that it is, with a made-up context.

::

    async def test_echo():
        ctx = testing.ws(messages=["one", "two"])
        assert [m.data for m in await testing.collect(echo, ctx)] == ["one", "two"]
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from fairlead import inject, values
from fairlead.context import SSE, WS, Broadcast, Channel, Direct, Event, Message, Reply
from fairlead.protocol import envelope, names
from fairlead.workflow import Workflow

CONNECTION = "test-1"
"""The id of a made-up client."""


class MadeUpChannel(Channel):
    """A channel whose client said what the test says.

    Attributes:
        sent: what `send` and `broadcast` were given, as `Reply` and `Broadcast`.
    """

    def __init__(
        self, name: str, topic: str, inbox: AsyncIterator[Message[Any]] | None = None
    ) -> None:
        super().__init__(name, self._keep, inbox)
        self.sent: list[Reply | Broadcast] = []
        self._topic = topic

    async def _keep(self, item: Reply | Broadcast) -> None:
        _check(item, self._topic)
        self.sent.append(item)


def message(
    data: Any = "", *, sender: str = CONNECTION, subject: Any = None, id: str = ""
) -> Message[Any]:
    """What a client might have sent: a str as text, bytes as binary, anything else as JSON."""
    return Message(*values.encode(data), sender, id, subject)


def ws(
    *,
    query: Mapping[str, str | list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
    topic: str = "chat",
    channel: str = names.DEFAULT_CHANNEL,
    subject: Any = None,
    connection: str = CONNECTION,
    attempt: int = 1,
    messages: Iterable[Any] | None = None,
) -> WS:
    """The context of a websocket workflow.

    Args:
        subject: what a policy might have returned, as JSON makes it: a str or a dict.
        messages: what `async for message in ctx.channel` reads before it ends; data, or Messages.
    """
    inbox = None if messages is None else _said(messages, connection, subject)
    encoded = _request(query, headers, path, subject)
    made = MadeUpChannel(channel, topic, inbox)
    return WS(topic, made, connection, f"{connection}-1", attempt, "0" * 32, encoded)


def room(
    *,
    path: Mapping[str, str] | None = None,
    topic: str = "chat",
    channel: str = names.DEFAULT_CHANNEL,
    attempt: int = 1,
) -> WS:
    """The context of a `run="topic"` workflow: of a room, and of no client in it."""
    return ws(path=path, topic=topic, channel=channel, connection="", attempt=attempt)


def sse(
    *,
    query: Mapping[str, str | list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
    topic: str = "",
    channel: str = names.DEFAULT_CHANNEL,
    subject: Any = None,
    connection: str = CONNECTION,
    attempt: int = 1,
    body: bytes = b"",
) -> SSE:
    """The context of an SSE workflow; the arguments are those of `ws`, and the body of a POST."""
    encoded = _request(query, headers, path, subject)
    made = MadeUpChannel(channel, topic)
    return SSE(topic, made, connection, f"{connection}-1", attempt, "0" * 32, encoded, body)


async def collect(
    execute: Any, ctx: WS | SSE, message: Message[Any] | None = None, *, limit: int | None = None
) -> list[Any]:
    """What a workflow says, item by item, as a worker would hear it.

    Inputs of the request (`Query()`, …) and the message are given and validated by its annotations.
    The items are as they were said, not encoded; but each could be.

    Args:
        execute: the function, decorated or not, or what `workflow(…, execute=fn)` returned.
        message: for one that takes a Message.
        limit: items after which it is closed, for one that never ends.

    Raises:
        BadDeclaration: a parameter that a worker could not fill.
        Invalid: the inputs or the message are not what the annotations say.
        TypeError: it takes a Message and there is none; or it says what a worker could not send: a
            value without a JSON form, an Event on a websocket, a broadcast without a topic.
    """
    function: Any = execute.execute if isinstance(execute, Workflow) else execute
    name = getattr(function, "__name__", repr(function))
    transport: Literal["websocket", "sse"] = "websocket" if isinstance(ctx, WS) else "sse"
    signature = inject.signature(function, transport=transport, path=tuple(ctx.path), label=name)
    arguments = signature.connection_arguments(ctx)
    if signature.per_message:
        if message is None:
            raise TypeError(f"{name!r} takes a Message; give collect one: testing.message(…)")
        arguments |= signature.message_argument(message)
    result = function(**arguments)
    if inspect.isawaitable(result):
        result = await result

    def check(item: Any) -> None:
        if isinstance(item, Event) and isinstance(ctx, WS):
            raise TypeError("Event is for SSE; on a websocket send its data")
        _check(item, ctx.topic)

    return [item async for item in _items(result, limit, check) if item is not None]


def _check(item: Any, topic: str) -> None:
    """Raise what a worker would that is to send it."""
    if isinstance(item, Broadcast | Direct) and not topic:
        raise TypeError(
            f"{item!r}: this workflow has no topic in which anybody could be reached; its trigger's "
            "is made up with topic=…"
        )
    data = item.data if isinstance(item, Reply | Broadcast | Direct | Event) else item
    if not isinstance(data, Message):
        values.encode(data)


async def _items(
    result: Any, limit: int | None, check: Callable[[Any], None]
) -> AsyncIterator[Any]:
    if isinstance(result, AsyncIterable):
        items = aiter(result)
        number = 0
        try:
            while limit is None or number < limit:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                number += 1
                check(item)
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(result, Iterator):
        try:
            for item in itertools.islice(result, limit):
                check(item)
                yield item
        finally:
            if (close := getattr(result, "close", None)) is not None:
                close()
    else:
        check(result)
        yield result


async def _said(
    messages: Iterable[Any], connection: str, subject: Any
) -> AsyncIterator[Message[Any]]:
    for each in messages:
        if isinstance(each, Message):
            yield each
        else:
            yield message(each, sender=connection, subject=subject)


def _request(
    query: Mapping[str, str | list[str]] | None,
    headers: Mapping[str, str] | None,
    path: Mapping[str, str] | None,
    subject: Any,
) -> bytes:
    made = envelope.Context(dict(query or {}), dict(headers or {}), dict(path or {}), subject)
    return envelope.encode_context(made)
