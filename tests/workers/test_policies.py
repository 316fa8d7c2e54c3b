"""Policies are asked in order, and fail closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from fairlead.context import WS, Channel
from fairlead.errors import Reject
from fairlead_worker.policies import admit


async def in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def nowhere(item: object) -> None:
    raise AssertionError(item)


def context() -> WS:
    return WS("chat", Channel("-", nowhere), "edge-1", "edge-1-1", 1, "0" * 32, b"")


class User(BaseModel):
    id: str


class Plain:
    def __init__(self, id: str) -> None:
        self.id = id


async def test_true_lets_pass_and_finds_nobody() -> None:
    ctx = context()
    assert await admit([lambda ctx: True], ctx, in_thread, 1) is None
    assert ctx.subject is None


@pytest.mark.parametrize(
    ("found", "subject"),
    [
        ("ann", "ann"),
        ({"sub": "ann", "role": "admin"}, {"sub": "ann", "role": "admin"}),
        (User(id="ann"), {"id": "ann"}),
        (Plain("ann"), {"id": "ann"}),
    ],
)
async def test_an_object_is_the_subject_as_json_makes_it(found: object, subject: object) -> None:
    """The same on the worker that asked and on those that have it from the wire."""
    ctx = context()
    assert await admit([lambda ctx: found], ctx, in_thread, 1) == subject
    assert ctx.subject == subject
    if not isinstance(subject, str):
        assert all(getattr(ctx.subject, key) == value for key, value in subject.items())  # type: ignore[attr-defined]


async def test_a_later_policy_sees_what_an_earlier_one_found() -> None:
    seen: list[object] = []

    async def who(ctx: WS) -> str:
        return "ann"

    def look(ctx: WS) -> bool:
        seen.append(ctx.subject)
        return True

    assert await admit([who, look], context(), in_thread, 1) == "ann"
    assert seen == ["ann"]


@pytest.mark.parametrize("answer", [False, None, "", {}, 0])
async def test_anything_empty_refuses_and_later_ones_are_not_asked(answer: object) -> None:
    with pytest.raises(Reject) as refused:
        await admit([lambda ctx: answer, nowhere], context(), in_thread, 1)
    assert refused.value.status == 403


async def test_a_rejection_and_an_exception_pass_as_they_are() -> None:
    def rejects(ctx: WS) -> bool:
        raise Reject(401, "who are you?")

    def breaks(ctx: WS) -> bool:
        raise RuntimeError("broken")

    with pytest.raises(Reject, match="who are you") as refused:
        await admit([rejects], context(), in_thread, 1)
    assert refused.value.status == 401
    with pytest.raises(RuntimeError, match="broken"):
        await admit([breaks], context(), in_thread, 1)


async def test_all_of_them_together_have_their_time() -> None:
    async def slow(ctx: WS) -> bool:
        await asyncio.sleep(0.06)
        return True

    with pytest.raises(Reject) as refused:
        await admit([slow, slow], context(), in_thread, 0.1)
    assert refused.value.status == 503


async def test_a_plain_function_may_block_in_a_thread_of_its_own() -> None:
    threads: list[str] = []

    def policy(ctx: WS) -> bool:
        threads.append(threading.current_thread().name)
        return True

    await admit([policy], context(), in_thread, 1)
    assert threads != [threading.main_thread().name]


async def test_a_subject_without_a_json_form_is_an_error_that_names_the_policy() -> None:
    def odd(ctx: WS) -> object:
        return {"key": {1, 2}}

    with pytest.raises(TypeError, match="policy 'odd' returned a dict"):
        await admit([odd], context(), in_thread, 1)
