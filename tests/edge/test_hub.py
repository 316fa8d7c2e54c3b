"""A hub in the world of the model: what would be lost if two things happen at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fairlead.protocol.cursor import Position
from fairlead_edge.hub import Hub
from fairlead_edge.opened import Opened
from fairlead_edge.room import RoomMessage
from support.roommodel import AGE, Client, World

KEPT = 100


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.deploy(KEPT, AGE)
    yield made
    made.close()


def comes(world: World) -> Client:
    client = world.come()
    assert client is not None
    return client


def nats_comes(world: World) -> None:
    """Edge 0 hears nothing of what was said meanwhile."""
    world.late[0] = []
    world.buses[0].connected = True
    world.loop.run_until_complete(world._tell_it_is_up(world.buses[0]))


def the_room(hub: Hub) -> Opened:
    (opened,) = hub._rooms.values()
    return opened


def test_nats_goes_a_second_time_while_the_first_hole_is_filled(world: World) -> None:
    world.stream.pass_time(10_001)
    client = comes(world)
    opened = the_room(world.hubs[0])
    world.lose_nats(0)
    world.publish("a", 1)
    nats_comes(world)
    while opened.gap is None:
        world.turn()
    world.buses[0].connected = False
    world.turn(3)
    world.publish("a", 6)
    nats_comes(world)
    world.publish("a", 1)
    world.arrive(0, turns=0)
    world.turn(200)
    assert client.got == list(range(1, 9))


def test_what_is_missing_between_what_was_held_is_read_too(world: World) -> None:
    client = comes(world)
    opened = the_room(world.hubs[0])
    world.publish("a", 1)
    world.arrive(0)
    world.publish("a", 1)
    world.late[0] = []  # dropped on its way
    world.publish("a", 1)
    world.arrive(0, turns=0)
    assert opened.gap is not None
    opened.gap.target = (
        2  # as if the fourth came and the fifth was dropped while the last page was read
    )
    world.publish("a", 1)
    world.late[0] = []
    world.publish("a", 1)
    world.arrive(0, turns=0)
    world.turn(200)
    assert client.got == [1, 2, 3, 4, 5]


def test_a_stream_that_was_made_anew_while_nats_was_away_is_no_continuation(world: World) -> None:
    client = comes(world)
    world.publish("a", 2)
    world.arrive(0)
    world.buses[0].connected = False
    world.turn()
    world.make_anew()
    world.deploy(KEPT, AGE)
    world.publish("a", 5)  # more than the old one had
    nats_comes(world)
    world.turn(100)
    assert (client.got, bool(client.closed)) == ([1, 2], True)


def test_who_is_brought_up_to_date_is_not_given_another_streams_messages(world: World) -> None:
    client = comes(world)
    world.publish("a", 2)
    world.arrive(0)
    world.leave(client)
    world.publish("a", 4)
    world.arrive(0)
    back = world.come_back(client, edge=1)
    assert back is not None and back.recovered
    back.reads.clear()
    world.turn(20)
    world.make_anew()
    world.deploy(KEPT, AGE)
    world.publish("a", 9)
    for edge in (0, 1):
        world.arrive(edge)
    world.turn(50)
    for hub in world.hubs:
        for opened in list(hub._rooms.values()):
            world.loop.run_until_complete(hub._check(opened))
    back.reads.set()
    world.turn(100)
    assert back.closed


def test_a_message_that_cannot_be_read_closes_the_room_and_is_not_waited_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = comes(world)
    hub = world.hubs[0]
    world.publish("a", 1)
    world.arrive(0)
    world.publish("a", 1)
    world.late[0] = []

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(hub, "_take", broken)
    world.publish("a", 1)
    world.arrive(0, turns=0)
    world.turn(100)
    assert client.closed
    assert the_room(hub).gap is None


def test_a_cursor_does_not_go_out_before_what_it_covers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = comes(world)
    world.publish("a", 1)
    world.arrive(0)
    hub = world.hubs[0]
    said: list[tuple[str, int]] = []

    def heard(messages: Sequence[RoomMessage]) -> bool:
        said.extend(("message", message.sequence) for message in messages)
        return False

    def stands(at: Position) -> None:
        said.append(("cursor", at.sequence))

    monkeypatch.setattr(client, "room_messages", heard)
    monkeypatch.setattr(client, "room_position", stands)
    world.stream.pass_time(40_000)
    told = world.stream.last

    async def last(*about: Any) -> int:
        """In one read of the socket with its answer comes a live message."""
        found = await told(*about)
        world.publish("a", 1)
        due, world.late[0] = world.late[0], []
        for message, before in due:
            world.buses[0].live(message, before)
        return found

    monkeypatch.setattr(world.stream, "last", last)
    world.loop.run_until_complete(asyncio.wait_for(hub._check(the_room(hub)), 5))
    world.turn(5)
    assert said == [("message", 2), ("cursor", 2)]
