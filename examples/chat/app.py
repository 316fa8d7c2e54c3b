"""A chat with a page: rooms, one to one, and the words of a model as they come.

Run it with `fairlead dev examples/chat` and open the page in two windows.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from fairlead import SSE, WS, Direct, Message, Reject, direct, feature, project

log = logging.getLogger("chat")

support = feature("Support")


async def who(ctx: WS | SSE) -> str:
    """The client's name is its word for it. Yours would check a token, or a session's cookie."""
    name = ctx.query.get("user", "").strip()
    if not 1 <= len(name) <= 40:
        raise Reject(401, "say who you are: ?user=NAME, at most 40 characters")
    return name


class Said(BaseModel):
    """What the page sends; anything else is answered with 400."""

    text: str = Field(min_length=1, max_length=4000)
    to: str | None = None


@support.websocket("chat", tag="realtime", deliver="topic", policies=[who])
async def chat(ctx: WS, message: Message[Said]) -> dict[str, str] | Direct:
    """Goes to the room (`?channel=`), or to one person in whatever room; `from` is the subject."""
    letter = {"id": message.id, **message.data.model_dump(exclude_none=True)}
    return letter if message.data.to is None else direct(message.data.to, letter)


@support.sse("/answers", tag="realtime", method="post", policies=[who])
async def answers(ctx: SSE) -> AsyncIterator[str]:
    """POST a question and read the answer word by word. Who hangs up, stops the run."""
    words = fake_model(ctx.body.decode(errors="replace"))
    sent = 0
    try:
        for word in words:
            yield word + " "
            sent += 1
            await asyncio.sleep(0.05)
    finally:
        # Also when the client has gone: the place to let go of a real model.
        log.info("%s has read %d of %d words", ctx.subject, sent, len(words))


def fake_model(question: str) -> list[str]:
    """Stands for a language model: it knows nothing, and says so at length."""
    asked = " ".join(question.split())[:80] or "nothing at all"
    return f"You asked: “{asked}”. {ANSWER}".split()


ANSWER = """
I am no model, only a list of words on a worker near you, but each of them travels as a token would:
yielded by a plain async generator, carried over NATS to the edge that holds your connection, and
written to your window while the next one is being thought of. Nobody polls, and nobody waits for
the whole. If you read slowly, I am slowed down; if you press stop or close the window, the
generator is cancelled where it stands, and whatever it had opened is closed with it. Put a real
model here, and the rest of this file may stay as it is.
"""

app = project(support)
