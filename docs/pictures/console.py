"""Takes the pictures of docs/console.md: `make pictures`.

The real system with the chat example over two edges and two workers, a few people who talk, a token
stream that is being written, and the console's page in real windows.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from fairlead import client

HERE = Path(__file__).parent
CHAT = HERE.parents[1] / "examples" / "chat"
WIDE, NARROW = ViewportSize(width=1240, height=860), ViewportSize(width=420, height=860)

PEOPLE = ("ann", "ben", "cleo", "dan", "eve", "finn")
ROOMS = ("lobby", "support", "release")


@contextmanager
def system() -> Generator[tuple[list[str], str]]:
    """`fairlead dev` on the chat: the edges' addresses, and the console's with its token."""
    told = ["--edges", "2", "--workers", "2", "--port", "0", "--admin-port", "0"]
    argv = [sys.executable, "-m", "fairlead", "dev", str(CHAT), *told]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True) as dev,
    ):
        assert dev.stdout is not None
        # Or its words would block it.
        reading = threading.Thread(target=lambda: [None for _ in dev.stdout or ()])
        try:
            console = next(line for line in dev.stdout if line.startswith("console: "))
            edges = next(line for line in dev.stdout if line.startswith("Open in two windows"))
            found = [f"http://{urlsplit(url).netloc}" for url in re.findall(r"http\S+", edges)]
            reading.start()
            yield found, console.removeprefix("console: ").strip()
        finally:
            dev.terminate()
            if reading.ident is not None:
                reading.join()


@contextmanager
def talking(edges: list[str]) -> Generator[None]:
    """People who say something several times a second, and one who waits for a long answer."""
    done = threading.Event()

    async def talk() -> None:
        speaking = [asyncio.create_task(speak(*each)) for each in zip(itertools.cycle(edges), PEOPLE, itertools.cycle(ROOMS), strict=False)]  # fmt: skip
        reading = asyncio.create_task(read(edges[0]))
        await asyncio.to_thread(done.wait)
        for task in (*speaking, reading):
            task.cancel()
        await asyncio.gather(*speaking, reading, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(talk()))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


async def speak(edge: str, name: str, room: str) -> None:
    url = f"{edge}/support/realtime/chat?channel={room}&user={name}"
    async with client.connect(url) as connection:
        for number in itertools.count():
            await connection.send({"text": f"{name} says {number}"})
            await asyncio.sleep(0.15)


async def read(edge: str) -> None:
    while True:
        url = f"{edge}/support/realtime/answers?user=eve"
        async for _ in client.run(url, method="POST", body="a long answer, please"):
            pass


def window(
    browser: Browser, console: str, scheme: Literal["dark", "light"], size: ViewportSize
) -> Page:
    page = browser.new_context(
        viewport=size, color_scheme=scheme, device_scale_factor=1.25, locale="en-GB"
    ).new_page()  # fmt: skip
    page.goto(console)
    expect(page.locator("#state-text")).to_have_text("live")
    return page


def pictures(browser: Browser, console: str) -> None:
    light = window(browser, console, "light", WIDE)
    expect(light.locator("#t-edges tbody tr")).to_have_count(2)
    light.wait_for_timeout(4000)  # rates are of some seconds
    light.screenshot(path=HERE / "console-light.png")
    dark = window(browser, console, "dark", WIDE)
    dark.get_by_role("tab", name="Traces").click()
    dark.locator("#trace-list li").filter(has_text="chat").first.click()
    row = dark.locator("#waterfall .row").filter(has_text="process chat").first
    expect(row).to_be_visible()
    row.click()
    dark.screenshot(path=HERE / "console-dark.png")
    narrow = window(browser, console, "dark", NARROW)
    narrow.wait_for_timeout(2000)
    narrow.screenshot(path=HERE / "console-narrow.png")


def main() -> None:
    with system() as (edges, console), talking(edges), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        pictures(browser, console)
        browser.close()


if __name__ == "__main__":
    main()
