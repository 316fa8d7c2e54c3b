from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import BadName
from fairlead.protocol.manifest import History, Manifest, Route
from fairlead_edge.routes import WEBSOCKET, Match, RouteTable, names_of, room_of


def route(
    endpoint: str,
    *methods: str,
    topic: str = "",
    workflow: str = "w",
    deliver: Literal["sender", "topic", "others"] = "sender",
) -> Route:
    """An SSE route if it has methods, else a websocket route."""
    transport: Literal["sse", "websocket"] = "sse" if methods else "websocket"
    return Route(
        *("f", workflow, f"F/{workflow}"), transport, endpoint, methods, topic, deliver=deliver
    )


def table(*routes: Route) -> RouteTable:
    return RouteTable([Manifest(routes)])


def test_a_request_finds_its_route() -> None:
    echo, logs = route("/s/r/echo"), route("/s/r/logs/{id}/{part}", "GET", "POST")
    found = table(echo, logs)
    assert found.find(b"/s/r/echo", WEBSOCKET) == Match(echo, {})
    for method in ("GET", "POST"):
        assert found.find(b"/s/r/logs/7/b", method) == Match(logs, {"id": "7", "part": "b"})


@pytest.mark.parametrize("reverse", [False, True])
def test_a_literal_beats_a_parameter_in_whatever_order_they_are_declared(reverse: bool) -> None:
    routes = [route("/s/r/logs/{id}", "GET"), route("/s/r/logs/all", "GET")]
    found = table(*routes[:: -1 if reverse else 1])
    assert found.find(b"/s/r/logs/all", "GET") == Match(routes[1], {})
    assert found.find(b"/s/r/logs/7", "GET") == Match(routes[0], {"id": "7"})


def test_the_first_literal_decides() -> None:
    early, late = route("/s/r/a/{y}", "GET"), route("/s/r/{x}/b", "GET")
    found = table(late, early)
    assert found.find(b"/s/r/a/b", "GET") == Match(early, {"y": "b"})
    assert found.find(b"/s/r/c/b", "GET") == Match(late, {"x": "c"})


def test_a_parameter_answers_where_the_literal_does_not_serve_the_method() -> None:
    literal, parameter = route("/s/r/all", "GET"), route("/s/r/{id}", "POST")
    assert table(literal, parameter).find(b"/s/r/all", "POST") == Match(parameter, {"id": "all"})


def test_sse_and_websocket_may_share_a_path() -> None:
    stream, socket = route("/s/r/chat", "GET"), route("/s/r/chat")
    found = table(stream, socket)
    assert found.find(b"/s/r/chat", "GET") == Match(stream, {})
    assert found.find(b"/s/r/chat", WEBSOCKET) == Match(socket, {})


def test_a_path_that_is_asked_in_the_wrong_way_says_in_which_ways_it_can_be() -> None:
    found = table(route("/s/r/{a}", "GET"), route("/s/r/x", "POST"), route("/s/r/x"))
    assert found.find(b"/s/r/x", "PUT") == frozenset({"GET", "POST", WEBSOCKET})
    assert found.find(b"/s/r/y", "POST") == frozenset({"GET"})


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"*",
        b"/s",
        b"/s/r",
        b"/s/r/echo/",  # a trailing slash
        b"/s/r/logs/",
        b"/s/r//echo",
        b"//s/r/echo",
        b"/S/r/echo",
        b"/s/r/logs/7/8",
        b"/s/r/../r/echo",
        b"/s/r/logs/..",
        b"/s/r/logs/.",
        b"/s/r/logs/%2e%2e",
        b"/s/r/logs/%2E.",
        b"/s/r/logs/%2e",
        b"/s/r/./echo",
        b"/s/r%2Fecho",
        b"/s/r/logs/\xff",
        b"/s/r/logs/%ff",  # not UTF-8
        "/s/r/logs/é".encode(),
    ],
)
def test_an_unknown_path_can_be_asked_in_no_way(path: bytes) -> None:
    assert table(route("/s/r/echo"), route("/s/r/logs/{id}")).find(path, WEBSOCKET) == frozenset()


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"7", "7"),
        (b"a%2Fb", "a/b"),
        (b"a%2F..", "a/.."),
        (b"%C3%A9", "é"),
        (b"a%20b+c", "a b+c"),
        (b"%zz", "%zz"),
        (b"%252F", "%2F"),
        (b"...", "..."),
        (b"{id}", "{id}"),
    ],
)
def test_each_segment_is_decoded_by_itself_and_once(sent: bytes, value: str) -> None:
    """So a "%2F" is no "/" between segments."""
    logs = route("/s/r/logs/{id}", "GET")
    assert table(logs).find(b"/s/r/logs/" + sent, "GET") == Match(logs, {"id": value})


def test_a_literal_may_come_percent_encoded() -> None:
    echo = route("/s/r/echo")
    assert table(echo).find(b"/s/r/%65cho", WEBSOCKET) == Match(echo, {})


def test_the_newest_build_wins_a_conflict() -> None:
    old = Manifest((route("/s/r/{id}", "GET", "POST"),), {"chat": History(1), "old": History(2)})
    new = Manifest((route("/s/r/{name}", "GET", workflow="v2"),), {"chat": None})
    found = RouteTable([new, old])
    assert found.find(b"/s/r/7", "GET") == Match(new.routes[0], {"name": "7"})
    assert found.find(b"/s/r/7", "POST") == Match(old.routes[0], {"id": "7"})
    assert found.topics == {"chat": None, "old": History(2)}


def test_the_routes_of_all_builds_are_served_each_once() -> None:
    shared = route("/s/r/echo")
    both = route("/s/r/both", "GET", "POST")
    old, new = route("/s/r/old", "GET"), route("/s/r/new", "GET")
    found = RouteTable([Manifest((shared, new, both)), Manifest((shared, old))])
    routes = list(found)
    assert len(routes) == 4
    assert set(routes) == {shared, both, old, new}


def test_a_route_is_served_until_it_or_an_option_of_it_changes() -> None:
    before = route("/s/r/echo", deliver="sender")
    after = route("/s/r/echo", deliver="topic")
    assert table(before).serves(before)
    assert not table(after).serves(before)
    assert not RouteTable().serves(before)


def test_without_builds_there_is_nothing() -> None:
    empty = RouteTable()
    assert list(empty) == []
    assert empty.topics == {}
    assert empty.find(b"/s/r/echo", WEBSOCKET) == frozenset()


@given(st.binary(), st.sampled_from(["GET", WEBSOCKET]))
def test_no_path_raises(path: bytes, way: str) -> None:
    found = table(route("/s/{x}", "GET"), route("/{x}"))
    assert isinstance(found.find(b"/" + path, way), Match | frozenset)


def test_the_names_of_an_endpoints_segments() -> None:
    assert names_of("/s/r/{id}/x/{part}") == ["", "", "id", "", "part"]


# Which room a request means

CHAT = Match(route("/s/r/chat", topic="chat"), {})
ROOMS = Match(route("/s/r/{room}", topic="rooms.{room}"), {"room": "blue", "more": "x"})


@pytest.mark.parametrize(
    ("match", "channels", "room"),
    [
        (CHAT, [], ("chat", "-")),
        (CHAT, ["-"], ("chat", "-")),
        (CHAT, ["blue"], ("chat", "blue")),
        (ROOMS, [], ("rooms.blue", "-")),
        (ROOMS, ["red"], ("rooms.blue", "red")),
        (Match(route("/s/r/ask", "GET"), {}), ["red"], ("-", "red")),
    ],
)
def test_the_room_is_the_topic_and_the_channel(
    match: Match, channels: list[str], room: tuple[str, str]
) -> None:
    assert room_of(match, channels) == room


def test_a_connection_has_one_channel() -> None:
    with pytest.raises(BadName, match="2 channels are named; a connection has one"):
        room_of(CHAT, ["blue", "blue"])


@pytest.mark.parametrize("channel", ["a.b", ">", "*", " ", "", "x" * 65, "a\n"])
def test_a_channel_that_would_forge_a_subject_is_refused(channel: str) -> None:
    with pytest.raises(BadName, match="is not a channel name"):
        room_of(CHAT, [channel])


@pytest.mark.parametrize("value", ["a.b", ">", "*", " ", "", "x" * 65, "a/b", "é"])
def test_a_parameter_that_would_forge_a_subject_is_refused(value: str) -> None:
    with pytest.raises(BadName, match=r"room .* may not stand in a topic"):
        room_of(Match(ROOMS.route, {"room": value}), [])
