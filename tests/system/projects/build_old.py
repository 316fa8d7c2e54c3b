"""A build of a project, the one that is deployed first."""

from __future__ import annotations

import os
from typing import Any

from fairlead import WS, History, Message, feature, project, trigger, workflow

SIZE = int(os.environ.get("KEPT", "10"))


@workflow("Shared", tag="builds", trigger=trigger.websocket("shared"))
async def shared(ctx: WS, message: Message) -> str:
    return "either"


@workflow("OldOnly", tag="builds", trigger=trigger.websocket("old"))
async def old_only(ctx: WS, message: Message) -> str:
    return "old"


@workflow("OldWho", tag="builds", trigger=trigger.websocket("who"))
async def who(ctx: WS, message: Message) -> str:
    return "the old build"


@workflow(
    "Kept",
    tag="builds",
    trigger=trigger.websocket("kept", deliver="topic", history=History(SIZE, "60s")),
)
async def kept(ctx: WS, message: Message) -> Any:
    return message.data


app = project(feature("Support", workflows=[shared, old_only, who, kept]))
