"""Spans in, rows and parts out; what the rows say is what a reader sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.parts import PARTS
from fairlead_console.spans import LATEST, SCOPE, Event, Link, Origin, Span
from fairlead_console.waterfall import Waterfall, waterfall
from support.spans import CLIENT, EDGE_1, EDGE_2, NOON, TRACE, USERS, WORKER, chat, ms, span

Line = tuple[int, str, str, float, float]


def lines(made: Waterfall) -> list[Line]:
    """Depth, name, part, start and end in ms."""
    return [
        (
            row["depth"], row["name"], row["part"], round(row["start"] * 1000, 6),
            round((row["start"] + row["duration"]) * 1000, 6),
        )
        for row in made["rows"]
    ]  # fmt: skip


def drawn(*spans: Span) -> list[Line]:
    return lines(waterfall(TRACE, spans))


def shares(*spans: Span) -> dict[str, float]:
    """ms of each part that has any."""
    found = waterfall(TRACE, spans)["parts"]
    return {part: round(share * 1000, 6) for part, share in found.items() if share}


def test_a_message_is_seen_on_its_whole_way() -> None:
    made = waterfall(TRACE, chat())
    assert lines(made) == [
        (0, "receive rooms.{room}", "edge", 0, 10),
        (1, "queue", "queue", 0.3, 1),
        (1, "process rooms.{room}", "user", 1, 9.5),
        (2, "look it up", "user", 1.5, 2.5),
        (2, "publish rooms.{room}", "broker", 3, 3.2),
        (3, "broker", "broker", 3, 5),
        (3, "deliver rooms.{room}", "edge", 5, 5.4),
        (3, "broker", "broker", 3, 6),
        (3, "deliver rooms.{room}", "edge", 6, 8),
        (4, "slow", "slow", 6.3, 8),
    ]
    assert (made["trace"], made["name"], made["start"]) == (TRACE, "receive rooms.{room}", NOON)
    assert (made["duration"], made["spans"], made["error"], made["notes"]) == (0.01, 6, False, [])


def test_each_moment_belongs_to_the_innermost_row() -> None:
    assert shares(*chat()) == {
        "edge": 0.3 + 0.4 + 0.3 + 0.5,  # before the queue, two deliveries, after the worker
        "queue": 0.7,
        "broker": 2.0 + 0.6,
        "user": 2.0 + 3.2,  # slow sockets count only while nothing else goes on
    }


def test_a_slow_socket_counts_when_nothing_else_goes_on() -> None:
    assert shares(
        span("b3", "publish t", 0, 1, WORKER),
        span("d1", "deliver t", 2, 10, EDGE_2, "b3", slow=2, written=0.001),
    ) == {"broker": 2, "edge": 1, "slow": 7}


def test_a_delivery_that_ends_when_it_was_written_has_no_slow_row() -> None:
    cases: list[dict[str, Any]] = [
        {"slow": 1},
        {"slow": 0, "written": 0.001},
        {"slow": 1, "written": 0.008},
        {"slow": 1, "written": "x"},
    ]
    for attributes in cases:
        d1 = span("d1", "deliver t", 2, 10, EDGE_2, **attributes)
        slow = [line for line in drawn(d1) if line[1] == "slow"]
        assert len(slow) == (attributes.get("written") == "x"), attributes


def test_rows_hold_what_a_span_says() -> None:
    event = Event("first item", NOON + ms(2), {"n": 1})
    link = Link("aa", "bb", {"why": "replay"})
    process = span("b1", "process t", 1, 4, WORKER, links=(link,), events=(event,), error=True)
    made = waterfall(TRACE, [process])
    assert made["error"] is True
    assert made["rows"] == [
        {
            "name": "process t",
            "part": "user",
            "service": "fairlead-worker",
            "instance": "77aa01cd",
            "depth": 0,
            "start": 0.0,
            "duration": 0.003,
            "attributes": {"messaging.system": "nats"},
            "events": [{"name": "first item", "time": 0.001, "attributes": {"n": 1}}],
            "links": [{"trace": "aa", "span": "bb", "attributes": {"why": "replay"}}],
            "error": True,
            "span": "b1",
        }
    ]


def test_only_our_spans_are_taken_for_ours() -> None:
    """A user's own `process order`, and another instrumentation of NATS, are user code."""
    theirs = replace(
        span("b2", "publish t", 1, 2, USERS, "b1"), attributes={"messaging.system": "nats"}
    )
    order = span("b3", "process order", 2, 3, USERS, "b1")
    made = drawn(span("b1", "process t", 0, 4, WORKER), theirs, order)
    assert [line[2] for line in made] == ["user", "user", "user"]


def test_where_no_scope_is_told_the_messaging_system_tells_ours() -> None:
    unscoped = [replace(each, origin=replace(each.origin, scope="")) for each in chat()]
    assert drawn(*unscoped) == drawn(*chat())


def test_a_clients_own_span_is_other_and_only_where_nothing_of_ours_is() -> None:
    client = span("c0ffee", "send", -5, 12, CLIENT)
    made = waterfall(TRACE, [client, *chat()])
    assert [line[:3] for line in lines(made)][:2] == [
        (0, "send", "other"),
        (1, "receive rooms.{room}", "edge"),
    ]
    assert made["parts"]["other"] == pytest.approx(0.007)
    assert made["name"] == "receive rooms.{room}", "of the message, not of who sent it"


def test_a_span_of_the_clients_below_a_delivery_is_not_user_code() -> None:
    shown = span("c1", "show", 5.4, 6, CLIENT, "a2")
    assert [line[2] for line in drawn(*chat(), shown) if line[1] == "show"] == ["other"]


# What is missing


def retried(*more: Span, attempt: int = 3) -> list[Span]:
    return [
        span("a1", "receive t", 0, 20, EDGE_1, attempt=attempt),
        span("b1", "process t", 15, 19, WORKER, "a1", attempt=attempt, queue_wait=0.001),
        *more,
    ]


def test_attempts_that_were_lost_are_shown_as_a_gap() -> None:
    """A worker that is killed exports nothing: what is known is when the edge tried again."""
    made = waterfall(TRACE, retried())
    assert lines(made) == [
        (0, "receive t", "edge", 0, 20),
        (1, "attempts 1-2", "other", 0, 14),
        (1, "queue", "queue", 14, 15),
        (1, "process t", "user", 15, 19),
    ]
    assert made["notes"] == [
        "attempts 1-2 left no span: its worker was killed or hung, "
        "or what it recorded has not arrived"
    ]
    assert made["parts"]["other"] == 0.014


def told(attempt: Any, at: float, reason: str = "no beat", worker: str = "77aa01cd") -> Event:
    attributes = {
        "fairlead.attempt": attempt, "fairlead.reason": reason, "fairlead.worker": worker,
    }  # fmt: skip
    return Event("attempt lost", NOON + ms(at), attributes)


def test_what_the_edge_says_of_a_lost_attempt_is_told() -> None:
    receive, process = retried()
    receive = replace(receive, events=(told(2, 13), told(1, 6, "no answer", ""), told("x", 1)))
    made = waterfall(TRACE, [receive, process])
    assert lines(made)[1:4] == [
        (1, "attempt 1", "other", 0, 6),
        (1, "attempt 2", "other", 6, 13),
        (1, "queue", "queue", 14, 15),
    ]
    assert [row["instance"] for row in made["rows"][1:3]] == ["", "77aa01cd"]
    assert made["rows"][2]["attributes"] == told(2, 13).attributes
    assert made["notes"] == [
        "attempt 1 left no span: no answer",
        "attempt 2 left no span: no beat of worker 77aa01cd",
    ]
    assert made["parts"]["other"] == 0.013


def test_attempts_of_which_only_some_are_told() -> None:
    receive, process = retried(attempt=5)
    receive = replace(receive, events=(told(2, 6),))
    assert drawn(receive, process)[1:3] == [
        (1, "attempts 1-2", "other", 0, 6),
        (1, "attempts 3-4", "other", 6, 14),
    ]


def test_an_attempt_that_was_handed_over_has_its_span() -> None:
    receive, process = retried(attempt=2)
    first = span("b0", "process t", 1, 13, WORKER, "a1", attempt=1)
    receive = replace(receive, events=(told(1, 13, "handed over"),))
    assert not [line for line in drawn(receive, process, first) if "attempt" in line[1]]


def test_policies_are_asked_again_too() -> None:
    connect = span("a1", "connect t", 0, 20, EDGE_1, attempt=2)
    check = span("b1", "process t", 15, 19, WORKER, "a1", attempt=2, queue_wait=0.001)
    assert drawn(connect, check) == [
        (0, "connect t", "edge", 0, 20),
        (1, "attempt 1", "other", 0, 14),
        (1, "queue", "queue", 14, 15),
        (1, "process t", "user", 15, 19),
    ]


def test_one_between_two_that_are_known() -> None:
    first = span("b0", "process t", 1, 3, WORKER, "a1", attempt=1)
    assert [line for line in drawn(*retried(first)) if line[1].startswith("attempt")] == [
        (1, "attempt 2", "other", 3, 14)
    ]


def test_the_last_that_nobody_answered() -> None:
    receive = span("a1", "receive t", 0, 20, EDGE_1, attempt=2)
    first = span("b0", "process t", 1, 3, WORKER, "a1", attempt=1)
    assert drawn(receive, first)[-1] == (1, "attempt 2", "other", 3, 20)


def test_what_a_lost_attempt_did_send_is_shown_below_it() -> None:
    """Its own span is gone, but what ended before the kill may have been exported."""
    orphans = [
        span("e2", "look it up", 2, 3, USERS, "e1"),
        span("e3", "publish t", 4, 4.2, WORKER, "e1"),
        span("d9", "deliver t", 5, 6, EDGE_2, "e3"),
    ]
    assert drawn(*retried(*orphans, attempt=2))[1:6] == [
        (1, "attempt 1", "other", 0, 14),
        (2, "look it up", "user", 2, 3),
        (2, "publish t", "broker", 4, 4.2),
        (3, "broker", "broker", 4, 5),
        (3, "deliver t", "edge", 5, 6),
    ]


def test_an_orphan_is_not_put_under_a_lost_attempt_of_its_own() -> None:
    """Or it would hang below itself, and be seen nowhere."""
    made = drawn(
        span("c1", "send", 0, 1, CLIENT),
        span("a1", "receive t", 5, 9, EDGE_1, "gone", attempt=2),
    )
    assert [line[:2] for line in made] == [
        (0, "send"),
        (0, "a span that is not here"),
        (1, "receive t"),
        (2, "attempts 1-2"),
    ]


def test_orphans_stand_under_a_row_for_their_parent() -> None:
    made = drawn(
        span("a1", "receive t", 0, 1, EDGE_1, "c0ffee"),
        span("d1", "deliver t", 5, 6, EDGE_1, "b3"),
        span("d2", "deliver t", 5.5, 7, EDGE_2, "b3"),
    )
    assert made == [
        (0, "receive t", "edge", 0, 1),
        (0, "a span that is not here", "other", 5, 7),
        (1, "deliver t", "edge", 5, 6),
        (1, "deliver t", "edge", 5.5, 7),
    ]


def test_time_that_no_span_covers_is_other() -> None:
    assert shares(span("b3", "publish t", 0, 1, WORKER), span("d1", "connect t", 5, 6, EDGE_1)) == {
        "broker": 1,
        "other": 4,
        "edge": 1,
    }


def test_several_roots_stand_one_under_the_other() -> None:
    made = drawn(span("d1", "connect t", 5, 6, EDGE_1), span("b3", "publish t", 0, 1, WORKER))
    assert [line[:2] for line in made] == [(0, "publish t"), (0, "connect t")]


def test_what_was_not_kept_is_told() -> None:
    made = waterfall(TRACE, chat(), more=3000)
    assert made["notes"] == ["3000 more spans were not kept"]
    assert made["spans"] == 3006


# Clocks


def moved(by: float, origin: Origin) -> list[Span]:
    """The chat, with one process' clock off by so many ms."""
    return [
        replace(each, start=each.start + ms(by), end=each.end + ms(by))
        if each.origin.instance == origin.instance
        else each
        for each in chat()
    ]


@pytest.mark.parametrize("by", [-50, 50])
def test_a_clock_that_is_wrong_is_corrected_and_told(by: float) -> None:
    made = waterfall(TRACE, moved(by, WORKER))
    rows = {row["name"].partition(" ")[0]: row for row in made["rows"]}
    assert rows["receive"]["start"] == 0, "the clock of the first span is the one that counts"
    assert rows["receive"]["start"] <= rows["process"]["start"]
    assert rows["publish"]["start"] <= rows["deliver"]["start"]
    assert made["duration"] == pytest.approx(0.01, abs=0.002)
    (note,) = made["notes"]
    assert note.startswith("the clock of fairlead-worker 77aa01cd is ")
    assert ("behind" if by < 0 else "ahead") in note


def test_clocks_that_agree_well_enough_are_left_alone() -> None:
    assert waterfall(TRACE, moved(0.2, WORKER))["notes"] == []


# Whatever is sent

ORIGINS = [EDGE_1, EDGE_2, WORKER, USERS, CLIENT, Origin()]
NAMES = ["receive t", "process t", "publish t", "deliver t", "nats hop", "connect /x", "mine", ""]
IDS = st.sampled_from("abcdef")
NUMBERS = st.one_of(
    st.integers(-2, 5), st.floats(-1, 20), st.sampled_from([float("nan"), float("inf"), "x", True])
)
TIMES = st.one_of(st.integers(0, 50), st.just(LATEST - 1))


EVENTS = st.lists(
    st.builds(
        lambda time, attempt: Event("attempt lost", time, {"fairlead.attempt": attempt}),
        TIMES, NUMBERS,
    ),
    max_size=2,
)  # fmt: skip


@st.composite
def any_span(draw: st.DrawFn) -> Span:
    keys = ["attempt", "queue.wait", "written", "slow"]
    attributes: dict[str, Any] = {
        f"fairlead.{key}": draw(NUMBERS) for key in draw(st.sets(st.sampled_from(keys)))
    }
    return Span(
        draw(IDS), draw(IDS | st.just("")), draw(st.sampled_from(NAMES)), draw(TIMES), draw(TIMES),
        draw(st.sampled_from(ORIGINS)), attributes, tuple(draw(EVENTS)),
        (Link(TRACE, draw(IDS)),), draw(st.booleans()),
    )  # fmt: skip


@given(st.lists(any_span(), min_size=1, max_size=12))
def test_any_set_of_spans_makes_a_picture(spans: list[Span]) -> None:
    made = waterfall(TRACE, spans)
    ids = {each.id for each in spans}
    assert sorted(row["span"] for row in made["rows"] if row["span"] is not None) == sorted(ids)
    assert set(made["parts"]) == set(PARTS) >= {row["part"] for row in made["rows"]}
    assert all(share >= 0 for share in made["parts"].values())
    assert sum(made["parts"].values()) == pytest.approx(made["duration"], rel=1e-9, abs=1e-9)
    above = -1
    for row in made["rows"]:
        assert 0 <= row["depth"] <= above + 1, "below what stands above it"
        above = row["depth"]
        assert row["start"] >= 0
        assert row["duration"] >= 0
        assert row["start"] + row["duration"] <= made["duration"] * (1 + 1e-9)
    assert orjson.loads(orjson.dumps(made))["rows"]


@given(st.permutations(chat()))
def test_the_order_of_arrival_does_not_matter(spans: list[Span]) -> None:
    assert waterfall(TRACE, spans) == waterfall(TRACE, chat())


def test_a_thousand_spans_one_below_the_other() -> None:
    chain = [span(str(i), "mine", i, 2000 - i, USERS, str(i - 1) if i else "") for i in range(1000)]
    assert lines(waterfall(TRACE, chain))[-1][0] == 999


def test_the_scope_is_the_one_our_tracer_has() -> None:
    """What the console takes for ours is what `telemetry.setup` makes."""
    from fairlead import telemetry

    tracing = telemetry.setup("edge", "1", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert tracing is not None
    try:
        scope = tracing._tracer._instrumentation_scope  # type: ignore[attr-defined]  # of the SDK
        assert scope.name == SCOPE
    finally:
        tracing.shutdown()
