"""Waiting for what must come to pass, never for time to go by."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from fairlead.testing.program import DEADLINE, SLOWER

LOOK = 0.01 * SLOWER
"""Seconds between two looks."""


async def request(
    url: str,
    data: bytes | None = None,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers in lower case, body) of a plain HTTP request."""

    def ask() -> tuple[int, dict[str, str], bytes]:
        asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(asked, timeout=DEADLINE) as answer:
                return answer.status, _lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), error.read()

    return await asyncio.to_thread(ask)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def until_ready(url: str) -> None:
    """Wait until a /readyz answers 200."""

    async def ready() -> bool:
        try:
            return (await request(url))[0] == 200
        except OSError:
            return False

    await until(ready, f"{url} is ready")


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a (maybe async) condition holds; the deadline names it."""
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                holds = condition()
                if asyncio.iscoroutine(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE:g} s: {what}") from None
