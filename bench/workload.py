"""The project that the benchmarks run: an echo, and rooms with and without history."""

from fairlead import WS, Message, feature, project, trigger, workflow


@workflow("Echo", tag="load", trigger=trigger.websocket(topic="echo", history=None))
async def echo(ctx: WS, message: Message) -> Message:
    """What a client says goes back to it, as it came."""
    return message


@workflow(
    "Plain", tag="load", trigger=trigger.websocket(topic="plain", deliver="topic", history=None)
)
async def plain(ctx: WS, message: Message) -> Message:
    """A room that keeps nothing."""
    return message


@workflow("Kept", tag="load", trigger=trigger.websocket(topic="kept", deliver="topic"))
async def kept(ctx: WS, message: Message) -> Message:
    """A room with history, as a room has it by default."""
    return message


app = project(feature("Bench", workflows=[echo, plain, kept]))
