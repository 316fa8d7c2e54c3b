"""Events for plain functions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.client.emitter import Emitter


def test_a_listener_hears_its_event_until_it_is_ended() -> None:
    emitter, heard = Emitter("a", "b"), list[Any]()
    end = emitter.on("a", heard.append)
    emitter.emit("a", 1)
    emitter.emit("b", 2)
    end()
    end()
    emitter.emit("a", 3)
    assert heard == [1]


def test_an_event_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no event 'c'; there are a, b"):
        Emitter("a", "b").on("c", print)


def test_a_coroutine_function_is_refused() -> None:
    async def listener(_: Any) -> None: ...

    with pytest.raises(TypeError, match="nobody would await"):
        Emitter("a").on("a", listener)


async def test_what_a_listener_raises_is_reported_and_harms_nobody_else() -> None:
    emitter, heard, reported = Emitter("a"), list[Any](), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fails(detail: Any) -> None:
        raise LookupError(detail)

    emitter.on("a", fails)
    emitter.on("a", heard.append)
    emitter.emit("a", 1)
    assert heard == [1]
    assert [repr(each["exception"]) for each in reported] == ["LookupError(1)"]
