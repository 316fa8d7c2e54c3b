"""A stream of tokens, as chat assistants have it. `fairlead dev examples/tokens.py`

    curl -N localhost:8000/assistant/chat/tokens -d '{"prompt": "why is the sky blue?"}'

Without more it streams the words of a model that is made up. With OPENAI_BASE_URL (any server
that speaks OpenAI's API), OPENAI_API_KEY and MODEL it asks a real one; that needs httpx.
When the client goes, or aborts its fetch, the run is cancelled, and with it the request.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel, Field

from fairlead import SSE, Body, Event, feature, project

assistant = feature("Assistant")


class Prompt(BaseModel):
    """What a client posts."""

    prompt: Annotated[str, Field(min_length=1, max_length=10_000)]


@assistant.sse("/tokens", tag="chat", method="post")
async def tokens(ctx: SSE, ask: Annotated[Prompt, Body()]) -> AsyncIterator[str | Event]:
    """Each token is an event; the last one says how many there were."""
    count = 0
    async for token in model(ask.prompt):
        count += 1
        yield token
    yield Event({"tokens": count}, event="usage")


def model(prompt: str) -> AsyncIterator[str]:
    """Whoever answers: a real model if there is one, else the one below."""
    base = os.environ.get("OPENAI_BASE_URL")
    return ask_openai(base, prompt) if base else made_up(prompt)


async def made_up(prompt: str) -> AsyncIterator[str]:
    """Words, at the pace of a small model."""
    answer = f"A good question. {prompt.strip()} Many have asked it, and the short answer is: yes."
    for word in answer.split():
        yield word + " "
        await asyncio.sleep(float(os.environ.get("TOKEN_PAUSE", "0.05")))


async def ask_openai(base: str, prompt: str) -> AsyncIterator[str]:
    """The tokens of a chat completion, as OpenAI's API streams them."""
    import httpx

    request = {
        "model": os.environ.get("MODEL", "gpt-4o-mini"),
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}  # a local server needs none
    url = f"{base.rstrip('/')}/chat/completions"
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", url, json=request, headers=headers) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if data == line or data == "[DONE]":
                continue
            for choice in json.loads(data)["choices"]:
                if token := choice["delta"].get("content"):
                    yield token


app = project(assistant)
