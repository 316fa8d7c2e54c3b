from __future__ import annotations

from typing import Any

import pytest

from fairlead import testing
from fairlead.context import (
    SSE,
    WS,
    Broadcast,
    Channel,
    Direct,
    Event,
    Headers,
    Message,
    Reply,
    broadcast,
    direct,
    reply,
    subject_id,
)
from fairlead.errors import FairleadError, Reject
from fairlead.protocol import envelope
from fairlead.protocol.envelope import DataType


async def nowhere(_: Any) -> None:
    raise AssertionError("nothing is to be sent")


def context(encoded: bytes = b"") -> WS:
    return WS("chat", Channel("blue", nowhere), "e1-7", "e1-7-3", 1, "0" * 32, encoded)


# Messages


@pytest.mark.parametrize(
    ("data_type", "raw", "data"),
    [
        (DataType.TEXT, b"h\xc3\xa9", "h\u00e9"),
        (DataType.TEXT, b'{"a":1}', '{"a":1}'),
        (DataType.BINARY, b"\xff", b"\xff"),
        (DataType.JSON, b'{"a":1}', {"a": 1}),
    ],
)
def test_the_data_of_a_message_is_str_bytes_or_the_json_value(
    data_type: DataType, raw: bytes, data: Any
) -> None:
    message = Message(data_type, raw, "e1-7")
    assert message.data == data
    assert message.data is message.data, "decoded once"


@pytest.mark.parametrize("data_type", DataType)
def test_json_reads_whatever_holds_json(data_type: DataType) -> None:
    assert Message(data_type, b'{"a": 1}', "e1-7").json() == {"a": 1}


@pytest.mark.parametrize("raw", [b"hello", b"", b"\xff"])
def test_json_of_what_holds_none_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"column|UTF-8|zero-length"):
        Message(DataType.TEXT, raw, "e1-7").json()


def test_a_message_says_who_sent_it() -> None:
    message = Message(DataType.TEXT, b"x", "e1-7", "u1", {"id": 5})
    assert (message.sender, message.id, message.subject) == ("e1-7", "u1", {"id": 5})
    bare = Message(DataType.TEXT, b"x", "e1-7")
    assert (bare.id, bare.subject) == ("", None)


def test_the_repr_of_a_message_does_not_show_what_it_says() -> None:
    message = Message(DataType.TEXT, b"secret", "e1-7")
    assert repr(message) == "<Message text of 6 bytes from e1-7>"


# What execute may say


def test_where_an_item_goes() -> None:
    assert reply(5) == Reply(5)
    assert broadcast(5) == Broadcast(5, exclude_self=False)
    assert broadcast(5, exclude_self=True) == Broadcast(5, True)
    assert direct("e1-7", 5) == Direct("e1-7", 5)


def test_an_event_has_fields_of_its_own() -> None:
    assert Event("x") == Event(data="x", event=None, retry=None, comment=None)
    assert Event(event="tick", retry=5, comment="a comment").data is None


@pytest.mark.parametrize("text", ["a\nb", "\n", "a\r", "a\r\nid: forged"])
def test_an_events_type_and_comment_are_one_line_each(text: str) -> None:
    with pytest.raises(ValueError, match="an event's type and comment are one line each"):
        Event(1, event=text)
    with pytest.raises(ValueError, match="an event's type and comment are one line each"):
        Event(1, comment=text)


async def test_the_channel_sends_to_the_client_and_to_the_room() -> None:
    said: list[Any] = []

    async def emit(x: Any) -> None:
        said.append(x)

    channel = Channel("blue", emit)
    await channel.send(1)
    await channel.broadcast(2)
    assert channel.name == "blue"
    assert said == [Reply(1), Broadcast(2, exclude_self=False)]


async def test_who_is_in_a_room_is_not_built_yet_and_that_is_said() -> None:
    """As `presence=` and `durable=` are refused where they are declared."""
    for channel in (Channel("blue", nowhere), testing.ws().channel):
        with pytest.raises(
            FairleadError, match=r"^ctx\.channel\.members\(\) is not built .*; have"
        ):
            await channel.members()


# The request


def test_headers_are_found_whatever_their_case() -> None:
    headers = Headers({"X-Api-Key": "k", "host": "h"})
    assert headers["x-api-key"] == headers["X-API-KEY"] == headers.get("X-Api-Key") == "k"
    assert "HOST" in headers
    assert dict(headers) == {"x-api-key": "k", "host": "h"}
    assert len(headers) == 2
    with pytest.raises(KeyError):
        headers["cookie"]


def test_the_repr_of_headers_shows_no_values() -> None:
    """They may be secrets, and a repr ends up in logs."""
    assert repr(Headers({"Authorization": "secret", "Host": "h"})) == (
        "<Headers authorization, host>"
    )


def test_a_context_knows_the_request() -> None:
    request = envelope.Context({"a": "1"}, {"x-api-key": "k"}, {"id": "7"})
    ctx = context(envelope.encode_context(request))
    assert ctx.query == {"a": "1"}
    assert ctx.headers["X-Api-Key"] == "k"
    assert ctx.path == {"id": "7"}


def test_a_context_of_a_bare_request_is_empty() -> None:
    ctx = context()
    assert (dict(ctx.query), dict(ctx.headers), dict(ctx.path)) == ({}, {}, {})
    assert ctx.subject is None


def test_the_repr_of_a_context_shows_the_connection() -> None:
    assert "connection='e1-7'" in repr(context())


def test_an_sse_context_has_a_body() -> None:
    ctx = SSE("", Channel("-", nowhere), "e1-7", "e1-7-0", 1, "0" * 32, b"", body=b"{}")
    assert ctx.body == b"{}"
    assert SSE("", Channel("-", nowhere), "e1-7", "e1-7-0", 1, "0" * 32, b"").body == b""


# What a request holds


def made(context: envelope.Context) -> WS:
    async def nowhere(item: object) -> None:
        raise AssertionError(item)

    encoded = envelope.encode_context(context)
    return WS("chat", Channel("-", nowhere), "e-1", "e-1-1", 1, "0" * 32, encoded)


def test_a_name_that_is_missing_refuses_the_request_with_400() -> None:
    ctx = made(envelope.Context({"a": "1", "b": ["2", "3"]}, {}, {"id": "7"}))
    assert (ctx.query["a"], ctx.query["b"], ctx.path["id"]) == ("1", "3", "7")
    assert dict(ctx.queries) == {"a": ["1"], "b": ["2", "3"]}
    assert (ctx.query.get("c"), "c" in ctx.query, dict(ctx.query)) == (
        None,
        False,
        {"a": "1", "b": "3"},
    )
    with pytest.raises(Reject, match="query parameter 'c' is missing") as refused:
        ctx.query["c"]
    assert refused.value.status == 400
    with pytest.raises(KeyError):
        ctx.path["c"]


def test_a_subject_is_what_json_made_of_it() -> None:
    assert made(envelope.Context({}, {}, {})).subject is None
    assert made(envelope.Context({}, {}, {}, "ann")).subject == "ann"
    subject = made(envelope.Context({}, {}, {}, {"id": "ann"})).subject
    assert (subject.id, subject["id"], subject) == ("ann", "ann", {"id": "ann"})
    with pytest.raises(AttributeError, match="the subject has no 'role'; it has id"):
        _ = subject.role


@pytest.mark.parametrize(
    ("subject", "id"),
    [
        ("ann", "ann"),
        ({"id": "ann", "sub": "other"}, "ann"),
        ({"sub": "ann"}, "ann"),
        ({"id": 7}, "7"),
        ({"name": "ann"}, None),
        (None, None),
        (7, None),
    ],
)
def test_the_id_of_a_subject(subject: object, id: str | None) -> None:
    assert subject_id(subject) == id


def test_a_channel_without_a_client_that_speaks_says_why() -> None:
    with pytest.raises(TypeError, match="a workflow with a message parameter is called once per"):
        aiter(made(envelope.Context({}, {}, {})).channel)
