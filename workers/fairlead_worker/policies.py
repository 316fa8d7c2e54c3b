"""Who may come in: a trigger's policies, in order, before anything is accepted. They fail closed."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from fairlead.context import SSE, WS, subject_id, subject_of
from fairlead.errors import Reject

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a blocking call in a thread."""


async def admit(
    policies: Sequence[Callable[..., Any]], ctx: WS | SSE, in_thread: InThread, within: float
) -> Any:
    """Ask each policy; a later one sees in `ctx.subject` what an earlier one found.

    Args:
        within: seconds for all of them.

    Returns:
        The subject as it travels, a JSON value; None if all said no more than True.

    Raises:
        Reject: 403 where one said no, 503 where they took too long, or what one raised.
        TypeError: one answered with what has no JSON form.
    """
    subject: Any = None
    try:
        async with asyncio.timeout(within):
            for policy in policies:
                answer = await _ask(policy, ctx, in_thread)
                if not answer:
                    raise Reject(403, "a policy of this endpoint refused")
                if answer is not True:
                    subject = _as_json(answer, policy)
                    ctx.subject = subject_of(subject)
    except TimeoutError:
        raise Reject(503, f"the policies did not answer in {within:g} s") from None
    return subject


async def _ask(policy: Callable[..., Any], ctx: WS | SSE, in_thread: InThread) -> Any:
    if inspect.iscoroutinefunction(policy):
        return await policy(ctx)
    answer = await in_thread(functools.partial(policy, ctx))
    return await answer if inspect.isawaitable(answer) else answer


def _as_json(answer: Any, policy: Callable[..., Any]) -> Any:
    """What the subject is on every worker: whoever runs a message has it from the wire."""
    try:
        subject = orjson.loads(orjson.dumps(_seen(answer), default=_inside))
        _check_id(subject)
    except _NoSubject as error:
        what = f"a {type(answer).__name__}{error}"
    except orjson.JSONEncodeError as error:
        what = f"a {type(answer).__name__}, which has no JSON form ({error})"
    else:
        return subject
    raise TypeError(
        f"policy {getattr(policy, '__name__', policy)!r} returned {what}; expected True, False, or "
        "who it is: a str, a dict, a dataclass, a pydantic model, or an object with an id (a str, "
        "an int or a UUID)"
    )


class _NoSubject(Exception):
    """Why an answer names nobody."""


def _seen(answer: Any) -> Any:
    """What others are to know of it.

    Of a class that declares its fields, those; of any other object its id alone, since nobody has
    said what else may leave this worker: an ORM's objects hold passwords.
    """
    if isinstance(answer, str | UUID):
        return answer
    fields = _fields(answer) or {}
    if isinstance(answer, Mapping):
        return fields
    if isinstance(answer, type):
        raise _NoSubject(", which is a class")
    for name in ("id", "sub"):
        if fields.get(name) is None and (found := getattr(answer, name, None)) is not None:
            if isinstance(found, bool) or not isinstance(found, str | int | UUID):
                raise _NoSubject(f" whose {name} is a {type(found).__name__}")
            return fields | {name: found}
    if not fields:
        raise _NoSubject(", which has neither an id nor a sub")
    return fields


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields that its class declares, or its keys; None of an object that has neither."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    named = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
    if named is not None:
        return dict(named())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if not name.startswith("_")}
    return None


def _inside(value: Any) -> Any:
    """What stands in a field of a subject."""
    if (fields := _fields(value)) is None:
        raise TypeError(f"{type(value).__name__} is not JSON serializable")
    return fields


def _check_id(subject: Any) -> None:
    """An id that nobody could be reached by is none."""
    if isinstance(subject, dict) and subject_id(subject) is None:
        for name in ("id", "sub"):
            if (found := subject.get(name)) is not None:
                raise _NoSubject(f" whose {name} is a {type(found).__name__}")
