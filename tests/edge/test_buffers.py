"""Who gives way when all slow clients of an edge have too much waiting."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from fairlead.protocol.manifest import Route
from fairlead_edge.buffers import RELIEF, Buffers
from fairlead_edge.host import Host
from fairlead_edge.sse import Stream


class Client:
    """One that drops all that waits for it."""

    route = cast(Route, None)

    def __init__(self, id: str, buffers: Buffers, relieved: list[str]) -> None:
        self.id = id
        self._buffers = buffers
        self._relieved = relieved

    def relieve(self) -> None:
        self._relieved.append(self.id)
        self._buffers.waits(self, 0)


async def test_the_worst_give_way_and_only_as_many_as_must() -> None:
    buffers, relieved = Buffers(1000), list[str]()
    sizes = {"a": 100, "worst": 500, "b": 150, "second": 300}
    for id, size in sizes.items():
        buffers.waits(Client(id, buffers, relieved), size)
    assert buffers.used == 1050 and relieved == [], "not in the middle of what a room says"
    await asyncio.sleep(0)
    assert relieved == ["worst"]
    assert buffers.used == 550 <= 1000 * RELIEF


async def test_more_give_way_until_there_is_room_for_a_while() -> None:
    buffers, relieved = Buffers(1000), list[str]()
    for number in range(11):
        buffers.waits(Client(str(number), buffers, relieved), 100 + number)
    await asyncio.sleep(0)
    assert relieved == ["10", "9", "8"]
    assert buffers.used <= 1000 * RELIEF


async def test_who_has_read_what_waited_is_spared() -> None:
    buffers, relieved = Buffers(1000), list[str]()
    clients = [Client(str(number), buffers, relieved) for number in range(2)]
    for client in clients:
        buffers.waits(client, 600)
    buffers.waits(clients[0], 0)
    await asyncio.sleep(0)
    assert (relieved, buffers.used) == ([], 600)


async def test_an_event_stream_that_was_slow_for_a_moment_is_counted_no_longer() -> None:
    """What it had waiting may leave in two writes, of which none is large."""
    buffers = Buffers(10**9)
    host = SimpleNamespace(new_id=lambda: "e-1", buffers=buffers)
    route = SimpleNamespace(format="json", overflow="disconnect", executes=False)
    stream = Stream(cast(Host, host), cast(Route, route))
    chunks = stream.chunks()
    stream.say(b"a" * 40_000)
    await anext(chunks)
    stream.say(b"b" * 30_000)
    assert buffers.used == 70_000
    await anext(chunks)
    stream.say(b"c")
    await anext(chunks)
    assert buffers.used == 0
