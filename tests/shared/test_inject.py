"""What `execute` is given, by annotation; what is wrong is said all at once, without the value."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from fairlead import SSE, WS, Body, Header, Message, Path, Query
from fairlead.context import Channel
from fairlead.errors import BadDeclaration, Invalid
from fairlead.inject import Signature, signature
from fairlead.protocol.envelope import Context, DataType, encode_context, grouped


class Order(BaseModel):
    name: str
    count: int


async def nowhere(item: object) -> None:
    raise AssertionError(item)


def context(
    query: list[tuple[str, str]] | None = None,
    headers: dict[str, str] | None = None,
    path: dict[str, str] | None = None,
) -> bytes:
    return encode_context(Context(grouped(query or []), headers or {}, path or {}))


def sse(body: bytes = b"", **request: Any) -> SSE:
    return SSE("", Channel("-", nowhere), "e-1", "e-1-1", 1, "0" * 32, context(**request), body)


def ws(**request: Any) -> WS:
    return WS("chat", Channel("-", nowhere), "e-1", "e-1-1", 1, "0" * 32, context(**request))


def read(execute: Any, transport: Any = "sse", path: tuple[str, ...] = ()) -> Signature:
    return signature(execute, transport=transport, path=path, label="Echo")


def errors(signature: Signature, ctx: Any) -> list[dict[str, Any]]:
    with pytest.raises(Invalid) as invalid:
        signature.connection_arguments(ctx)
    assert invalid.value.status == 400
    return invalid.value.errors


# The context and the message


def test_parameters_are_found_by_annotation_whatever_they_are_called() -> None:
    def by_keyword(*, m: Message, c: WS, limit: int = 5, **more: Any) -> None: ...

    def bare(ctx, message: Message, *more): ...  # type: ignore[no-untyped-def]  # as users may

    found = read(by_keyword, "websocket")
    assert (found.ctx, [name for name, _ in found.messages]) == (("c",), ["m"])
    found = read(bare, "websocket")
    assert (found.ctx, [name for name, _ in found.messages]) == (("ctx",), ["message"])
    assert found.per_message


def test_without_a_message_it_is_not_per_message() -> None:
    def execute(ctx: WS) -> None: ...

    assert not read(execute, "websocket").per_message


def message(data: str | bytes | object) -> Message[Any]:
    if isinstance(data, bytes):
        return Message(DataType.BINARY, data, "e-1")
    if isinstance(data, str):
        return Message(DataType.TEXT, data.encode(), "e-1")
    return Message(DataType.JSON, json.dumps(data).encode(), "e-1")


def of_order(ctx: WS, message: Message[Order]) -> None: ...


@pytest.mark.parametrize("data", [{"name": "tea", "count": 2}, '{"name":"tea","count":2}'])
def test_a_model_is_read_from_json_and_from_text_that_holds_json(data: Any) -> None:
    arguments = read(of_order, "websocket").message_argument(message(data))
    assert arguments["message"].data == Order(name="tea", count=2)


def test_a_message_of_str_or_bytes_takes_them_as_they_are() -> None:
    def of_str(message: Message[str]) -> None: ...

    def of_bytes(message: Message[bytes]) -> None: ...

    def plain(message: Message) -> None: ...

    made = read(of_str, "websocket").message_argument(message('"quoted"'))
    assert made["message"].data == '"quoted"'
    made = read(of_bytes, "websocket").message_argument(message(b"\x00\xff"))
    assert made["message"].data == b"\x00\xff"
    made = read(plain, "websocket").message_argument(message({"any": 1}))
    assert made["message"].data == {"any": 1}


@pytest.mark.parametrize(
    ("data", "loc", "type"),
    [
        ({"name": "tea", "count": "many"}, ["count"], "int_parsing"),
        ({"name": "tea"}, ["count"], "missing"),
        ("secret, no json", [], "json_invalid"),
        (b"\x00", [], "model_type"),
    ],
)
def test_an_invalid_message_says_where(data: Any, loc: list[str], type: str) -> None:
    with pytest.raises(Invalid) as invalid:
        read(of_order, "websocket").message_argument(message(data))
    (error,) = invalid.value.errors
    assert (error["loc"], error["type"]) == (loc, type)
    assert set(error) == {"loc", "msg", "type"}
    assert "secret" not in json.dumps(invalid.value.errors)


# Inputs


def test_inputs_come_from_where_they_say_and_are_converted() -> None:
    def execute(
        ctx: SSE,
        number: Annotated[int, Path()],
        page: Annotated[int, Query()],
        user_agent: Annotated[str, Header()],
        token: Annotated[str, Header(alias="X-Token")],
        room: Annotated[str, Query(alias="channel")],
        bare: Annotated[bool, Query],
    ) -> None: ...

    ctx = sse(
        query=[("page", "1"), ("page", "2"), ("channel", "blue"), ("bare", "true")],
        headers={"user-agent": "me", "x-token": "t"},
        path={"number": "7"},
    )
    assert read(execute, path=("number",)).connection_arguments(ctx) == {
        "ctx": ctx,
        "number": 7,
        "page": 2,  # the last of those
        "user_agent": "me",
        "token": "t",
        "room": "blue",
        "bare": True,
    }


def test_a_list_takes_every_value_of_a_name() -> None:
    def execute(tag: Annotated[list[int], Query()]) -> None: ...

    found = read(execute)
    assert found.connection_arguments(sse(query=[("tag", "1"), ("tag", "2")])) == {"tag": [1, 2]}
    assert found.connection_arguments(sse(query=[("tag", "1")])) == {"tag": [1]}
    (error,) = errors(found, sse(query=[("tag", "1"), ("tag", "x")]))
    assert error["loc"] == ["query", "tag", 1]


def test_a_default_makes_an_input_optional() -> None:
    def execute(
        limit: Annotated[int, Query()] = 10, body: Annotated[bytes, Body()] = b""
    ) -> None: ...

    assert read(execute).connection_arguments(sse()) == {}, "Python fills them in"


def test_constraints_hold() -> None:
    def execute(limit: Annotated[int, Query(), Field(le=100)]) -> None: ...

    assert read(execute).connection_arguments(sse(query=[("limit", "100")])) == {"limit": 100}
    (error,) = errors(read(execute), sse(query=[("limit", "101")]))
    assert error["type"] == "less_than_equal"


def test_all_that_is_wrong_is_listed() -> None:
    def execute(
        one: Annotated[int, Query()],
        two: Annotated[int, Query()],
        three: Annotated[str, Header()],
        body: Annotated[Order, Body()],
    ) -> None: ...

    found = errors(read(execute), sse(b'{"name":1}', query=[("one", "secret")]))
    assert [error["loc"] for error in found] == [
        ["query", "one"],
        ["query", "two"],
        ["header", "three"],
        ["body", "name"],
        ["body", "count"],
    ]
    assert all(set(error) == {"loc", "msg", "type"} for error in found)
    assert found[1] == {"loc": ["query", "two"], "msg": "Field required", "type": "missing"}
    assert "secret" not in json.dumps(found)


def test_a_body_is_a_model_text_or_bytes() -> None:
    def of_model(body: Annotated[Order, Body()]) -> None: ...

    def of_text(body: Annotated[str, Body()]) -> None: ...

    def of_bytes(body: Annotated[bytes, Body()]) -> None: ...

    order = b'{"name":"tea","count":2}'
    assert read(of_model).connection_arguments(sse(order))["body"] == Order(name="tea", count=2)
    assert read(of_text).connection_arguments(sse("é".encode()))["body"] == "é"
    assert read(of_bytes).connection_arguments(sse(b"\xff"))["body"] == b"\xff"
    assert errors(read(of_text), sse(b"\xff"))[0]["loc"] == ["body"]
    assert errors(read(of_model), sse(b"no json"))[0]["type"] == "json_invalid"


def test_inputs_of_a_handshake() -> None:
    def execute(ctx: WS, lang: Annotated[str, Query()]) -> None: ...

    assert (
        read(execute, "websocket").connection_arguments(ws(query=[("lang", "en")]))["lang"] == "en"
    )
    assert errors(read(execute, "websocket"), ws())[0]["loc"] == ["query", "lang"]


# What cannot be


def by_position(m: Message, /) -> None: ...
def unknown(ctx: WS, user: str) -> None: ...
def other_transport(ctx: SSE) -> None: ...
def body(body: Annotated[str, Body()]) -> None: ...
def no_such_path(room: Annotated[str, Path()]) -> None: ...


@pytest.mark.parametrize(
    ("execute", "transport", "found"),
    [
        (
            by_position,
            "websocket",
            "'m' cannot be filled; expected one of ctx: WS, message: Message",
        ),
        (
            unknown,
            "websocket",
            "'user' cannot be filled; expected one of ctx: WS, message: Message",
        ),
        (other_transport, "websocket", "'ctx' cannot be filled; expected one of ctx: WS"),
        (unknown, "sse", "'ctx' cannot be filled; expected one of ctx: SSE, Annotated"),
        (of_order, "sse", "'ctx' cannot be filled"),
        (lambda message: None, "sse", "'message' cannot be filled"),
        (body, "websocket", "'body' takes a body, but a WebSocket's handshake has none"),
        (no_such_path, "sse", "'room' is no parameter of the path; it has id"),
    ],
)
def test_a_contradiction_is_refused_when_it_is_declared(
    execute: Any, transport: Any, found: str
) -> None:
    with pytest.raises(BadDeclaration, match=f"workflow 'Echo': .*{found}"):
        read(execute, transport, path=("id",))


def test_an_event_stream_takes_no_message() -> None:
    def execute(message: Message) -> None: ...

    with pytest.raises(BadDeclaration, match="event streams take none; use Body"):
        read(execute)


def test_what_pydantic_cannot_validate_is_refused() -> None:
    class Odd: ...

    def execute(odd: Annotated[Odd, Query()]) -> None: ...

    execute.__annotations__ = {"odd": Annotated[Odd, Query()]}
    with pytest.raises(BadDeclaration, match="'odd' cannot be validated"):
        read(execute)
