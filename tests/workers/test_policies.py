"""Policies are asked in order, and fail closed."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel

from fairlead.context import WS, Channel, subject_id
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


class Member(BaseModel):
    name: str

    @property
    def id(self) -> str:
        return f"member-{self.name}"


@dataclasses.dataclass
class Employee:
    number: int
    name: str
    _salary: int = 1000

    @property
    def sub(self) -> str:
        return f"employee-{self.number}"


class Pair(NamedTuple):
    id: str
    name: str


class Account:
    """As an ORM's: what an instance holds is nobody's business but its own."""

    def __init__(self, id: Any) -> None:
        self._state = object()
        self.id = id
        self.password = "pbkdf2_sha256$"


class Lazy:
    """Its id is no attribute of the instance."""

    @property
    def id(self) -> str:
        return "ann"


class Everybody:
    id = "everybody"


class Slots:
    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = "ann"


class Claims:
    sub = "ann"


ANN = UUID("12345678123456781234567812345678")


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
        (Member(name="ann"), {"name": "ann", "id": "member-ann"}),
        (Employee(7, "ann"), {"number": 7, "name": "ann", "sub": "employee-7"}),
        (Pair("ann", "Ann"), {"id": "ann", "name": "Ann"}),
        (MappingProxyType({"id": 7}), {"id": 7}),
        (ANN, str(ANN)),
        ({"id": ANN}, {"id": str(ANN)}),
        ({"roles": ["guest"]}, {"roles": ["guest"]}),
    ],
)
async def test_a_subject_is_what_json_makes_of_it(found: object, subject: object) -> None:
    """The same on the worker that asked and on those that have it from the wire."""
    ctx = context()
    assert await admit([lambda ctx: found], ctx, in_thread, 1) == subject
    assert ctx.subject == subject
    if not isinstance(subject, str):
        assert all(getattr(ctx.subject, key) == value for key, value in subject.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("found", "subject"),
    [
        (Account("ann"), {"id": "ann"}),
        (Account(7), {"id": 7}),
        (Account(ANN), {"id": str(ANN)}),
        (Lazy(), {"id": "ann"}),
        (Everybody(), {"id": "everybody"}),
        (Slots(), {"id": "ann"}),
        (Claims(), {"sub": "ann"}),
    ],
)
async def test_of_any_other_object_only_its_id_leaves_the_worker(
    found: object, subject: dict[str, Any]
) -> None:
    """Nobody has said what else of it others may see: a password, a session, its ORM's state."""
    ctx = context()
    assert await admit([lambda ctx: found], ctx, in_thread, 1) == subject
    assert subject_id(ctx.subject) == str(next(iter(subject.values())))
    with pytest.raises(AttributeError, match="a dict, a dataclass or a model"):
        _ = ctx.subject.password


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (5, "an? int, which has neither"),
        (1.5, "a float"),
        (["ann"], "a list"),
        (("ann",), "a tuple"),
        (b"ann", "a bytes"),
        (object(), "an? object, which has neither an id nor a sub"),
        (Account(None), "an? Account, which has neither an id nor a sub"),
        (Account(Decimal(7)), "an? Account whose id is a Decimal"),
        (Account(True), "an? Account whose id is a bool"),
        ({"id": 1.5}, "a dict whose id is a float"),
        ({"sub": ["ann"]}, "a dict whose sub is a list"),
        (Everybody, "a type, which is a class"),
    ],
)
async def test_what_names_nobody_is_an_error_of_the_policy(found: object, what: str) -> None:
    """Not a subject without an id: `from` and `direct` would take it for nobody."""

    def odd(ctx: WS) -> object:
        return found

    with pytest.raises(TypeError, match=f"policy 'odd' returned {what}"):
        await admit([odd], context(), in_thread, 1)


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
