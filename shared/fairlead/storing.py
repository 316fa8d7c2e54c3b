"""Publishing to a stream: nothing is lost, and nothing stored twice, while its leader or NATS is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

import orjson

from fairlead.bus import Bus, NoResponders
from fairlead.errors import NotStored

ACK_WITHIN = 2.0
"""Seconds to wait for a stream's acknowledgement before publishing again with the same id."""

STORE_PATIENCE = 30.0
"""Seconds of tries before a room message counts as not stored. A leader change takes 5."""

DUPLICATE_WINDOW = 120.0
"""Seconds in which a stream knows a message id again."""

AGAIN = 0.1
"""Seconds from a try to the next."""

_WRONG_LAST_SEQUENCE = 10071
"""nats-server's `JSStreamWrongLastSequenceErrF`."""

_IN_PROCESS = 10158
"""nats-server's `JSStreamDuplicateMessageConflict`: the first try still waits for a quorum."""

T = TypeVar("T")


class OutOfOrder(Exception):
    """A stream's subject has another last message than its writer expected: another has written."""


class Stored(NamedTuple):
    """A stream's acknowledgement."""

    sequence: int
    duplicate: bool


async def store(
    bus: Bus, subject: str, payload: bytes, headers: Mapping[str, str],
    deadline: float | None = None,
) -> Stored:  # fmt: skip
    """Publish to a room with history; return when its stream has it.

    Tries again with the same `Nats-Msg-Id` while the stream has no leader or NATS is
    away, so that nothing is lost and nothing stored twice.

    Args:
        headers: with a `Nats-Msg-Id`, unique for this message in this stream.
        deadline: loop time of the last try; None for `STORE_PATIENCE` from now on.

    Raises:
        NotStored: not acknowledged by then, or refused.
        OutOfOrder: `headers` expect another last message of the subject than there is.
    """
    loop = asyncio.get_running_loop()
    if deadline is None:
        deadline = loop.time() + STORE_PATIENCE
    while True:
        try:
            await asyncio.wait_for(bus.ready(), max(0.0, deadline - loop.time()))
            answer = await bus.request(subject, payload, within=ACK_WITHIN, headers=headers)
            ack = orjson.loads(answer)
            if "error" not in ack:
                return Stored(ack["seq"], ack.get("duplicate", False))
            reason = ack["error"].get("description", "refused")
            code, err_code = ack["error"].get("code"), ack["error"].get("err_code")
            if err_code == _WRONG_LAST_SEQUENCE:
                raise OutOfOrder(subject)
            if code not in (429, 503) and err_code != _IN_PROCESS:
                raise NotStored(f"{subject}: {reason}")
        except (TimeoutError, NoResponders, orjson.JSONDecodeError, KeyError) as error:
            reason = "no stream keeps it" if isinstance(error, NoResponders) else "no answer"
        if loop.time() + AGAIN >= deadline:
            raise NotStored(f"{subject}: {reason} for {STORE_PATIENCE:g} s")
        await asyncio.sleep(AGAIN)


async def answered(bus: Bus, ask: Callable[[], Awaitable[T]], deadline: float | None = None) -> T:
    """Ask a stream as patiently as something is stored in it.

    For what belongs to storing: one question without an answer must not make it fail.

    Args:
        ask: raises NotStored where there is no answer.
        deadline: as that of `store`.

    Raises:
        NotStored: there was none until then.
    """
    loop = asyncio.get_running_loop()
    if deadline is None:
        deadline = loop.time() + STORE_PATIENCE
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                await bus.ready()
            return await ask()
        except TimeoutError:
            raise NotStored("NATS does not answer") from None
        except NotStored:
            if loop.time() + AGAIN >= deadline:
                raise
        await asyncio.sleep(AGAIN)
