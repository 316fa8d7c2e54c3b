"""The bucket of the leases that rooms have: taken, written again, given back, and by which clock.

The rules, and the times, are those of `fairlead.protocol.lease`; a key is written on the condition
that its last revision is still the one that is known.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from typing import Any, NamedTuple

import orjson

from fairlead import buckets
from fairlead.bus import Bus
from fairlead.errors import Malformed
from fairlead.protocol import lease
from fairlead.protocol.lease import Entry, Lease, State
from fairlead.protocol.timestamps import nanoseconds

ANSWER_WITHIN = 1.0
"""Seconds for NATS to write or read a lease; a renewal that takes longer is tried again."""

CLOCK_EVERY = 10.0
"""Seconds between two looks at the server's clock, for all rooms of a worker together."""

CLOCK_WITHIN = lease.MARGIN / 2
"""Seconds for such a look; the shorter, the better it is known."""

_WRONG_REVISION = 10071
"""JetStream's error for a write that names another revision than the last."""


class Held(NamedTuple):
    """A lease that was taken.

    Attributes:
        key: NATS subject of its key; holder: who has it, as its value says.
        state: how far the room was before.
    """

    key: str
    holder: str
    lease: Lease
    state: State


class Leases:
    """The bucket of leases, as one worker uses it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._created = 0  # of the bucket: ns since the epoch
        self._ahead = 0.0  # ms from loop time to the server's clock, at least
        self._looked = -CLOCK_EVERY
        self._looking = asyncio.Lock()

    async def take(self, key: str, state: State) -> Held | None:
        """Write a room's lease, if nobody has it.

        Raises:
            TimeoutError, NoResponders, Malformed: NATS does not answer as it should.
        """
        await self.look_at_the_clock()
        holder = f"{self._bus.options.process}-{next(self._numbers)}"
        sent = self._loop.time()
        revision = await self.write(key, Entry(holder, state), 0)
        if revision is None:
            last, entry = await self.read(key)
            if entry is not None and entry.worker:
                return None
            if entry is not None:
                state = state.merged(entry.state)
            sent = self._loop.time()
            revision = await self.write(key, Entry(holder, state), last)
            if revision is None:
                return None
        # A bucket that was made anew counts from 1 again; with its time of birth before, a later
        # lease has the larger fence all the same.
        return Held(
            key, holder, Lease(self._created + revision, revision, sent, self._ahead), state
        )

    async def renew(self, held: Held, state: State) -> bool:
        """Write it again; False if another has it.

        Raises:
            TimeoutError, NoResponders, Malformed: nobody knows.
        """
        sent = self._loop.time()
        entry = Entry(held.holder, state)
        revision = await self.write(held.key, entry, held.lease.revision)
        if revision is not None:
            held.lease.renewed(revision, sent)
            return True
        last, now = await self.read(held.key)
        if now is None or now.worker != held.holder:
            return False
        # The answer to an earlier renewal was lost; when it was written nobody knows.
        held.lease.revision = last
        return True

    async def give_back(self, held: Held, state: State) -> None:
        """Let the next one have it at once; raises as `renew`."""
        entry = Entry("", state)
        if await self.write(held.key, entry, held.lease.revision) is None:
            # A renewal was on its way when it was given up.
            last, now = await self.read(held.key)
            if now is not None and now.worker == held.holder:
                await self.write(held.key, entry, last)

    async def refresh_clock(self, held: Held) -> None:
        """Have a lease know the server's clock as it is now; raises as `renew`."""
        await self.look_at_the_clock()
        held.lease.ahead = self._ahead

    async def write(self, key: str, entry: Entry, last: int) -> int | None:
        """Write a key whose last revision is this; its new one, or None if that is another."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last)}
        answer = await self._bus.request(key, entry.encode(), within=ANSWER_WITHIN, headers=headers)
        ack = _json(answer)
        if "error" not in ack:
            return int(ack["seq"])
        if ack["error"].get("err_code") == _WRONG_REVISION:
            return None
        raise Malformed(f"{key}: {ack['error'].get('description', 'refused')}")

    async def read(self, key: str) -> tuple[int, Entry | None]:
        """(revision, value) of a key, by the bucket's leader; no value if it is gone, or deleted by hand."""
        asked = orjson.dumps({"last_by_subj": key})
        subject = f"$JS.API.STREAM.MSG.GET.KV_{self._bus.subjects.leases}"
        found = _json(await self._bus.request(subject, asked, within=ANSWER_WITHIN))
        if found.get("error", {}).get("code") == 404:
            return 0, None
        if "message" not in found:
            raise Malformed(f"{key}: {found.get('error')}")
        message = found["message"]
        value = base64.b64decode(message.get("data", ""))
        return int(message["seq"]), lease.decode_entry(value) if value else None

    async def look_at_the_clock(self) -> None:
        """Know the server's clock, and the bucket's birth; from the last look, if that was just now."""
        async with self._looking:
            if self._loop.time() - self._looked < CLOCK_EVERY:
                return
            info = await self._info()
            if "error" in info:
                await buckets.ensure_leases(self._bus, lease.TTL)
                info = await self._info()
            # The answer was made before it came: the server's clock is this far ahead, or further.
            now = self._loop.time()
            self._ahead = nanoseconds(info["ts"]) / 1_000_000 - now * 1000
            self._created = nanoseconds(info["created"])
            self._looked = now

    async def _info(self) -> Any:
        subject = f"$JS.API.STREAM.INFO.KV_{self._bus.subjects.leases}"
        return _json(await self._bus.request(subject, b"", within=CLOCK_WITHIN))


def _json(answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"JetStream says {answer[:80]!r}") from error
