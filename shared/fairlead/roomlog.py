"""Reading a room's log: where its stream stands and what it keeps, what it last got, what came after
a position."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from fairlead.bus import Bus, NoResponders
from fairlead.errors import Malformed, NotStored
from fairlead.natsheaders import parse_headers
from fairlead.protocol.limits import Limits
from fairlead.protocol.timestamps import nanoseconds
from fairlead.storing import ACK_WITHIN

READ_BATCH = 256
"""Messages that one question to a stream reads, at most."""

READ_BYTES = 256 * 1024
"""Bytes that it reads; a message that is larger comes alone."""

RoomRead = list[tuple[dict[str, str], bytes]]
"""Stored messages in order: (NATS headers, data)."""


class StreamState(NamedTuple):
    """Where a stream stands, and what it keeps.

    Attributes:
        created: ns since the epoch. sequence: of its last message. time: the server's, in ms.
    """

    created: int
    sequence: int
    time: int
    limits: Limits = Limits()


async def state(bus: Bus, stream: str) -> StreamState:
    """Ask the stream's leader where it stands.

    Raises:
        NotStored: there is no such stream, or no answer.
    """
    info = await _info(bus, stream, b"")
    return StreamState(
        nanoseconds(info["created"]),
        info["state"]["last_seq"],
        nanoseconds(info["ts"]) // 1_000_000,
        _limits(info["config"]),
    )


async def _info(bus: Bus, stream: str, asked: bytes) -> Any:
    """What the stream's leader says of it, if that is all there.

    Raises:
        NotStored: there is no such stream, or no answer.
    """
    try:
        answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", asked, within=ACK_WITHIN)
        info = orjson.loads(answer)
        if {"created", "state", "ts", "config"} <= info.keys():
            return info
    except (TimeoutError, NoResponders, orjson.JSONDecodeError) as error:
        raise NotStored(f"stream {stream} does not answer") from error
    raise NotStored(f"stream {stream} does not answer: {info.get('error', info)}")


def _limits(config: Mapping[str, Any]) -> Limits:
    try:
        return Limits.of(
            config.get("max_msgs_per_subject", 0),
            config.get("max_age", 0) / 1_000_000_000,
            config.get("metadata"),
        )
    except Malformed as error:
        raise NotStored(f"stream {config.get('name')}: {error}") from error


async def last(bus: Bus, stream: str, subject: str) -> int:
    """The sequence of a room's last message, from the stream's leader; 0 for an empty room.

    Raises:
        NotStored: no answer.
    """
    return await _sequence(bus, stream, {"last_by_subj": subject})


async def first(bus: Bus, stream: str, subject: str) -> int:
    """The sequence of the oldest message that a room still has; 0 for an empty room.

    Raises:
        NotStored: no answer.
    """
    return await _sequence(bus, stream, {"seq": 1, "next_by_subj": subject})


async def _sequence(bus: Bus, stream: str, which: dict[str, str | int]) -> int:
    asked = orjson.dumps(which)
    try:
        answer = await bus.request(f"$JS.API.STREAM.MSG.GET.{stream}", asked, within=ACK_WITHIN)
        found = orjson.loads(answer)
        if "error" in found and found["error"].get("code") == 404:
            return 0
        return int(found["message"]["seq"])
    except (TimeoutError, NoResponders, KeyError, orjson.JSONDecodeError) as error:
        raise NotStored(f"stream {stream} does not answer") from error


class Kept(NamedTuple):
    """What a room has: so many messages, at the server's time in ms, within the stream's limits."""

    messages: int
    time: int
    limits: Limits = Limits()


async def kept(bus: Bus, stream: str, subject: str) -> Kept:
    """Ask the stream's leader how many messages a room has.

    Raises:
        NotStored: no answer.
    """
    info = await _info(bus, stream, orjson.dumps({"subjects_filter": subject}))
    messages = (info["state"].get("subjects") or {}).get(subject, 0)
    return Kept(messages, nanoseconds(info["ts"]) // 1_000_000, _limits(info["config"]))


async def read_page(bus: Bus, stream: str, subject: str, after: int) -> RoomRead:
    """A room's next stored messages with a sequence above `after`, in order; [] at the end.

    At most READ_BATCH messages, and about READ_BYTES. A batched direct get: any replica may
    answer, so the last ones may be missing.

    Raises:
        NotStored: no answer.
    """
    loop = asyncio.get_running_loop()
    found: RoomRead = []
    done: asyncio.Future[None] = loop.create_future()

    def take(_: str, __: str, data: bytes, raw: bytes) -> None:
        headers = parse_headers(raw)
        if "Nats-Sequence" in headers:
            found.append((headers, data))
        elif not done.done():  # 204: the end of the batch, 404: there is none
            done.set_result(None)

    inbox = bus.new_inbox
    interest = bus.subscribe(inbox, take)
    timer = loop.call_later(ACK_WITHIN, _end, done)
    which = {"seq": after + 1, "next_by_subj": subject}
    asked = orjson.dumps({**which, "batch": READ_BATCH, "max_bytes": READ_BYTES})
    try:
        bus.publish(f"$JS.API.DIRECT.GET.{stream}", asked, inbox)
        await done
    except TimeoutError:
        raise NotStored(f"stream {stream} does not answer") from None
    finally:
        timer.cancel()
        bus.unsubscribe(interest)
    return found


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(TimeoutError("no end of a batch in time"))
