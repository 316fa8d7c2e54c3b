"""The browser that pages are tested in."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

# As root there is no sandbox; in a container /dev/shm is small.
_FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    found = shutil.which("chromium")
    assert found, "chromium is missing; `make test` installs it"
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=found, args=_FLAGS) as browser,
    ):
        yield browser
