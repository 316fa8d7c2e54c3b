from __future__ import annotations

from typing import Any

import pytest

from fairlead import trigger
from fairlead.errors import BadDeclaration
from fairlead.protocol.manifest import History as Kept
from fairlead.trigger import History, SSETrigger, WebSocketTrigger


def test_the_defaults_of_a_websocket_trigger() -> None:
    assert trigger.websocket("chat") == WebSocketTrigger(
        topic="chat", path="/chat", deliver="sender", window=1, history=Kept(1000, 300.0)
    )


def test_the_defaults_of_an_sse_trigger() -> None:
    assert trigger.sse() == SSETrigger(
        path="/",
        methods=("GET", "POST"),
        topic="",
        format="json",
        on_disconnect="cancel",
        on_worker_lost="error",
    )


def test_all_that_a_websocket_trigger_can_be_told() -> None:
    made = trigger.websocket(
        "rooms.{room}",
        path="/{room}/join",
        deliver="others",
        run="message",
        window=1000,
        history=None,
    )
    assert made == WebSocketTrigger("rooms.{room}", "/{room}/join", "others", 1000, None, "message")


def test_all_that_an_sse_trigger_can_be_told() -> None:
    made = trigger.sse(
        "/{room}",
        method="post",
        topic="rooms.{room}",
        format="text",
        on_disconnect="continue",
        on_worker_lost="restart",
    )
    assert made == SSETrigger("/{room}", ("POST",), "rooms.{room}", "text", "continue", "restart")


@pytest.mark.parametrize(
    ("method", "methods"), [(None, ("GET", "POST")), ("get", ("GET",)), ("post", ("POST",))]
)
def test_the_method_of_an_sse_trigger(method: Any, methods: tuple[str, ...]) -> None:
    assert trigger.sse(method=method).methods == methods


@pytest.mark.parametrize(
    ("topic", "path"),
    [("chat", "/chat"), ("a.b.c", "/a/b/c"), ("rooms.{room}", "/rooms/{room}")],
)
def test_the_path_of_a_websocket_is_its_topic_unless_told(topic: str, path: str) -> None:
    assert trigger.websocket(topic).path == path


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("deliver", "all"),
        ("deliver", None),
        ("run", "once"),
        ("overflow", "drop"),
        ("window", 0),
        ("window", 1001),
        ("window", True),
        ("window", 1.5),
        ("window", "4"),
        ("history", 1000),
        ("history", "5m"),
    ],
)
def test_a_websocket_option_that_cannot_be_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(BadDeclaration, match=f"^{option}=.*: expected ") as refused:
        trigger.websocket("chat", **{option: value})
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("option", ["method", "format", "on_disconnect", "on_worker_lost"])
def test_an_sse_option_that_cannot_be_is_refused_by_name(option: str) -> None:
    options: dict[str, Any] = {option: "put"}
    with pytest.raises(BadDeclaration, match=f"^{option}='put': expected one of "):
        trigger.sse(**options)


@pytest.mark.parametrize("window", [1, 2, 1000])
def test_the_window_is_from_1_to_1000(window: int) -> None:
    assert trigger.websocket("chat", window=window).window == window


@pytest.mark.parametrize(
    ("option", "value", "default"),
    [
        ("durable", True, "False"),
        ("presence", True, "False"),
    ],
)
def test_a_websocket_option_that_is_not_built_yet_is_refused_by_name(
    option: str, value: Any, default: str
) -> None:
    """Never taken and ignored."""
    with pytest.raises(
        BadDeclaration, match=f"^{option}=.* is not built .*; leave it at {default}$"
    ):
        trigger.websocket("chat", **{option: value})


@pytest.mark.parametrize("kept", ["5m", 300, 300.0])
def test_resume_keeps_what_a_run_says_and_starts_it_again(kept: Any) -> None:
    made = trigger.sse(resume=kept)
    assert made.resume == 300.0
    assert made.on_worker_lost == "restart", "unless it is said otherwise"
    assert trigger.sse(resume=kept, on_worker_lost="error").on_worker_lost == "error"
    assert trigger.sse().on_worker_lost == "error"


@pytest.mark.parametrize("kept", ["500ms", 0, -1, "25h", "soon", True])
def test_resume_is_a_duration_from_a_second_to_a_day(kept: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"^resume[=:]"):
        trigger.sse(resume=kept)


def test_a_stream_of_a_room_has_the_rooms_log_and_no_other() -> None:
    with pytest.raises(BadDeclaration, match=r"^resume='5m' with topic='chat': "):
        trigger.sse(topic="chat", resume="5m")


@pytest.mark.parametrize("deliver", ["sender", "topic"])
def test_what_the_run_of_a_room_says_goes_to_the_room(deliver: Any) -> None:
    made = trigger.websocket("chat", deliver=deliver, run="topic")
    assert (made.deliver, made.run) == ("topic", "topic")


def test_the_run_of_a_room_has_no_others() -> None:
    with pytest.raises(BadDeclaration, match=r"^deliver='others': .* leave deliver out"):
        trigger.websocket("chat", deliver="others", run="topic")


@pytest.mark.parametrize("topic", ["", "a.*", ">", "a b", "{a}.{a}", None, 5])
def test_a_topic_that_may_not_be_is_a_bad_declaration(topic: Any) -> None:
    with pytest.raises(BadDeclaration, match="is not a topic"):
        trigger.websocket(topic)
    if topic is not None:
        with pytest.raises(BadDeclaration, match="is not a topic"):
            trigger.sse("/{a}", topic=topic)


@pytest.mark.parametrize("path", ["", "x", "/x/", "/..", "/a/../b", "/{a}/{a}", 5])
def test_a_path_that_may_not_be_is_a_bad_declaration(path: Any) -> None:
    with pytest.raises(BadDeclaration, match="path "):
        trigger.websocket("chat", path=path)
    with pytest.raises(BadDeclaration, match="path "):
        trigger.sse(path)


def test_the_parameters_of_a_topic_are_taken_from_the_path() -> None:
    wanted = r"topic 'rooms.{room}' has {room}, which the path /join does not"
    with pytest.raises(BadDeclaration, match=wanted):
        trigger.websocket("rooms.{room}", path="/join")
    with pytest.raises(BadDeclaration, match=wanted):
        trigger.sse("/join", topic="rooms.{room}")


def test_a_path_may_have_parameters_that_the_topic_has_not() -> None:
    assert trigger.websocket("chat", path="/{name}").path == "/{name}"


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        (History(), Kept(1000, 300.0)),
        (History(size=1, age="60s"), Kept(1, 60.0)),
        (History(age="2h"), Kept(1000, 7200.0)),
        (History(age=1), Kept(1000, 1.0)),
        (History(age="1500ms"), Kept(1000, 1.5)),
        (None, None),
    ],
)
def test_how_much_and_how_long_a_room_keeps(history: History | None, kept: Kept | None) -> None:
    assert trigger.websocket("chat", history=history).history == kept


@pytest.mark.parametrize(
    ("size", "age"), [(0, "5m"), (-1, "5m"), (1.5, "5m"), ("9", "5m"), (True, "5m"), (1, "999ms")]
)
def test_a_history_that_keeps_nothing_is_said_as_none(size: Any, age: Any) -> None:
    with pytest.raises(BadDeclaration, match="size must be 1 or more, age a second or more"):
        trigger.websocket("chat", history=History(size, age))


@pytest.mark.parametrize("age", ["5x", "", -1, None, True])
def test_an_age_that_is_no_duration_is_refused(age: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"^age: found .* where a duration belongs"):
        trigger.websocket("chat", history=History(age=age))


# Policies


def allowed(ctx: object) -> bool:
    return True


async def also_allowed(ctx: object, strict: bool = False) -> bool:
    return True


@pytest.mark.parametrize(
    "made", [lambda p: trigger.websocket("chat", policies=p), lambda p: trigger.sse(policies=p)]
)
def test_policies_are_functions_of_the_context_in_order(made: Any) -> None:
    assert made([allowed, also_allowed]).policies == (allowed, also_allowed)
    assert made(()).policies == ()


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        (allowed, "expected a list of functions"),
        ("allowed", "expected a list of functions"),
        ([lambda: True], "cannot be called with the context alone"),
        ([lambda ctx, more: True], "cannot be called with the context alone"),
        ([True], "cannot be called with the context alone"),
    ],
)
def test_a_policy_that_cannot_be_asked_is_refused(policies: Any, found: str) -> None:
    for declare in (
        lambda: trigger.websocket("chat", policies=policies),
        lambda: trigger.sse(policies=policies),
    ):
        with pytest.raises(BadDeclaration, match=found):
            declare()
