from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from fairlead import (
    SSE,
    WS,
    BadDeclaration,
    Feature,
    History,
    Message,
    Path,
    Query,
    Workflow,
    feature,
    project,
    trigger,
    workflow,
)
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History as Kept
from fairlead.protocol.manifest import Manifest, Route

CHAT = trigger.websocket(topic="chat", path="/echo")
LOGS = trigger.sse("/logs")


async def echo(ctx: WS, message: Message) -> Any:
    return message.data


async def stream(ctx: SSE) -> AsyncIterator[int]:
    yield 1


NOBODYS = Message(DataType.TEXT, b"", "e1-7")


def socket(name: str, made: trigger.WebSocketTrigger, tag: str = "t") -> Workflow:
    return workflow(name, tag=tag, trigger=made, execute=echo)


def events(name: str, made: trigger.SSETrigger, tag: str = "t") -> Workflow:
    return workflow(name, tag=tag, trigger=made, execute=stream)


def manifest(*workflows: Any) -> Manifest:
    return project(feature("Support", workflows=workflows)).manifest()


# Forms


def test_a_workflow_as_a_call() -> None:
    declared = workflow("Echo", tag="realtime", trigger=CHAT, execute=echo)
    assert (declared.name, declared.tag, declared.trigger) == ("Echo", "realtime", CHAT)
    assert declared.execute is echo
    assert declared.signature is not None
    assert declared.signature.ctx == ("ctx",)
    assert declared.signature.per_message


async def test_a_decorated_function_stays_callable_as_it_was() -> None:
    async def plain(ctx: WS, message: Message) -> Any:
        return message.data

    decorated = workflow("Echo", tag="realtime", trigger=CHAT)(plain)
    assert decorated is plain
    assert manifest(decorated).routes[0].label == "Support/Echo"


def test_call_and_decorator_say_the_same() -> None:
    @workflow("Echo", tag="realtime", trigger=CHAT)
    async def decorated(ctx: WS, message: Message) -> Any:
        return message.data

    assert manifest(decorated) == manifest(
        workflow("Echo", tag="realtime", trigger=CHAT, execute=echo)
    )


def test_a_function_may_be_several_workflows() -> None:
    @workflow("One", tag="t", trigger=trigger.websocket("one"))
    @workflow("Two", tag="t", trigger=trigger.websocket("two"))
    async def both(ctx: WS, message: Message) -> None: ...

    assert [route.workflow for route in manifest(both).routes] == ["two", "one"]


def test_a_feature_has_decorators_that_name_a_workflow_after_its_function() -> None:
    support = feature("Support")

    @support.websocket("chat", tag="realtime", path="/echo", deliver="topic")
    async def EchoAll(ctx: WS, message: Message) -> Any:
        return message.data

    @support.sse("/ticks", tag="realtime", method="get")
    async def ticks(ctx: SSE) -> AsyncIterator[int]:
        yield 1

    @support.sse(tag="root")
    def at_the_root() -> int:
        return 1

    routes = project(support).manifest().routes
    assert [(route.workflow, route.endpoint, route.methods) for route in routes] == [
        ("echo-all", "/support/realtime/echo", ()),
        ("ticks", "/support/realtime/ticks", ("GET",)),
        ("at-the-root", "/support/root", ("GET", "POST")),
    ]
    assert routes[0].deliver == "topic"
    assert at_the_root() == 1


def test_the_routes_of_a_project() -> None:
    made = manifest(
        socket("EchoWebsocket", trigger.websocket("chat", window=4, deliver="others"), "RealTime"),
        events("Logs", trigger.sse("/logs/{id}", format="text", on_disconnect="continue")),
    )
    assert made.routes == (
        Route(
            feature="support",
            workflow="echo-websocket",
            label="Support/EchoWebsocket",
            transport="websocket",
            endpoint="/support/real_time/chat",
            topic="chat",
            history=Kept(1000, 300.0),
            deliver="others",
            window=4,
        ),
        Route(
            feature="support",
            workflow="logs",
            label="Support/Logs",
            transport="sse",
            endpoint="/support/t/logs/{id}",
            methods=("GET", "POST"),
            format="text",
            on_disconnect="continue",
        ),
    )
    assert made.topics == {"chat": Kept(1000, 300.0)}


def test_the_same_project_has_the_same_manifest() -> None:
    def made() -> Manifest:
        return manifest(socket("Echo", CHAT), events("Logs", LOGS))

    assert made().digest == made().digest


def test_a_project_gives_each_workflow_with_its_route() -> None:
    declared = socket("Echo", CHAT)
    ((route, found),) = project(feature("Support", [declared])).workflows()
    assert found is declared
    assert route.label == "Support/Echo"


# Signatures: test_inject.py has what they are made of


def test_a_message_in_the_signature_makes_a_run_of_each_message() -> None:
    async def per_connection(ctx: WS) -> None: ...

    (one,) = manifest(socket("Echo", CHAT)).routes
    (other,) = manifest(workflow("Echo", tag="t", trigger=CHAT, execute=per_connection)).routes
    assert (one.run, other.run) == ("message", "connection")


def test_what_the_trigger_says_of_the_scope_must_agree() -> None:
    def per_connection(ctx: WS) -> None: ...

    def declare(run: Any, execute: Any) -> Any:
        made = trigger.websocket("chat", run=run)
        return workflow("Echo", tag="t", trigger=made, execute=execute)

    declare("message", echo)
    declare("connection", per_connection)
    with pytest.raises(
        BadDeclaration,
        match=r"'Echo': run='connection', but execute takes a Message, so it runs once per message",
    ):
        declare("connection", echo)
    with pytest.raises(
        BadDeclaration,
        match=r"'Echo': run='message', but execute takes no Message, so it runs once per connection",
    ):
        declare("message", per_connection)


def test_a_run_of_a_room_is_said_by_the_trigger_and_belongs_to_no_client() -> None:
    def per_room(ctx: WS, room: Annotated[str, Path()]) -> None: ...
    def of_a_request(ctx: WS, name: Annotated[str, Query()]) -> None: ...
    def of_a_path(ctx: WS, name: Annotated[str, Path()]) -> None: ...

    def declare(execute: Any, **options: Any) -> Workflow:
        made = trigger.websocket("rooms.{room}", "/{room}/{name}", run="topic", **options)
        return workflow("Echo", tag="t", trigger=made, execute=execute)

    (route,) = manifest(declare(per_room)).routes
    assert (route.run, route.deliver, route.checks) == ("topic", "topic", True)
    with pytest.raises(BadDeclaration, match=r"run='topic', but execute takes a Message"):
        declare(echo)
    with pytest.raises(BadDeclaration, match=r"'Echo': window=4 is for messages"):
        declare(per_room, window=4)
    with pytest.raises(BadDeclaration, match=r"'name' is filled from the query of one request"):
        declare(of_a_request)
    with pytest.raises(BadDeclaration, match=r"'name' is filled from the path .*alone \(room\)"):
        declare(of_a_path)


def test_a_window_is_for_messages_that_are_executed_one_by_one() -> None:
    def per_connection(ctx: WS) -> None: ...

    with pytest.raises(BadDeclaration, match="'Echo': window=4 is for messages"):
        workflow(
            "Echo", tag="t", trigger=trigger.websocket("chat", window=4), execute=per_connection
        )


def test_policies_and_inputs_have_the_edge_ask_before_it_accepts() -> None:
    def with_input(ctx: WS, lang: Annotated[str, Query()]) -> None: ...

    guarded = trigger.websocket("chat", policies=[lambda ctx: True])
    free, guard, inputs = manifest(
        socket("A", CHAT),
        workflow("B", tag="b", trigger=guarded, execute=echo),
        workflow("C", tag="c", trigger=CHAT, execute=with_input),
    ).routes
    assert [route.checks for route in (free, guard, inputs)] == [False, True, True]


def test_an_annotation_that_is_unknown_is_named() -> None:
    def execute(ctx: WS, message: Massage) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        BadDeclaration, match=r"'Echo': the annotations .* 'Massage' is not defined"
    ):
        workflow("Echo", tag="t", trigger=CHAT, execute=execute)


@pytest.mark.parametrize("execute", [5, functools.partial(echo, message=NOBODYS)])
def test_what_is_no_function_is_refused(execute: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"'Echo': .* is not a module, class, method, or func"):
        workflow("Echo", tag="t", trigger=CHAT, execute=execute)


def test_what_takes_no_mark_is_to_be_passed_as_a_call() -> None:
    class Desk:
        def answer(self, message: Message) -> None: ...

    with pytest.raises(BadDeclaration, match=r"a method cannot be decorated; pass it as workflow"):
        workflow("Echo", tag="t", trigger=CHAT)(Desk().answer)
    declared = workflow("Echo", tag="t", trigger=CHAT, execute=Desk().answer)
    assert declared.signature is not None
    assert declared.signature.per_message


# What a declaration may not be


@pytest.mark.parametrize("name", ["", "1st", "a/b", "é", "a\n", None])
def test_names_that_may_not_be(name: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"^workflow .* is not a name"):
        workflow(name, tag="t", trigger=CHAT)
    with pytest.raises(BadDeclaration, match=r"^tag .* is not a name"):
        workflow("Echo", tag=name, trigger=CHAT)
    with pytest.raises(BadDeclaration, match=r"^feature .* is not a name"):
        feature(name)


def test_a_trigger_is_a_trigger() -> None:
    made: Any = "websocket"
    with pytest.raises(BadDeclaration, match=r"trigger='websocket'; expected trigger.websocket"):
        workflow("Echo", tag="t", trigger=made)


def test_a_feature_takes_workflows_only() -> None:
    with pytest.raises(BadDeclaration, match=r"feature 'Support': .*echo.* is no workflow"):
        feature("Support", [echo])


def test_a_project_takes_features_only() -> None:
    wrong: Any = socket("Echo", CHAT)
    with pytest.raises(BadDeclaration, match=r"project takes features; .* is none"):
        project(wrong)


def test_a_workflow_without_a_function_is_refused() -> None:
    with pytest.raises(BadDeclaration, match="'Support/Echo' has nothing to run"):
        manifest(workflow("Echo", tag="t", trigger=CHAT))
    with pytest.raises(BadDeclaration, match="'Support/Logs' has nothing to run"):
        manifest(workflow("Logs", tag="t", trigger=LOGS))


def test_an_sse_trigger_with_a_topic_needs_no_function() -> None:
    made = manifest(workflow("Watch", tag="t", trigger=trigger.sse(topic="news")))
    assert not made.routes[0].executes
    assert made.topics == {"news": Kept(1000, 300.0)}


def test_an_sse_trigger_takes_the_history_that_the_websocket_declares() -> None:
    watch = workflow("Watch", tag="t", trigger=trigger.sse(topic="chat"))
    quiet = socket("Echo", trigger.websocket("chat", history=None))
    assert manifest(watch, quiet).topics == {"chat": None}


@pytest.mark.parametrize(("one", "other"), [("Echo", "Echo"), ("EchoAll", "echo-all")])
def test_two_workflows_of_one_name_in_a_feature_are_refused(one: str, other: str) -> None:
    with pytest.raises(BadDeclaration, match="have the same name in NATS subjects"):
        manifest(socket(one, CHAT), events(other, LOGS))


def test_a_feature_may_be_spread_over_modules_and_its_names_stay_unique() -> None:
    first, second = feature("Support", [socket("Echo", CHAT)]), feature("Support")
    assert len(project(first, second).manifest().routes) == 1
    second.workflows.append(events("Echo", LOGS))
    with pytest.raises(BadDeclaration, match="have the same name in NATS subjects"):
        project(first, second)


def test_one_name_in_two_features_is_two_workflows() -> None:
    made = project(feature("A", [socket("Echo", CHAT)]), feature("B", [socket("Echo", CHAT)]))
    assert [route.endpoint for route in made.manifest().routes] == ["/a/t/echo", "/b/t/echo"]


@pytest.mark.parametrize(
    ("one", "other", "way"),
    [
        (
            socket("A", trigger.websocket("chat", path="/x")),
            socket("B", trigger.websocket("news", path="/x")),
            "websocket /support/t/x",
        ),
        (
            events("A", trigger.sse("/logs/{id}")),
            events("B", trigger.sse("/logs/{name}", method="post")),
            "POST /support/t/logs/{name}",
        ),
        (events("A", LOGS, "real-time"), events("B", LOGS, "RealTime"), "GET /support/real_time"),
    ],
)
def test_two_workflows_on_one_endpoint_are_refused(
    one: Workflow, other: Workflow, way: str
) -> None:
    with pytest.raises(BadDeclaration) as refused:
        manifest(one, other)
    assert str(refused.value).startswith(f"'Support/B' and 'Support/A' are both at {way}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (socket("A", trigger.websocket("chat")), events("B", trigger.sse("/chat"))),
        (
            events("A", trigger.sse("/x", method="get")),
            events("B", trigger.sse("/x", method="post")),
        ),
        (events("A", trigger.sse("/logs/{id}")), events("B", trigger.sse("/logs/all"))),
    ],
)
def test_one_path_in_two_ways_is_allowed(one: Workflow, other: Workflow) -> None:
    assert len(manifest(one, other).routes) == 2


@pytest.mark.parametrize(
    ("history", "shown"),
    [
        (None, "with History(size=1000, age=300) and, in 'Support/B', with history=None"),
        (History(age="10m"), "and, in 'Support/B', with History(size=1000, age=600)"),
        (History(size=5), "and, in 'Support/B', with History(size=5, age=300)"),
    ],
)
def test_a_topic_declared_twice_with_different_history_is_refused(
    history: History | None, shown: str
) -> None:
    one = socket("A", trigger.websocket("chat", path="/a"))
    other = socket("B", trigger.websocket("chat", path="/b", history=history))
    with pytest.raises(BadDeclaration, match="must agree wherever it is declared") as refused:
        manifest(one, other)
    assert shown in str(refused.value)


def test_a_topic_may_be_declared_twice_alike() -> None:
    one = socket("A", trigger.websocket("chat", path="/a", history=History(age="5m")))
    other = socket("B", trigger.websocket("chat", path="/b", history=History(age=300)))
    assert manifest(one, other).topics == {"chat": Kept(1000, 300.0)}


@pytest.mark.parametrize(
    ("one", "other"),
    [("rooms.{room}", "rooms.blue"), ("rooms.{room}", "rooms.{name}"), ("{a}.x", "y.{b}")],
)
def test_two_topics_that_can_match_one_name_are_refused(one: str, other: str) -> None:
    with pytest.raises(BadDeclaration, match="can match one name; tell them apart by a level"):
        manifest(
            socket("A", trigger.websocket(one), "a"), socket("B", trigger.websocket(other), "b")
        )


def test_a_feature_is_what_feature_returns() -> None:
    assert isinstance(feature("Support"), Feature)
