"""From what each process tells of itself to one picture of all."""

from __future__ import annotations

from typing import Any

from fairlead.protocol.manifest import Route
from fairlead.protocol.report import EdgeReport, Room, Run, Slow, Viewed, WorkerReport
from fairlead_console.fleet import GONE_AFTER, ROOMS, Fleet


def pictured(fleet: Fleet, now: float = 0.0, routes: tuple[Route, ...] = ()) -> dict[str, Any]:
    fleet.looked(now, 1000.0 + now)
    return fleet.picture(now, routes)


def edge(id: str = "e1", **members: Any) -> EdgeReport:
    return EdgeReport(id=id, **members)


def room(members: int, messages: int = 0, channel: str = "blue") -> Room:
    return Room(topic="chat", channel=channel, members=members, messages=messages)


def test_who_answers_is_shown_with_how_fast_its_counters_grow() -> None:
    fleet = Fleet()
    fleet.told(edge(counters={"received": 10}), 0.0)
    fleet.told(edge(counters={"received": 40, "sent": 5}), 2.0)
    (shown,) = pictured(fleet, 2.0)["edges"]
    assert shown["rates"] == {"received": 15.0, "sent": 0.0}, "nothing is known of what is new"
    assert "counters" not in shown


def test_a_process_that_began_anew_under_its_id_has_no_negative_rate() -> None:
    fleet = Fleet()
    fleet.told(edge(counters={"received": 10}), 0.0)
    fleet.told(edge(counters={"received": 1}), 1.0)
    assert pictured(fleet, 1.0)["edges"][0]["rates"] == {"received": 0}


def test_who_does_not_answer_any_more_is_gone_and_how() -> None:
    fleet = Fleet()
    fleet.told(edge("e1", host="a"), 0.0)
    fleet.told(WorkerReport(id="w1", draining=True), 0.0)
    fleet.told(edge("e2"), GONE_AFTER)
    picture = pictured(fleet, GONE_AFTER + 0.1)
    assert [shown["id"] for shown in picture["edges"]] == ["e2"]
    assert picture["workers"] == []
    gone = {(each["role"], each["id"], each["drained"]) for each in picture["gone"]}
    assert gone == {("edge", "e1", False), ("worker", "w1", True)}


def test_a_room_is_one_over_all_edges() -> None:
    """Each edge hears all of its messages, so its rate is not added up."""
    fleet = Fleet()
    for now, messages in ((0.0, 0), (1.0, 8)):
        fleet.told(edge("e1", rooms=(room(2, messages),), rooms_in_all=1), now)
        fleet.told(edge("e2", rooms=(room(3, messages + 5),), rooms_in_all=4), now)
    picture = pictured(fleet, 1.0)
    (shown,) = picture["rooms"]
    assert shown == {"topic": "chat", "channel": "blue", "members": 5, "edges": 2, "rate": 8.0}
    assert picture["rooms_in_all"] == 4, "three more, of which an edge has told only that they are"


def test_of_many_rooms_the_largest_are_shown() -> None:
    fleet = Fleet()
    rooms = tuple(room(n, channel=str(n)) for n in range(ROOMS + 10))
    fleet.told(edge(rooms=rooms, rooms_in_all=len(rooms)), 0.0)
    picture = pictured(fleet)
    assert len(picture["rooms"]) == ROOMS
    assert picture["rooms"][0]["members"] == ROOMS + 9
    assert picture["rooms_in_all"] == ROOMS + 10


def test_a_room_that_nobody_tells_of_any_more_is_forgotten() -> None:
    fleet = Fleet()
    fleet.told(edge(rooms=(room(1, 100),)), 0.0)
    fleet.told(edge(), 1.0)
    assert pictured(fleet, 1.0)["rooms"] == []
    fleet.told(edge(rooms=(room(1, 3),)), 2.0)
    assert pictured(fleet, 2.0)["rooms"][0]["rate"] == 0.0


def test_runs_have_their_readers_and_may_be_ended_by_name_alone() -> None:
    fleet = Fleet()
    fleet.told(WorkerReport(id="w1", runs=(Run(run="r1", key="k1", age=3.0),), runs_in_all=7), 0.0)
    fleet.told(edge("e1", viewed=(Viewed(run="r1", viewers=2),)), 0.0)
    fleet.told(edge("e2", viewed=(Viewed(run="r1", viewers=1),)), 0.0)
    picture = pictured(fleet)
    (shown,) = picture["runs"]
    assert (shown["worker"], shown["viewers"], picture["runs_in_all"]) == ("w1", 3, 7)
    assert "key" not in shown, "what ends it stays here"
    found = fleet.run("w1", "r1")
    assert found is not None and found.key == "k1"
    assert fleet.run("w1", "r2") is fleet.run("w2", "r1") is None


def test_who_reads_slowly_is_shown_the_worst_first() -> None:
    fleet = Fleet()
    fleet.told(edge("e1", slow=(Slow(connection="a", bytes=1),), slow_in_all=9), 0.0)
    fleet.told(edge("e2", slow=(Slow(connection="b", bytes=2),), slow_in_all=1), 0.0)
    picture = pictured(fleet)
    assert [(each["edge"], each["connection"]) for each in picture["slow"]] == [
        ("e2", "b"), ("e1", "a"),
    ]  # fmt: skip
    assert picture["slow_in_all"] == 10


def test_an_edge_is_reached_where_it_said_and_nowhere_else() -> None:
    fleet = Fleet()
    fleet.told(edge("e1", address="127.0.0.1:8000"), 0.0)
    fleet.told(edge("mounted"), 0.0)
    assert fleet.address("e1") == "127.0.0.1:8000"
    assert fleet.address("mounted") is None
    assert fleet.address("example.org") is None


def test_routes_are_shown_as_they_are_declared() -> None:
    route = Route(
        "support", "chat", "Support/Chat", "websocket", "/support/realtime/chat", topic="chat"
    )
    (shown,) = pictured(Fleet(), routes=(route,))["routes"]
    assert (shown["workflow"], shown["endpoint"], shown["run"]) == (
        "Support/Chat", "/support/realtime/chat", "message",
    )  # fmt: skip
