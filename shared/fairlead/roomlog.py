"""Reading a room's log: where its stream stands, what it last got, what came after a position."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import NamedTuple

import orjson

from fairlead.bus import ACK_WITHIN, Bus, NoResponders, parse_headers
from fairlead.errors import NotStored

READ_BATCH = 256
"""Messages that one question to a stream reads, at most."""

READ_BYTES = 256 * 1024
"""Bytes that it reads; a message that is larger comes alone."""

RoomRead = list[tuple[dict[str, str], bytes]]
"""Stored messages in order: (NATS headers, data)."""


class StreamState(NamedTuple):
    """Where a stream stands: created in ns since the epoch, last sequence, server time in ms."""

    created: int
    sequence: int
    time: int


async def state(bus: Bus, stream: str) -> StreamState:
    """Ask the stream's leader where it stands.

    Raises:
        NotStored: there is no such stream, or no answer.
    """
    try:
        answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", within=ACK_WITHIN)
        info = orjson.loads(answer)
        return StreamState(
            nanoseconds(info["created"]),
            info["state"]["last_seq"],
            nanoseconds(info["ts"]) // 1_000_000,
        )
    except (TimeoutError, NoResponders, KeyError, orjson.JSONDecodeError) as error:
        raise NotStored(f"stream {stream} does not answer") from error


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
    """What a room has: so many messages, at the server's time in ms."""

    messages: int
    time: int


async def kept(bus: Bus, stream: str, subject: str) -> Kept:
    """Ask the stream's leader how many messages a room has.

    Raises:
        NotStored: no answer.
    """
    asked = orjson.dumps({"subjects_filter": subject})
    try:
        answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", asked, within=ACK_WITHIN)
        info = orjson.loads(answer)
        messages = (info["state"].get("subjects") or {}).get(subject, 0)
        return Kept(messages, nanoseconds(info["ts"]) // 1_000_000)
    except (TimeoutError, NoResponders, KeyError, orjson.JSONDecodeError) as error:
        raise NotStored(f"stream {stream} does not answer") from error


async def read(bus: Bus, stream: str, subject: str, after: int) -> RoomRead:
    """A room's stored messages with a sequence above `after`, in order: (headers, data).

    A batched direct get: any replica may answer, so the last ones may be missing.

    Raises:
        NotStored: no answer.
    """
    found: RoomRead = []
    while page := await read_page(bus, stream, subject, after):
        found += page
        after = int(page[-1][0]["Nats-Sequence"])
    return found


async def read_page(bus: Bus, stream: str, subject: str, after: int) -> RoomRead:
    """The next of those: at most READ_BATCH messages, and about READ_BYTES; [] at the end.

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


def nanoseconds(timestamp: str) -> int:
    """A NATS timestamp (RFC 3339, up to nanoseconds, UTC) as ns since the epoch.

    `datetime` would drop the last three digits, and a stream's creation time is compared.
    """
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or "0")


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(TimeoutError("no end of a batch in time"))
