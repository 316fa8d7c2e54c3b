from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import BadName
from fairlead.protocol import names

FORGERIES = [
    "a.b",
    ">",
    "*",
    " ",
    "a b",
    "",
    "x" * 65,
    "a\n",
    "\nPUB x 0",
    "a\r\nb",
    "é",
    "a/b",
    "٣",
]
"""Channel names that would be more than one NATS token, a wildcard, or a command."""


@pytest.mark.parametrize(
    ("feature", "tag", "path", "endpoint"),
    [
        ("Support", "realtime", "/errors", "/support/realtime/errors"),
        ("UsersFeature", "real-time", "/", "/users-feature/real_time"),
        ("HTTPServer", "RealTime", "/logs/{id}", "/http-server/real_time/logs/{id}"),
    ],
)
def test_the_endpoint_rule(feature: str, tag: str, path: str, endpoint: str) -> None:
    """Section 4's table, word for word."""
    assert names.endpoint(feature, tag, path) == endpoint


@pytest.mark.parametrize(
    ("written", "kebab", "snake"),
    [
        ("Support", "support", "support"),
        ("UsersFeature", "users-feature", "users_feature"),
        ("HTTPServer", "http-server", "http_server"),
        ("myHTTPServer2Go", "my-http-server2-go", "my_http_server2_go"),
        ("real-time", "real-time", "real_time"),
        ("real_time", "real-time", "real_time"),
        ("Real Time", "real-time", "real_time"),
        ("real.time", "real-time", "real_time"),
        ("a -._ b", "a-b", "a_b"),
        ("A-", "a", "a"),
        ("x", "x", "x"),
    ],
)
def test_kebab_and_snake_case(written: str, kebab: str, snake: str) -> None:
    assert names.kebab_case(written) == kebab
    assert names.snake_case(written) == snake


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9 ._-]*", fullmatch=True))
def test_a_name_in_either_case_is_one_token_and_one_segment(text: str) -> None:
    """It may be long, so the limit of 64 is left aside."""
    assert names.name("feature", text) == text
    for cased in (names.kebab_case(text), names.snake_case(text)):
        assert cased
        assert set(cased) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("text", ["", "1st", "-a", " a", "a/b", "a\n", "é", "a{b}", None, 5])
def test_a_feature_a_tag_or_a_workflow_cannot_be_called_so(text: Any) -> None:
    with pytest.raises(BadName, match="expected a letter, then letters, digits") as refused:
        names.name("tag", text)
    assert str(refused.value).startswith(f"tag {text!r} is not a name")


@pytest.mark.parametrize("text", ["-", "_", "blue", "Blue-2_x", "0", "x" * 64])
def test_channel_names(text: str) -> None:
    assert names.channel(text) == text


@pytest.mark.parametrize("text", FORGERIES)
def test_a_channel_name_that_would_forge_a_nats_subject_is_refused(text: str) -> None:
    with pytest.raises(BadName, match="expected 1 to 64 letters, digits, '-' or '_'"):
        names.channel(text)


def test_a_refusal_quotes_no_more_than_80_characters_of_a_name() -> None:
    with pytest.raises(BadName) as refused:
        names.channel("x" * 10_000)
    assert "x" * 80 in str(refused.value)
    assert "x" * 81 not in str(refused.value)


@given(st.one_of(st.text(), st.text("ab-_.*> \n", max_size=66)))
def test_what_is_accepted_as_a_channel_is_one_nats_token(text: str) -> None:
    try:
        names.channel(text)
    except BadName:
        return
    assert text
    assert text.isascii()
    assert not set(text) & set(".*> \t\r\n\0$")


@pytest.mark.parametrize(
    ("topic", "levels", "parameters"),
    [
        ("chat", ("chat",), ()),
        ("rooms.{room}", ("rooms", "{room}"), ("room",)),
        ("{a}.{b_2}.x-y", ("{a}", "{b_2}", "x-y"), ("a", "b_2")),
    ],
)
def test_topic_templates(topic: str, levels: tuple[str, ...], parameters: tuple[str, ...]) -> None:
    assert names.topic_template(topic) == levels
    assert names.parameters(levels) == parameters


@pytest.mark.parametrize(
    "topic",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a.*",
        ">",
        "a b",
        "a\n",
        "a-{b}",
        "{}",
        "{a b}",
        "{a}.{a}",
        "é",
        "{1}",
        "x" * 65,
        None,
        5,
    ],
)
def test_a_topic_is_refused_by_name(topic: Any) -> None:
    with pytest.raises(
        BadName, match=r"a whole level may be a \{parameter\}, each once"
    ) as refused:
        names.topic_template(topic)
    assert str(refused.value).startswith(f"topic {topic!r} is not a topic")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("chat", "chat", True),
        ("chat", "news", False),
        ("rooms.{room}", "rooms.blue", True),
        ("rooms.{room}", "rooms.{name}", True),
        ("rooms.{room}", "news.{name}", False),
        ("{a}.x", "y.{b}", True),
        ("{a}.x", "y.z", False),
        ("rooms", "rooms.{room}", False),
    ],
)
def test_two_topics_that_can_match_one_name(one: str, other: str, both: bool) -> None:
    levels, others = names.topic_template(one), names.topic_template(other)
    assert names.overlap(levels, others) is both
    assert names.overlap(others, levels) is both


def test_a_topic_with_its_parameters_filled_in() -> None:
    levels = names.topic_template("rooms.{room}.{part}")
    assert names.fill(levels, {"room": "blue", "part": "-", "id": "a.b"}) == "rooms.blue.-"


@pytest.mark.parametrize("value", FORGERIES)
def test_a_parameter_that_would_forge_a_nats_subject_is_refused(value: str) -> None:
    with pytest.raises(BadName, match=r"room .* may not stand in a topic; expected 1 to 64"):
        names.fill(names.topic_template("rooms.{room}"), {"room": value})


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", ()),
        ("/echo", ("echo",)),
        ("/logs/{id}", ("logs", "{id}")),
        ("/a.b/c~d/{x}/{y}", ("a.b", "c~d", "{x}", "{y}")),
        ("/...", ("...",)),
    ],
)
def test_paths(path: str, segments: tuple[str, ...]) -> None:
    assert names.path_template(path) == segments


@pytest.mark.parametrize(
    "path",
    [
        "",
        "echo",
        "/echo/",
        "//",
        "/a//b",
        "/..",
        "/a/../b",
        "/.",
        "/a/./b",
        "/%2e%2e",
        "/a b",
        "/a\n",
        "/é",
        "/a?b",
        "/x{id}",
        "/{}",
        "/{a-b}",
        "/{1}",
        None,
        5,
    ],
)
def test_a_path_is_refused_by_name(path: Any) -> None:
    with pytest.raises(BadName, match=r"such as '/logs/\{id\}'.* without '..' or a trailing slash"):
        names.path_template(path)


def test_a_path_names_a_parameter_once() -> None:
    with pytest.raises(BadName, match=r"'/{a}/{a}' names a parameter twice"):
        names.path_template("/{a}/{a}")


@pytest.mark.parametrize(
    ("feature", "tag", "path"), [("1", "a", "/"), ("a", "1", "/"), ("a", "a", "/x/")]
)
def test_an_endpoint_is_made_of_good_names_only(feature: str, tag: str, path: str) -> None:
    with pytest.raises(BadName):
        names.endpoint(feature, tag, path)
