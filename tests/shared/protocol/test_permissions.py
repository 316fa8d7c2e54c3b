"""Each NATS subject has its two ends, and each role what it needs and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fairlead.protocol.names import topic_template
from fairlead.protocol.permissions import LANES, Lane, Role, permissions
from fairlead.protocol.subjects import KINDS, Subjects

SHOP = Subjects("shop")

MADE: dict[str, Callable[[], str | tuple[str, ...] | list[str]]] = {
    "inbound": lambda: SHOP.inbound("support", "echo", "rooms.a", "blue"),
    "inbound_all": lambda: SHOP.inbound_all("support", "echo"),
    "seek": lambda: SHOP.seek("support", "ticks", "rooms.a", "-"),
    "seek_all": lambda: SHOP.seek_all("support", "ticks"),
    "want": lambda: SHOP.want("support", "ticks", "rooms.a", "-"),
    "stand": lambda: SHOP.stand("support", "ticks", "rooms.a", "-"),
    "connection": lambda: SHOP.connection("e1-7"),
    "answer": lambda: SHOP.answer("e1", "e1-7", 3, 2),
    "census": lambda: SHOP.census("e1"),
    "peer": lambda: SHOP.peer("rooms.a", "ann"),
    "edge_all": lambda: SHOP.edge_all("e1"),
    "worker": lambda: SHOP.worker("w1"),
    "handed": lambda: SHOP.handed("w1", SHOP.inbound("support", "echo", "chat", "-")),
    "handed_all": lambda: SHOP.handed_all("w1"),
    "beat": lambda: SHOP.beat("w1"),
    "beats": lambda: SHOP.beats,
    "roll": lambda: SHOP.roll,
    "errors": lambda: SHOP.errors,
    "broker": lambda: SHOP.broker,
    "report": lambda: SHOP.report,
    "inbox": lambda: [f"{SHOP.inbox(role, 'p1')}.r.1" for role in Role],
    "log": lambda: SHOP.log("rooms.a", "blue"),
    "live": lambda: SHOP.live("rooms.a", "blue"),
    "republish": lambda: SHOP.republish,
    "stream_subject": lambda: SHOP.stream_subject(topic_template("rooms.{room}")),
    "run_open": lambda: SHOP.run_open("r1"),
    "run_log": lambda: SHOP.run_log("r1"),
    "run_live": lambda: SHOP.run_live("r1"),
    "run_end": lambda: SHOP.run_end("r1"),
    "run_control": lambda: SHOP.run_control("r1"),
    "runs_stored": lambda: SHOP.runs_stored,
}

NO_SUBJECTS = {
    "workflow_of_inbound", "room_of_inbound", "inbound_of_handed",  # take one apart
    "stream", "runs", "manifests", "leases",  # names of streams and buckets
    "lease",  # a key of a bucket: see the permissions of a worker
    "run_all", "runs_all",  # filters for the streams' own API
    "runs_republish",  # a pattern of nats-server's
}  # fmt: skip


def test_the_list_above_is_all_that_subjects_makes() -> None:
    offered = {name for name in vars(Subjects) if not name.startswith("_")}
    assert offered == MADE.keys() | NO_SUBJECTS


def subjects() -> Iterator[tuple[str, str]]:
    for name, make in MADE.items():
        made = make()
        for subject in [made] if isinstance(made, str) else made:
            yield name, subject


@pytest.mark.parametrize(("name", "subject"), list(subjects()))
def test_each_subject_has_one_row(name: str, subject: str) -> None:
    assert len([lane for lane in LANES if covers(lane, subject)]) == 1


@pytest.mark.parametrize("lane", LANES)
def test_each_row_is_that_of_a_subject(lane: Lane) -> None:
    assert any(covers(lane, subject) for _, subject in subjects())


def test_the_first_levels_are_those_that_logs_may_tell() -> None:
    assert {lane.pattern.split(".")[0] for lane in LANES} == KINDS


def covers(lane: Lane, subject: str) -> bool:
    """Whether a subscription to the row's pattern gets all that this subject, or pattern, gets."""
    levels = subject.split(".")[2:]
    for place, level in enumerate(lane.pattern.split(".")):
        if level == ">":
            return place < len(levels)
        if place >= len(levels) or (level != "*" and level != levels[place]):
            return False
        if level == "*" and levels[place] == ">":
            return False
    return len(levels) == len(lane.pattern.split("."))


def test_work_is_heard_in_the_queue_group_alone() -> None:
    """Or one worker could hear what all others are given."""
    heard = permissions(SHOP, Role.WORKER).subscribe
    assert "fl.shop.in.> workers" in heard
    assert "fl.shop.in.>" not in heard


@pytest.mark.parametrize("role", Role)
def test_nobody_may_delete_a_stream_make_a_consumer_or_speak_for_another_app(role: Role) -> None:
    allowed = permissions(SHOP, role)
    for subject in (*allowed.publish, *allowed.subscribe):
        assert subject.startswith(("fl.shop.", "$JS.API.", "$KV.FL_shop_"))
        assert "DELETE" not in subject and "CONSUMER" not in subject


@pytest.mark.parametrize("role", [Role.EDGE, Role.PUBLISHER, Role.CONSOLE])
def test_only_workers_change_streams(role: Role) -> None:
    publish = " ".join(permissions(SHOP, role).publish)
    for verb in ("CREATE", "UPDATE", "PURGE", "$KV"):
        assert verb not in publish
