"""Triggers: what starts a workflow. `from fairlead import trigger`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from fairlead.errors import BadDeclaration, BadName
from fairlead.protocol import durations, names
from fairlead.protocol.manifest import History as Kept

Deliver = Literal["sender", "topic", "others"]
Run = Literal["connection", "message", "topic"]
Overflow = Literal["disconnect", "drop_oldest", "latest"]
OnDisconnect = Literal["cancel", "continue"]
OnWorkerLost = Literal["error", "restart"]
Policy = Callable[[Any], Any]
"""Called with the context: True lets pass, who it is (a str, a dict, a dataclass, a model, an
object with an id) is the subject and lets pass, anything empty refuses, anything else is an error."""


MAX_RESUME = 24 * 3600.0
"""Seconds, the longest for which what a run said is kept."""


@dataclass(frozen=True, slots=True)
class History:
    """What a topic's rooms keep for those who come back.

    Attributes:
        size: messages per room.
        age: "60s", "5m", "2h" or seconds; at least one second.
    """

    size: int = 1000
    age: str | float = "5m"

    def checked(self) -> Kept:
        """The same in plain numbers.

        Raises:
            BadDeclaration: a number out of its range.
        """
        age = _seconds("age", self.age)
        if type(self.size) is not int or self.size < 1 or age < 1:
            raise BadDeclaration(
                f"History(size={self.size!r}, age={self.age!r}): size must be 1 or more, "
                "age a second or more; history=None keeps nothing"
            )
        return Kept(self.size, age)


@dataclass(frozen=True, slots=True)
class WebSocketTrigger:
    """See `websocket`."""

    topic: str
    path: str
    deliver: Deliver
    window: int
    history: Kept | None
    run: Run | None = None
    policies: tuple[Policy, ...] = ()
    overflow: Overflow = "disconnect"


@dataclass(frozen=True, slots=True)
class SSETrigger:
    """See `sse`."""

    path: str
    methods: tuple[str, ...]
    topic: str
    format: Literal["json", "text"]
    on_disconnect: OnDisconnect
    on_worker_lost: OnWorkerLost
    policies: tuple[Policy, ...] = ()
    resume: float | None = None


Trigger = WebSocketTrigger | SSETrigger


class WebSocketOptions(TypedDict, total=False):
    """The arguments of `websocket` after the topic, for type checkers."""

    path: str | None
    deliver: Deliver
    run: Run | None
    window: int
    durable: bool
    history: History | None
    overflow: Overflow
    presence: bool
    policies: Sequence[Policy]


class SSEOptions(TypedDict, total=False):
    """The arguments of `sse` after the path, for type checkers."""

    method: Literal["get", "post"] | None
    topic: str | None
    format: Literal["json", "text"]
    resume: str | float | None
    on_disconnect: OnDisconnect
    on_worker_lost: OnWorkerLost | None
    policies: Sequence[Policy]


def websocket(
    topic: str,
    path: str | None = None,
    deliver: Deliver = "sender",
    run: Run | None = None,
    window: int = 1,
    durable: bool = False,
    history: History | None = History(),
    overflow: Overflow = "disconnect",
    presence: bool = False,
    policies: Sequence[Policy] = (),
) -> WebSocketTrigger:
    """A workflow that clients reach by WebSocket; each connection is a member of a room.

    Args:
        topic: the pub/sub address, such as `chat` or `rooms.{room}`; its parameters
            are taken from the path.
        path: under the feature and tag; the topic with `.` → `/` by default.
        deliver: where plain values go: to the sender, to the whole room, to the others in it.
        run: says the scope aloud; it must agree with the signature of `execute`. `topic` runs it
            once per room while the room has members; what it says goes to the room.
        window: messages of one connection that are executed at a time; 1 keeps their order.
        history: what the room keeps; None keeps nothing.
        overflow: what becomes of a client that reads so slowly that 1 MiB waits for it:
            `disconnect` closes it, `drop_oldest` drops the room's oldest messages, `latest` keeps
            just the newest one. What it was answered is never dropped.
        policies: asked in order, on a worker, before a client is accepted.

    Raises:
        BadDeclaration: a value that cannot be, or an option that is not built yet.
    """
    _one_of("deliver", deliver, ("sender", "topic", "others"))
    _one_of("run", run, (None, "connection", "message", "topic"))
    _one_of("overflow", overflow, ("disconnect", "drop_oldest", "latest"))
    _not_built("durable", durable, (False,))
    _not_built("presence", presence, (False,))
    if type(window) is not int or not 1 <= window <= 1000:
        raise BadDeclaration(f"window={window!r}: expected a whole number from 1 to 1000")
    if history is not None and not isinstance(history, History):
        raise BadDeclaration(f"history={history!r}: expected History(size=…, age=…) or None")
    try:
        levels = names.topic_template(topic)
        path = "/" + "/".join(levels) if path is None else path
        segments = names.path_template(path)
    except BadName as error:
        raise BadDeclaration(str(error)) from None
    _parameters_come_from_the_path(levels, segments)
    kept = history.checked() if history is not None else None
    if run == "topic":
        deliver = _to_the_room(deliver)
    return WebSocketTrigger(topic, path, deliver, window, kept, run, _policies(policies), overflow)


def _to_the_room(deliver: Deliver) -> Deliver:
    """A run of a room has no sender, so what it says goes to all, whatever the default is."""
    if deliver == "others":
        raise BadDeclaration(
            "deliver='others': a run of a room (run='topic') answers nobody, so there are no others; "
            "leave deliver out: what it says goes to the room"
        )
    return "topic"


def sse(
    path: str = "/",
    method: Literal["get", "post"] | None = None,
    topic: str | None = None,
    format: Literal["json", "text"] = "json",
    resume: str | float | None = None,
    on_disconnect: OnDisconnect = "cancel",
    on_worker_lost: OnWorkerLost | None = None,
    policies: Sequence[Policy] = (),
) -> SSETrigger:
    """A workflow whose output clients read as a stream of server-sent events.

    Args:
        path: under the feature and tag.
        method: `get` for EventSource, `post` for fetch with a body; None serves both.
        topic: makes the client a read-only member of a room, too; `execute` may be left out.
        format: `text` sends a `str` as it is, split into `data:` lines.
        resume: for how long the run goes on, and what it said is kept, when nobody reads; and
            for how long what it said is kept after its end. None keeps nothing.
        on_disconnect: whether the run ends when its client goes (with `resume`: when nobody has
            read for so long).
        on_worker_lost: whether a run whose worker died ends with an error or starts again;
            None is "error", and "restart" with `resume`.
        policies: asked in order, on a worker, before the head of the answer is sent.

    Raises:
        BadDeclaration: a value that cannot be, or an option that is not built yet.
    """
    _one_of("method", method, (None, "get", "post"))
    _one_of("format", format, ("json", "text"))
    _one_of("on_disconnect", on_disconnect, ("cancel", "continue"))
    _one_of("on_worker_lost", on_worker_lost, (None, "error", "restart"))
    kept = None if resume is None else _seconds("resume", resume)
    if kept is not None and not 1 <= kept <= MAX_RESUME:
        raise BadDeclaration(f"resume={resume!r}: expected a duration from 1s to 24h, or None")
    if kept is not None and topic is not None:
        raise BadDeclaration(
            f"resume={resume!r} with topic={topic!r}: a stream has one log to come back to; leave "
            "resume out, or show the room with a workflow of its own"
        )
    try:
        segments = names.path_template(path)
        levels = names.topic_template(topic) if topic is not None else ()
    except BadName as error:
        raise BadDeclaration(str(error)) from None
    _parameters_come_from_the_path(levels, segments)
    methods = ("GET", "POST") if method is None else (method.upper(),)
    lost = on_worker_lost or ("error" if kept is None else "restart")
    return SSETrigger(
        path, methods, topic or "", format, on_disconnect, lost, _policies(policies), kept
    )


def _parameters_come_from_the_path(levels: tuple[str, ...], segments: tuple[str, ...]) -> None:
    missing = set(names.parameters(levels)) - set(names.parameters(segments))
    if missing:
        raise BadDeclaration(
            f"topic {'.'.join(levels)!r} has {{{sorted(missing)[0]}}}, which the path "
            f"/{'/'.join(segments)} does not; a topic's parameters are taken from the path"
        )


def _policies(policies: Sequence[Policy]) -> tuple[Policy, ...]:
    if callable(policies) or isinstance(policies, str):
        raise BadDeclaration(f"policies={policies!r}: expected a list of functions")
    for policy in policies:
        try:
            inspect.signature(policy).bind(None)
        except (TypeError, ValueError):
            raise BadDeclaration(
                f"policy {policy!r} cannot be called with the context alone; "
                "expected a function such as `def allowed(ctx): …`"
            ) from None
    return tuple(policies)


def _one_of(option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise BadDeclaration(f"{option}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def _not_built(option: str, value: Any, built: tuple[Any, ...]) -> None:
    if value not in built:
        raise BadDeclaration(
            f"{option}={value!r} is not built in this version of Fairlead; leave it at {built[0]!r}"
        )


def _seconds(option: str, value: str | float) -> float:
    try:
        return durations.seconds(value)
    except ValueError as error:
        raise BadDeclaration(f"{option}: {error}") from None
