"""What is made of what was seen; that it is seen rightly: tests/system/test_doctor.py."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.findings import (
    Finding,
    State,
    alive,
    clock,
    copies,
    leftovers,
    open_files,
    patience,
    payload,
    reached,
    served,
    size,
    space,
    unreached,
    version,
)
from fairlead.natsinfo import Account, Peer, Stream, Used
from fairlead.protocol.manifest import Beat, History, Manifest, Route
from fairlead.protocol.subjects import Subjects

SHOP = Subjects("shop")
KEPT = History(10, 60.0)
FREE = Used(1, None)


def stream(name: str = "FL_shop_chat_1", **fields: Any) -> Stream:
    told = {"topic": "chat", "messages": 2, "bytes": 3000, "replicas": 1, "leader": None}
    return Stream(name, **{**told, "peers": (), "told": 0.0, **fields})


def route(**fields: Any) -> Route:
    told: dict[str, Any] = {
        "feature": "shop",
        "workflow": "chat",
        "label": "Shop/chat",
        "transport": "sse",
    }
    told |= {
        "endpoint": "/x",
        "topic": "",
        "history": None,
        "deliver": "sender",
        "run": "connection",
    }
    return Route(**{**told, "methods": ("GET",), "checks": False, "executes": True, **fields})


def states(findings: list[Finding]) -> list[State]:
    return [finding.state for finding in findings]


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (reached("n1", 0.001), State.OK),
        (reached("n1", 0.2), State.NOTE),
        (unreached("n1", "refused"), State.WRONG),
        (version("n1", {"version": "2.15.1"}), State.OK),
        (version("n1", {"version": "2.11.0-RC.1"}), State.OK),
        (version("n1", {"version": "2.9.25"}), State.WRONG),
        (version("n1", {"version": "odd"}), State.WRONG),
        (version("n1", {}), State.WRONG),
        (payload("n1", {"max_payload": 1114112}), State.OK),
        (payload("n1", {"max_payload": 1114111}), State.WRONG),
        (clock(100.4, 100.0, 100.2), State.OK),
        (clock(104.0, 100.0, 100.2), State.NOTE),
        (clock(60.0, 100.0, 100.2), State.WRONG),
        (clock(103.0, 100.0, 106.0), State.OK),
        (open_files(20_000, 20_000), State.OK),
        (open_files(-1, -1), State.OK),
        (open_files(1024, 20_000), State.NOTE),
        (open_files(200, 200), State.WRONG),
    ],
)  # fmt: skip
def test_how_it_is_judged(finding: Finding, state: State) -> None:
    assert finding.state is state
    assert finding.found
    assert bool(finding.expected and finding.advice) is (state is not State.OK)


def test_the_figures_are_told() -> None:
    small = payload("n1", {"max_payload": 1048576})
    assert "1048576 bytes" in small.found and "1114112 bytes" in small.expected
    assert "max_payload: 2097152" in small.advice
    assert "4.000 s behind" in clock(96.0, 99.0, 101.0).found


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("nats: 'Authorization Violation'", "password"),
        ("[Errno 104] Connection reset by peer", "password"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "certificates"),
        ("[Errno 111] Connection refused", "start it"),
    ],
)
def test_what_to_do_depends_on_why_a_server_is_not_reached(reason: str, advice: str) -> None:
    assert advice in unreached("n1", reason).advice


@pytest.mark.parametrize(
    ("used", "state"),
    [
        (Used(10**12, None), State.OK),
        (Used(74, 100), State.OK),
        (Used(75, 100), State.NOTE),
        (Used(90, 100), State.WRONG),
        (Used(150, 100), State.WRONG),
    ],
)
def test_a_limit_that_is_near_is_told_before_it_is_met(used: Used, state: State) -> None:
    found = space(Account(FREE, used, FREE, FREE))
    assert [each.check for each in found] == [
        "jetstream storage", "jetstream memory", "jetstream streams", "jetstream consumers"
    ]  # fmt: skip
    assert states(found) == [state, State.OK, State.OK, State.OK]


def test_sizes_are_for_people() -> None:
    shown = [size(count) for count in (0, 1023, 1536, 5 * 1024**2, 3 * 1024**3, 2 * 1024**4)]
    assert shown == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB", "2.0 TiB"]


def test_times_that_make_no_sense_say_why() -> None:
    short, long = patience({"ready_grace": 2.0, "drain_grace": 30.0})
    assert (short.state, long.state) == (State.NOTE, State.OK)
    assert short.found == "FAIRLEAD_READY_GRACE is 2 s"
    assert "6 s or more" in short.expected and "FAIRLEAD_READY_GRACE to 6s" in short.advice


# Streams


def test_the_builds_that_count_are_those_that_live_or_the_newest() -> None:
    builds = {"a": (1, Manifest()), "b": (2, Manifest())}
    assert served({}, {}) == {}
    assert list(served(builds, {})) == ["b"]
    assert list(served(builds, {"w": Beat("w", "a")})) == ["a"]
    assert list(served(builds, {"w": Beat("w", "unknown")})) == ["b"]


def test_streams_of_topics_that_no_build_has_are_left_over() -> None:
    build = Manifest(topics={"chat": KEPT, "volatile": None})
    old = stream("FL_shop_old_1", topic="old")
    off = stream("FL_shop_volatile_1", topic="volatile")
    found = leftovers(SHOP, [stream(), old, off], [build])
    assert states(found) == [State.NOTE, State.NOTE]
    assert "FL_shop_old_1" in found[0].found and "2 messages, 2.9 KiB" in found[0].found
    assert "nats stream rm FL_shop_old_1" in found[0].advice
    assert states(leftovers(SHOP, [stream()], [build])) == [State.OK]


def test_the_runs_stream_is_left_over_where_no_build_keeps_runs() -> None:
    runs = stream("FL_shop_RUNS", topic="")
    assert states(leftovers(SHOP, [runs], [Manifest()])) == [State.NOTE]
    keeps = Manifest(routes=(route(resume=60.0),))
    assert states(leftovers(SHOP, [runs], [Manifest(), keeps])) == [State.OK]


def test_a_bucket_that_is_not_known_is_left_over() -> None:
    known = [stream(f"KV_{name}", topic="") for name in (SHOP.manifests, SHOP.leases)]
    odd = stream("KV_FL_shop_odd", topic="")
    (found,) = leftovers(SHOP, [*known, odd], [])
    assert "KV_FL_shop_odd" in found.found


def test_a_stream_without_a_leader_is_wrong() -> None:
    assert states(copies([stream(replicas=3, leader="")], [], 3)) == [State.WRONG]
    assert states(copies([], ["FL_shop_lost"], 3)) == [State.WRONG]


def test_a_server_whose_copies_do_not_keep_up_is_one_finding() -> None:
    well, behind, away = (
        Peer("n2", True, 0, 0.5),
        Peer("n3", False, 7, 12.4),
        Peer("n3", False, 0, None),
    )
    three: dict[str, Any] = {"replicas": 3, "leader": "n1"}
    assert states(copies([stream(**three, peers=(well,))], [], 3)) == [State.OK]
    several = [stream(f"s{number}", **three, peers=(well, behind)) for number in range(4)]
    (found,) = copies([*several, stream("s4", **three, peers=(away,))], [], 3)
    assert found.state is State.WRONG
    assert found.found == (
        "n3 does not keep up with 5 streams (s0, s1, s2, …): up to 7 messages behind; "
        "their leaders heard of it 12 s ago"
    )
    (found,) = copies([stream(**three, peers=(away,))], [], 3)
    assert "their leaders have not heard of it" in found.found


def test_single_copies_on_a_cluster_are_worth_a_look() -> None:
    (found,) = copies([stream(leader="n1"), stream("FL_shop_x", leader="n1", replicas=3)], [], 3)
    assert found.state is State.NOTE and "FL_shop_chat_1" in found.found
    assert "FL_shop_x" not in found.found and "--replicas 3" in found.advice
    assert states(copies([stream()], [], 1)) == [State.OK]


# Who is there


def test_who_is_there() -> None:
    builds = {"a": (1, Manifest()), "b": (2, Manifest())}
    beats = {"w1": Beat("w1", "b"), "w2": Beat("w2", "b")}
    found = {each.check: each.found for each in alive(builds, beats, 3)}
    assert found == {
        "builds": "2 known, 1 with live workers",
        "workers": "2 live",
        "edges": "3 live",
    }


def test_nobody_is_worth_a_look_and_a_build_without_a_manifest_is_wrong() -> None:
    assert states(alive({}, {}, 0)) == [State.NOTE] * 3
    assert states(alive({}, {}, None)) == [State.NOTE] * 2
    assert states(alive(None, {"w1": Beat("w1", "b")}, 1)) == [State.UNKNOWN, State.OK, State.OK]
    wrong, *_ = alive({"a": (1, Manifest())}, {"w1": Beat("w1", "lost")}, 1)
    assert wrong.state is State.WRONG and "lost" in wrong.found
