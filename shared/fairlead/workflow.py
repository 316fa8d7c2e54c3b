"""Declaring a project: what runs where. This module declares and runs nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, Unpack

from fairlead import inject
from fairlead import trigger as triggers
from fairlead.context import Result
from fairlead.errors import BadDeclaration, BadName
from fairlead.inject import Signature
from fairlead.protocol import names
from fairlead.protocol.manifest import History, Manifest, Route
from fairlead.trigger import SSEOptions, SSETrigger, Trigger, WebSocketOptions, WebSocketTrigger

Execute = Callable[..., Result | Awaitable[Result]]
"""Takes what its annotations ask for; what it may return, type checkers look at."""

F = TypeVar("F", bound=Execute)

_MARK = "__fairlead_workflows__"


@dataclass(frozen=True)
class Workflow:
    """A name, a tag, a trigger and a function: the unit that is routed, traced and measured.

    Calling it decorates a function, which stays callable as it was.
    """

    name: str
    tag: str
    trigger: Trigger
    execute: Execute | None = None
    signature: Signature | None = None

    def __call__(self, execute: F) -> F:
        marked = [*getattr(execute, _MARK, ()), _declared(self, execute)]
        try:
            setattr(execute, _MARK, marked)
        except AttributeError:
            raise BadDeclaration(
                f"workflow {self.name!r}: a {type(execute).__name__} cannot be decorated; "
                "pass it as workflow(…, execute=fn)"
            ) from None
        return execute


def workflow(name: str, *, tag: str, trigger: Trigger, execute: Execute | None = None) -> Workflow:
    """Declare a workflow: `@workflow(…)` above a function, or with `execute=fn` as a call.

    Args:
        name: unique in its feature.
        tag: second segment of the endpoint.

    Raises:
        BadDeclaration: a name that may not be, or a function that this trigger cannot call.
    """
    try:
        names.name("workflow", name)
        names.name("tag", tag)
    except BadName as error:
        raise BadDeclaration(str(error)) from None
    if not isinstance(trigger, WebSocketTrigger | SSETrigger):
        raise BadDeclaration(
            f"workflow {name!r}: trigger={trigger!r}; expected trigger.websocket(…) or trigger.sse(…)"
        )
    declared = Workflow(name, tag, trigger)
    return declared if execute is None else _declared(declared, execute)


def _declared(bare: Workflow, execute: Execute) -> Workflow:
    websocket = isinstance(bare.trigger, WebSocketTrigger)
    signature = inject.signature(
        execute,
        transport="websocket" if websocket else "sse",
        path=names.parameters(names.path_template(bare.trigger.path)),
        label=bare.name,
    )
    if isinstance(bare.trigger, WebSocketTrigger):
        _scopes_agree(bare.name, bare.trigger, signature)
    return Workflow(bare.name, bare.tag, bare.trigger, execute, signature)


def _scopes_agree(name: str, trigger: WebSocketTrigger, signature: Signature) -> None:
    """The signature decides what a run is for; what the trigger says must fit."""
    if trigger.run == "topic":
        _can_run_for_a_room(name, trigger, signature)
        return
    scope = "message" if signature.per_message else "connection"
    if trigger.run is not None and trigger.run != scope:
        raise BadDeclaration(
            f"workflow {name!r}: run={trigger.run!r}, but execute "
            + ("takes a Message" if signature.per_message else "takes no Message")
            + f", so it runs once per {scope}"
        )
    if scope == "connection" and trigger.window != 1:
        raise BadDeclaration(
            f"workflow {name!r}: window={trigger.window} is for messages that are executed one "
            "by one; the run of a connection reads them itself, from ctx.channel"
        )


def _can_run_for_a_room(name: str, trigger: WebSocketTrigger, signature: Signature) -> None:
    """A run of a room belongs to no client: it has no message, and nothing of one request."""
    if signature.per_message:
        raise BadDeclaration(
            f"workflow {name!r}: run='topic', but execute takes a Message, so it runs once per "
            "message; without that parameter it runs once per room"
        )
    if trigger.window != 1:
        raise BadDeclaration(
            f"workflow {name!r}: window={trigger.window} is for messages that are executed one "
            "by one; the run of a room gets none"
        )
    shared = names.parameters(names.topic_template(trigger.topic))
    for entry in signature.inputs:
        if entry.where != "path" or entry.key not in shared:
            raise BadDeclaration(
                f"workflow {name!r}: {entry.name!r} is filled from the {entry.where} of one request, "
                "but run='topic' runs once for all clients of a room; expected parameters of the "
                f"topic alone ({', '.join(shared) or 'it has none'}); ask the rest in a policy"
            )


@dataclass(frozen=True)
class Feature:
    """A named group of workflows; its name is the first segment of their endpoints."""

    name: str
    workflows: list[Workflow] = field(default_factory=list)

    def websocket(
        self, topic: str, *, tag: str, **options: Unpack[WebSocketOptions]
    ) -> Callable[[F], F]:
        """`workflow` and `trigger.websocket` in one; named after the function."""
        return self._decorator(tag, triggers.websocket(topic, **options))

    def sse(self, path: str = "/", *, tag: str, **options: Unpack[SSEOptions]) -> Callable[[F], F]:
        """`workflow` and `trigger.sse` in one; named after the function."""
        return self._decorator(tag, triggers.sse(path, **options))

    def _decorator(self, tag: str, trigger: Trigger) -> Callable[[F], F]:
        def decorate(execute: F) -> F:
            declared = workflow(execute.__name__, tag=tag, trigger=trigger, execute=execute)
            self.workflows.append(declared)
            return execute

        return decorate


def feature(name: str, workflows: Iterable[Workflow | Execute] = ()) -> Feature:
    """Group workflows under a name.

    Args:
        workflows: what `workflow(…)` returned, or functions that it decorates.

    Raises:
        BadDeclaration: one of them is neither, or has no function to run.
    """
    try:
        names.name("feature", name)
    except BadName as error:
        raise BadDeclaration(str(error)) from None
    found: list[Workflow] = []
    for entry in workflows:
        marked = [entry] if isinstance(entry, Workflow) else getattr(entry, _MARK, None)
        if not marked:
            raise BadDeclaration(
                f"feature {name!r}: {entry!r} is no workflow; declare it with "
                "@workflow(name, tag=…, trigger=…)"
            )
        found += marked
    return Feature(name, found)


@dataclass(frozen=True)
class Project:
    """What a worker loads. Made by `project`, which checks it as a whole."""

    features: tuple[Feature, ...]

    def workflows(self) -> Iterable[tuple[Route, Workflow]]:
        """Each workflow with its route, in the order of declaration."""
        return ((_route(f, w), w) for f in self.features for w in f.workflows)

    def manifest(self) -> Manifest:
        """What edges need to know.

        Raises:
            BadDeclaration: the workflows contradict each other.
        """
        routes = [route for route, _ in self.workflows()]
        _no_two_alike(routes)
        return Manifest(tuple(routes), _topics(self))


def project(*features: Feature) -> Project:
    """Put features together.

    Raises:
        BadDeclaration: two workflows on one endpoint or of one name in a feature (which may
            be spread over several entries), a topic declared with different options, two
            topics that can match one name.
    """
    for entry in features:
        if not isinstance(entry, Feature):
            raise BadDeclaration(f"project takes features; {entry!r} is none")
    made = Project(features)
    made.manifest()
    return made


def _route(feature: Feature, declared: Workflow) -> Route:
    trigger = declared.trigger
    common: dict[str, Any] = {
        "feature": names.kebab_case(feature.name),
        "workflow": names.kebab_case(declared.name),
        "label": f"{feature.name}/{declared.name}",
        "endpoint": names.endpoint(feature.name, declared.tag, trigger.path),
        "topic": trigger.topic,
        "executes": declared.execute is not None,
        "checks": bool(trigger.policies or (declared.signature and declared.signature.inputs)),
    }
    if isinstance(trigger, WebSocketTrigger):
        return Route(
            transport="websocket",
            history=trigger.history,
            deliver=trigger.deliver,
            window=trigger.window,
            overflow=trigger.overflow,
            run=_scope(declared),
            **common,
        )
    return Route(
        transport="sse",
        methods=trigger.methods,
        format=trigger.format,
        on_disconnect=trigger.on_disconnect,
        on_worker_lost=trigger.on_worker_lost,
        resume=trigger.resume,
        **common,
    )


def _scope(declared: Workflow) -> triggers.Run:
    if isinstance(declared.trigger, WebSocketTrigger) and declared.trigger.run == "topic":
        return "topic"
    per_message = declared.signature is None or declared.signature.per_message
    return "message" if per_message else "connection"


def _no_two_alike(routes: list[Route]) -> None:
    """Refuse what would make one request, or one NATS subject, mean two workflows."""
    ways: dict[tuple[str, str], Route] = {}
    subjects: dict[tuple[str, str], Route] = {}
    for route in routes:
        if not route.executes and not (route.transport == "sse" and route.topic):
            raise BadDeclaration(
                f"workflow {route.label!r} has nothing to run: decorate a function or pass execute="
            )
        other = subjects.setdefault((route.feature, route.workflow), route)
        if other is not route:
            raise BadDeclaration(
                f"{route.label!r} and {other.label!r} have the same name in NATS subjects "
                f"({route.feature}.{route.workflow}); workflow names are unique in a feature"
            )
        # /logs/{id} and /logs/{name} are one endpoint.
        shape = "/".join("{}" if s.startswith("{") else s for s in route.endpoint.split("/"))
        for way in route.methods or ("websocket",):
            other = ways.setdefault((way, shape), route)
            if other is not route:
                raise BadDeclaration(
                    f"{route.label!r} and {other.label!r} are both at {way} {route.endpoint}; "
                    "give one of them another path or tag"
                )


def _topics(declared: Project) -> dict[str, History | None]:
    """Each topic's history; websocket triggers declare it, SSE triggers only read it."""
    topics: dict[str, History | None] = {}
    for route, flow in declared.workflows():
        if not isinstance(flow.trigger, WebSocketTrigger):
            continue
        if route.topic in topics and topics[route.topic] != route.history:
            raise BadDeclaration(
                f"topic {route.topic!r} is declared with {_shown(topics[route.topic])} and, in "
                f"{route.label!r}, with {_shown(route.history)}; history belongs to the topic "
                "and must agree wherever it is declared"
            )
        topics[route.topic] = route.history
    for route, flow in declared.workflows():
        if isinstance(flow.trigger, SSETrigger) and route.topic and route.topic not in topics:
            topics[route.topic] = History()
    templates = {topic: names.topic_template(topic) for topic in topics}
    for one, levels in templates.items():
        for other, others in templates.items():
            if one < other and names.overlap(levels, others):
                raise BadDeclaration(
                    f"topics {one!r} and {other!r} can match one name; tell them apart by a level"
                )
    return topics


def _shown(history: History | None) -> str:
    return f"History(size={history.size}, age={history.age:g})" if history else "history=None"
