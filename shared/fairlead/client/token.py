"""The application's token, asked for whenever one is needed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

TokenHook = Callable[[], "str | Awaitable[str]"]
"""Asked before each attempt, so that the token is fresh; it may be async."""


async def ask(hook: TokenHook | None) -> str | None:
    """What the hook says; None where there is none."""
    if hook is None:
        return None
    said = hook()
    return await said if inspect.isawaitable(said) else said
