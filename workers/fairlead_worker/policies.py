"""Who may come in: a trigger's policies, in order, before anything is accepted. They fail closed."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from pydantic import BaseModel

from fairlead.context import SSE, WS, subject_of
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


def _as_json(subject: Any, policy: Callable[..., Any]) -> Any:
    """What the subject is on every worker: whoever runs a message has it from the wire."""
    try:
        return orjson.loads(orjson.dumps(subject, default=_fields))
    except orjson.JSONEncodeError as error:
        raise TypeError(
            f"policy {getattr(policy, '__name__', policy)!r} returned a {type(subject).__name__}, "
            f"which has no JSON form ({error}); expected True, False, a str, a dict or an object"
        ) from error


def _fields(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return vars(value)
