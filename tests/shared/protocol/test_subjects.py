from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import BadName, Malformed
from fairlead.protocol import subjects
from fairlead.protocol.names import topic_template
from fairlead.protocol.subjects import (
    WORKERS,
    Answer,
    Subjects,
    as_made,
    kind_of,
    parse_answer,
    shortened,
)

SHOP = Subjects("shop")

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
TOPICS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
EDGES = st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True)
COUNTS = st.integers(min_value=0, max_value=2**63)


@pytest.mark.parametrize(
    ("made", "subject"),
    [
        (SHOP.inbound("support", "echo", "chat", "blue"), "fl.shop.in.support.echo.chat.blue"),
        (SHOP.inbound("support", "echo", "rooms.a", "-"), "fl.shop.in.support.echo.rooms.a.-"),
        (SHOP.inbound_all("support", "echo"), "fl.shop.in.support.echo.>"),
        (SHOP.seek("support", "ticks", "rooms.a", "-"), "fl.shop.seek.support.ticks.rooms.a.-"),
        (SHOP.seek_all("support", "ticks"), "fl.shop.seek.support.ticks.>"),
        (SHOP.want("support", "ticks", "rooms.a", "-"), "fl.shop.want.support.ticks.rooms.a.-"),
        (SHOP.stand("support", "ticks", "rooms.a", "-"), "fl.shop.stand.support.ticks.rooms.a.-"),
        (SHOP.leases, "FL_shop_leases"),
        (SHOP.lease("support", "ticks", "chat", "b"), "$KV.FL_shop_leases.support.ticks.chat.b"),
        (SHOP.connection("e1-7"), "fl.shop.edge.e1.e1-7"),
        (SHOP.answer("e1", "e1-7", 3, 2), "fl.shop.edge.e1.e1-7.3.2"),
        (SHOP.edge_all("e1"), "fl.shop.edge.e1.>"),
        (SHOP.worker("w1"), "fl.shop.worker.w1"),
        (SHOP.beat("w1"), "fl.shop.beat.w1"),
        (SHOP.beats, "fl.shop.beat.*"),
        (SHOP.roll, "fl.shop.roll"),
        (SHOP.inbox("edge", "e1"), "fl.shop.inbox.edge.e1"),
        (SHOP.log("chat", "blue"), "fl.shop.log.chat.blue"),
        (SHOP.live("rooms.a", "-"), "fl.shop.live.rooms.a.-"),
        (SHOP.republish, ("fl.shop.log.>", "fl.shop.live.>")),
        (SHOP.stream_subject(topic_template("rooms.{room}")), "fl.shop.log.rooms.*.*"),
        (SHOP.stream("rooms.{room}"), "FL_shop_rooms-room_39a58ac5"),
        (SHOP.manifests, "FL_shop_manifests"),
        (WORKERS, "workers"),
        (SHOP.broker, "fl.shop.broker"),
        (subjects.EDGES, "edges"),
    ],
)
def test_each_subject(made: str | tuple[str, str], subject: str | tuple[str, str]) -> None:
    """A promise to processes that run already, to permissions, and to whoever uses `nats pub`."""
    assert made == subject


@pytest.mark.parametrize("app", ["", "a.b", "*", ">", "a b", "x" * 65, "a\n"])
def test_an_app_that_would_forge_a_subject_is_refused(app: str) -> None:
    with pytest.raises(BadName, match="is not an app's name; expected 1 to 64 letters"):
        Subjects(app)


@given(TOKENS, TOKENS, TOPICS, TOKENS)
def test_the_room_of_an_inbound_message_round_trip(
    feature: str, workflow: str, topic: str, channel: str
) -> None:
    for subject in (
        SHOP.inbound(feature, workflow, topic, channel),
        SHOP.seek(feature, workflow, topic, channel),
    ):
        assert SHOP.room_of_inbound(subject) == (topic, channel)


@given(TOPICS)
def test_work_for_one_worker_is_what_any_could_have_had(topic: str) -> None:
    inbound = SHOP.inbound("support", "echo", topic, "blue")
    handed = SHOP.handed("w1", inbound)
    assert handed.startswith(SHOP.handed_all("w1").removesuffix(">"))
    assert SHOP.inbound_of_handed(handed) == inbound
    assert SHOP.workflow_of_inbound(inbound) == ("support", "echo")


@pytest.mark.parametrize("subject", ["", "fl.shop.in.support.echo", "fl.shop.in.support.echo.chat"])
def test_a_subject_that_names_no_room_is_malformed(subject: str) -> None:
    with pytest.raises(Malformed, match="is no subject of a message"):
        SHOP.room_of_inbound(subject)


@given(EDGES, COUNTS, COUNTS, COUNTS)
def test_the_answer_to_an_attempt_round_trip(
    edge: str, number: int, message: int, attempt: int
) -> None:
    connection = f"{edge}-{number}"
    subject = SHOP.answer(edge, connection, message, attempt)
    assert parse_answer(subject) == Answer(connection, message, attempt)


@given(EDGES, COUNTS)
def test_a_connection_round_trip(edge: str, number: int) -> None:
    """A connection's id holds its edge, so that whoever has the id can reach it."""
    connection = f"{edge}-{number}"
    subject = SHOP.connection(connection)
    assert subject.startswith(SHOP.edge_all(edge).removesuffix(">"))
    assert parse_answer(subject) == connection


@pytest.mark.parametrize(
    "text", ["", "e1", "-", "-7", "e1-7.3", "e1-*", ">-1", "e1-7\n", "e1 -7", "e-" + "7" * 63]
)
def test_what_is_no_connection_id_makes_no_subject(text: str) -> None:
    """It comes from user code (`direct(to, …)`), which may have it from a client."""
    with pytest.raises(BadName, match="is no connection id"):
        SHOP.connection(text)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "fl.shop.edge.e1",
        "fl.shop.edge.e1.c.1",
        "fl.shop.edge.e1.c.1.x",
        "fl.shop.edge.e1.c.1.2.3",
    ],
)
def test_a_subject_of_another_shape_is_no_answer(subject: str) -> None:
    with pytest.raises(Malformed, match="is no subject of an answer"):
        parse_answer(subject)


@given(st.text())
def test_no_text_is_anything_but_an_answer_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        parse_answer(text)


def test_topics_that_read_alike_have_streams_of_their_own() -> None:
    streams = {SHOP.stream("a.b"), SHOP.stream("a-b"), Subjects("other").stream("a.b")}
    assert len(streams) == 3


@given(TOPICS)
def test_a_stream_is_named_without_what_nats_forbids_there(topic: str) -> None:
    assert not set(SHOP.stream(topic)) & set(".*> /\\{}")


# For logs: what clients chose is not told


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("fl.shop.edge.e1.e1-1", "edge"),
        ("fl.shop.beat.w1", "beat"),
        ("fl.shop.roll", "roll"),
        ("fl.shop.secret.x", "other"),
        ("fl.shop", "other"),
        ("secret", "other"),
        ("xx.shop.in.secret", "other"),
    ],
)
def test_the_kind_of_a_subject_is_one_of_a_few_words(subject: str, kind: str) -> None:
    assert kind_of(subject) == kind


def test_every_subject_that_is_made_has_a_kind() -> None:
    for made in (
        SHOP.inbound("f", "w", "t", "c"), SHOP.seek("f", "w", "t", "c"), SHOP.want("f", "w", "t", "c"),
        SHOP.stand("f", "w", "t", "c"), SHOP.answer("e", "e-1", 1, 1), SHOP.census("e"),
        SHOP.peer("t", "who"), SHOP.worker("w"), SHOP.beat("w"), SHOP.roll, SHOP.errors,
        SHOP.log("t", "c"), SHOP.live("t", "c"), SHOP.run_open("r"), SHOP.inbox("edge", "e"),
    ):  # fmt: skip
        assert kind_of(made) != "other", made


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fl.shop.log.rooms.a.b: no answer for 30 s", "fl.shop.log.…: no answer for 30 s"),
        ("fl.shop.log.rooms.x:y z", "fl.shop.log.… z"),
        ('permissions violation for publish to "fl.shop.log.a"', 'permissions violation for publish to "fl.shop.log.…"'),
        ("$KV.FL_shop_leases.f.w.secret.-: refused", "$KV.FL_shop_leases.…: refused"),
        ("$JS.API.DIRECT.GET.FL_shop_t_1.fl.shop.log.a.b", "$JS.API.DIRECT.GET.FL_shop_t_1.fl.shop.log.…"),
        ("stream FL_shop_RUNS does not answer", "stream FL_shop_RUNS does not answer"),
        ("fl.shop.roll", "fl.shop.roll"),
    ],
)  # fmt: skip
def test_a_text_is_shortened_by_what_is_behind_the_kind(text: str, told: str) -> None:
    assert shortened(text) == told


def test_a_run_s_id_is_told_if_an_edge_has_made_it() -> None:
    assert as_made("91c0780f-1db1dca2d-2") == "91c0780f-1db1dca2d-2"
    assert as_made("secret") == "other"
