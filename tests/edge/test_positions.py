"""What a client's place in a room is worth: it gets all that it missed, or is told that it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairlead.protocol.limits import SETTLES
from fairlead_edge import gap as gap_module
from support.roommodel import AGE, SIZE, Client, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def speak(world: World, number: int) -> None:
    """Somebody says something in the room, and both edges hear it."""
    world.publish("a", number)
    for edge in (0, 1):
        world.arrive(edge)


def came(client: Client | None) -> Client:
    assert client is not None, "it was refused"
    return client


def who_has_seen(world: World, number: int) -> Client:
    """A client that was there for some messages, and left."""
    client = came(world.come())
    speak(world, number)
    assert len(client.got) == number
    world.leave(client)
    return client


def returns(world: World, client: Client) -> bool:
    """Whether it is told that it gets all; on an edge that has nothing of the room in memory."""
    back = came(world.come_back(client, edge=1))
    world.turn(30)
    if back.recovered:
        assert back.got == [m.sequence for m in world.stream.all if m.sequence > back.after]
    return back.recovered


# Coming back


def test_who_missed_what_the_room_still_has_gets_it(world: World) -> None:
    client = who_has_seen(world, 2)
    world.publish("a", SIZE - 1)
    assert returns(world, client)


def test_who_missed_nothing_of_a_room_that_has_aged_away_is_told_so(world: World) -> None:
    """A quiet room is no gap, while the place is younger than what the room keeps."""
    client = came(world.come())
    speak(world, 1)
    world.pass_time(50)  # members are told where the room stands each quarter of its age
    world.leave(client)
    world.pass_time(40)
    assert world.stream.of("a") == []
    assert returns(world, client)


def test_who_missed_more_than_the_room_keeps_is_told_so(world: World) -> None:
    client = who_has_seen(world, 1)
    world.publish("a", SIZE + 1)
    assert not returns(world, client)


def test_what_a_room_evicted_does_not_come_back_with_a_deploy_that_keeps_more(
    world: World,
) -> None:
    """It is not full now; it was when it forgot what this client missed."""
    client = who_has_seen(world, 1)
    world.publish("a", SIZE + 1)
    world.deploy(10 * SIZE, AGE)
    assert not returns(world, client)


def test_what_aged_away_does_not_come_back_with_a_deploy_that_keeps_it_longer(
    world: World,
) -> None:
    client = who_has_seen(world, 1)
    world.publish("a", 1)
    world.pass_time(int(AGE) + 1)
    world.deploy(SIZE, 10 * AGE)
    assert not returns(world, client)


def test_nor_with_a_second_deploy(world: World) -> None:
    client = who_has_seen(world, 1)
    world.publish("a", SIZE + 1)
    world.deploy(10 * SIZE, AGE)
    world.deploy(20 * SIZE, 2 * AGE)
    assert not returns(world, client)


def test_who_came_after_the_deploy_has_what_is_kept_since(world: World) -> None:
    world.deploy(10 * SIZE, 10 * AGE)
    world.stream.pass_time(SETTLES + 1)
    client = came(world.come())
    world.leave(client)
    world.publish("a", 2 * SIZE)
    world.stream.pass_time(int(2 * AGE * 1000))
    assert returns(world, client)


def test_a_deploy_that_keeps_more_costs_nobody_anything_who_missed_little(world: World) -> None:
    client = who_has_seen(world, 1)
    world.publish("a", 2)
    world.deploy(10 * SIZE, 10 * AGE)
    assert returns(world, client)


# Being there


def test_what_was_said_while_nats_was_away_is_given_to_who_is_there(world: World) -> None:
    client = came(world.come())
    speak(world, 1)
    world.lose_nats(0)
    world.publish("a", 2)
    world.find_nats(0)
    assert (client.got, client.closed) == ([1, 2, 3], False)


def test_nats_away_while_nobody_speaks_is_noticed_by_nobody(world: World) -> None:
    client = came(world.come())
    world.lose_nats(0)
    world.pass_time(int(AGE / 2))
    world.find_nats(0)
    assert not client.closed


def test_nats_away_for_longer_than_a_room_keeps_anything_is_said(world: World) -> None:
    """The room is empty, which tells nothing of what it had meanwhile."""
    client = came(world.come())
    world.lose_nats(0)
    world.publish("a", 2)
    world.pass_time(int(AGE) + 1)
    assert world.stream.of("a") == []
    world.find_nats(0)
    assert (client.got, client.closed) == ([], True)


def test_a_stream_that_was_made_anew_is_said_with_its_first_message(world: World) -> None:
    client = came(world.come())
    speak(world, 3)
    world.make_anew()
    speak(world, 1)
    world.turn(30)
    assert (client.got, client.closed) == ([1, 2, 3], True)


def test_who_comes_into_a_stream_that_was_made_anew_gets_all_of_it(world: World) -> None:
    """Its numbers begin again, below those that the edge has heard."""
    came(world.come())
    speak(world, 3)
    world.make_anew()
    speak(world, 1)
    world.turn(30)
    client = came(world.come())
    speak(world, 1)
    assert client.got == [2]


@pytest.mark.parametrize(
    ("limit", "most"), [("HELD", 2), ("HELD_BYTES", 900), ("EDGE_HELD_BYTES", 900)]
)
def test_more_than_an_edge_holds_while_it_reads_is_read_too(
    limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost by that, and nothing comes twice."""
    monkeypatch.setattr(gap_module, limit, most)
    monkeypatch.setattr("fairlead_edge.hub.EDGE_HELD_BYTES", most)
    world = World()
    world.deploy(100, AGE)
    client = came(world.come())
    world.publish("a", 1)
    world.lose_a_message(0)
    for _ in range(8):
        world.publish("a", 1)
        world.arrive(0, turns=0)
    world.turn(200)
    assert client.got == list(range(1, 10))
    assert not client.closed
    world.end()
