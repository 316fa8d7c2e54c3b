"""A workflow alone: called with what a client might have asked and said."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from fairlead import (
    SSE,
    WS,
    Channel,
    Event,
    Message,
    Path,
    Query,
    broadcast,
    direct,
    feature,
    reply,
    testing,
    trigger,
    workflow,
)
from fairlead.errors import BadDeclaration, Invalid
from fairlead.streams import interval

support = feature("Support")


@support.websocket("echo", tag="t")
async def echo(ctx: WS) -> Channel:
    return ctx.channel


@support.websocket("shout", tag="t", deliver="topic")
async def shout(ctx: WS, message: Message) -> Any:
    return message.data.upper()


@support.websocket("greeter", tag="t")
async def greeter(ctx: WS) -> AsyncIterator[Any]:
    await ctx.channel.broadcast(f"{ctx.subject} came")
    async for message in ctx.channel:
        yield reply(f"{ctx.channel.name}: {message.data}")
    await ctx.channel.send("bye")


class Order(BaseModel):
    count: int


@support.websocket("orders", tag="t")
def orders(ctx: WS, message: Message[Order], factor: Annotated[int, Query()] = 2) -> Iterator[int]:
    for number in range(message.data.count):
        yield number * factor


@support.sse("/ticks", tag="t")
async def ticks(ctx: SSE) -> AsyncIterator[Any]:
    async for number in interval(0):
        yield {"body": ctx.body.decode(), "number": number}


async def test_a_function_stays_what_it_was() -> None:
    assert await shout(testing.ws(), testing.message("hi")) == "HI"
    channel = await echo(testing.ws(messages=["one", b"two", {"three": 3}]))
    assert [message.data async for message in channel] == ["one", b"two", {"three": 3}]


async def test_collect_runs_it_as_a_worker_does() -> None:
    assert await testing.collect(shout, testing.ws(), testing.message("hi")) == ["HI"]
    found = await testing.collect(echo, testing.ws(messages=["one"]))
    assert [message.data for message in found] == ["one"]


async def test_what_a_channel_was_told_is_there_to_look_at() -> None:
    ctx = testing.ws(subject="ann", channel="blue", messages=["hello"])
    assert await testing.collect(greeter, ctx) == [reply("blue: hello")]
    assert ctx.channel.sent == [broadcast("ann came"), reply("bye")]  # type: ignore[attr-defined]


async def test_inputs_and_messages_are_validated() -> None:
    ctx = testing.ws(query={"factor": "3"})
    assert await testing.collect(orders, ctx, testing.message({"count": 3})) == [0, 3, 6]
    assert await testing.collect(orders, testing.ws(), testing.message({"count": 2})) == [0, 2]
    with pytest.raises(Invalid):
        await testing.collect(orders, testing.ws(query={"factor": "x"}), testing.message({}))
    with pytest.raises(Invalid):
        await testing.collect(orders, ctx, testing.message({"count": "many"}))


async def test_one_that_never_ends_is_closed_after_a_number_of_items() -> None:
    found = await testing.collect(ticks, testing.sse(body=b"x"), limit=3)
    assert found == [{"body": "x", "number": n} for n in range(3)]
    assert await testing.collect(orders, testing.ws(), testing.message({"count": 9}), limit=1) == [
        0
    ]


async def test_a_request_can_be_made_up() -> None:
    ctx = testing.ws(
        query={"a": ["1", "2"]},
        headers={"X-Name": "v"},
        path={"room": "blue"},
        subject={"id": "ann"},
        attempt=2,
    )
    assert (ctx.query["a"], ctx.headers["x-name"], ctx.path["room"]) == ("2", "v", "blue")
    assert (ctx.subject.id, ctx.attempt, ctx.topic) == ("ann", 2, "chat")
    said = testing.message("hi", sender="other", subject="bob", id="7")
    assert (said.sender, said.subject, said.id) == ("other", "bob", "7")


async def test_the_run_of_a_room_alone() -> None:
    """It belongs to no client, so there is nothing of one to be made up."""

    async def ticks(ctx: WS, room: Annotated[str, Path()]) -> AsyncIterator[str]:
        for number in itertools.count():
            yield f"{room} {ctx.connection}{ctx.subject or number}"

    ctx = testing.room(path={"room": "blue"}, topic="rooms.blue")
    assert await testing.collect(ticks, ctx, limit=2) == ["blue 0", "blue 1"]
    with pytest.raises(TypeError, match="the run of a room"):
        aiter(ctx.channel)


async def test_what_is_wrong_is_said() -> None:
    async def odd(ctx: WS, user: str) -> None: ...

    with pytest.raises(BadDeclaration, match="'odd': parameter 'user' cannot be filled"):
        await testing.collect(odd, testing.ws())
    with pytest.raises(TypeError, match="'shout' takes a Message"):
        await testing.collect(shout, testing.ws())


async def test_a_workflow_that_was_made_by_a_call() -> None:
    async def value(ctx: SSE) -> int:
        return 7

    made = workflow("Value", tag="t", trigger=trigger.sse("/value"), execute=value)
    assert await testing.collect(made, testing.sse()) == [7]


@pytest.mark.parametrize(
    ("item", "ctx", "why"),
    [
        ({1, 2}, testing.ws, "a set cannot be sent"),
        (reply({1, 2}), testing.ws, "a set cannot be sent"),
        (broadcast(object()), testing.ws, "a object cannot be sent"),
        (direct("ann", {1}), testing.ws, "a set cannot be sent"),
        (Event("x"), testing.ws, "Event is for SSE"),
        (Event({1}), testing.sse, "a set cannot be sent"),
        (broadcast("x"), testing.sse, "has no topic"),
        (direct("ann", "x"), testing.sse, "has no topic"),
    ],
)
@pytest.mark.parametrize("how", ["returned", "yielded", "yielded by a thread"])
async def test_what_a_worker_could_not_send_is_an_error_here_too(
    item: Any, ctx: Any, why: str, how: str
) -> None:
    async def returned(ctx: Any) -> Any:
        return item

    async def yielded(ctx: Any) -> AsyncIterator[Any]:
        yield item

    def yielded_by_a_thread(ctx: Any) -> Iterator[Any]:
        yield item

    made = ctx()
    functions: dict[str, Any] = {each.__name__: each for each in (returned, yielded)}
    function = functions.get(how, yielded_by_a_thread)
    function.__annotations__["ctx"] = type(made)
    with pytest.raises(TypeError, match=why):
        await testing.collect(function, made)


@pytest.mark.parametrize("send", ["send", "broadcast"])
async def test_what_a_channel_could_not_send_is_an_error_as_well(send: str) -> None:
    channel = testing.ws().channel
    with pytest.raises(TypeError, match="a set cannot be sent"):
        await getattr(channel, send)({1, 2})
    with pytest.raises(TypeError, match="has no topic"):
        await testing.sse().channel.broadcast("x")


async def test_what_can_be_sent_comes_as_it_was_said() -> None:
    """Not as bytes: tests compare it with what they meant."""
    said = [Event("x", event="tick"), Event(comment="only a comment"), b"x", {"a": 1}, reply(None)]

    async def everything(ctx: SSE) -> AsyncIterator[Any]:
        for item in said:
            yield item

    assert await testing.collect(everything, testing.sse()) == said
    ctx = testing.sse(topic="chat")
    await ctx.channel.broadcast("x")
    assert ctx.channel.sent == [broadcast("x")]  # type: ignore[attr-defined]


async def test_any_iterator_is_read() -> None:
    def items(ctx: WS) -> Iterator[int]:
        return iter([1, 2, 3])

    assert await testing.collect(items, testing.ws()) == [1, 2, 3]
    assert await testing.collect(items, testing.ws(), limit=2) == [1, 2]
