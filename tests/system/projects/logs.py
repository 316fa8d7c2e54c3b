"""Rooms that keep much, little, for a short time, or nothing: for tests/system/test_resume.py."""

from __future__ import annotations

from typing import Any

from fairlead import WS, History, Message, feature, project, trigger, workflow

logs = feature("Logs")


@logs.websocket("large", tag="v1", deliver="topic")
async def large(ctx: WS, message: Message) -> Any:
    return message.data


@logs.websocket("small", tag="v1", deliver="topic", history=History(size=5))
async def small(ctx: WS, message: Message) -> Any:
    return message.data


@logs.websocket("brief", tag="v1", deliver="topic", history=History(age=2))
async def brief(ctx: WS, message: Message) -> Any:
    return message.data


@logs.websocket("doomed", tag="v1", deliver="topic", history=History(age="8s"))
async def doomed(ctx: WS, message: Message) -> Any:
    return message.data


@logs.websocket("volatile", tag="v1", deliver="topic", history=None)
async def volatile(ctx: WS, message: Message) -> Any:
    return message.data


logs.workflows.extend(
    [
        workflow("Watch", tag="v1", trigger=trigger.sse("/watch", topic="large", method="get")),
        workflow("Glance", tag="v1", trigger=trigger.sse("/glance", topic="small", method="get")),
    ]
)

app = project(logs)
