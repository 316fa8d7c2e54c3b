"""A workflow that blocks its loop, unless told otherwise."""

from __future__ import annotations

import os
import time

from fairlead import WS, Message, feature, project, trigger, workflow


@workflow("Stuck", tag="realtime", trigger=trigger.websocket("stuck"))
async def stuck(ctx: WS, message: Message) -> str:
    once = "STUCK_ONCE" in os.environ and ctx.attempt > 1
    if "NOT_STUCK" not in os.environ and not once:
        time.sleep(8)  # noqa: ASYNC251 - what the test is about
    return f"attempt {ctx.attempt}"


app = project(feature("Support", workflows=[stuck]))
