"""The next build of `build_old.py`: one workflow gone, one new, one replaced, more history."""

from __future__ import annotations

import os
from typing import Any

from fairlead import WS, History, Message, feature, project, trigger, workflow

SIZE = int(os.environ.get("KEPT", "20"))


@workflow("Shared", tag="builds", trigger=trigger.websocket("shared"))
async def shared(ctx: WS, message: Message) -> str:
    return "either"


@workflow("NewOnly", tag="builds", trigger=trigger.websocket("new"))
async def new_only(ctx: WS, message: Message) -> str:
    return "new"


@workflow("NewWho", tag="builds", trigger=trigger.websocket("who"))
async def who(ctx: WS, message: Message) -> str:
    return "the new build"


@workflow(
    "Kept",
    tag="builds",
    trigger=trigger.websocket("kept", deliver="topic", history=History(SIZE, "2m")),
)
async def kept(ctx: WS, message: Message) -> Any:
    return message.data


app = project(feature("Support", workflows=[shared, new_only, who, kept]))
