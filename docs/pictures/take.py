"""Takes the pictures of the README: `make pictures`.

The real system with the chat example over two edges, and two people in real windows. Where
the font Inter is installed, the page uses it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

HERE = Path(__file__).parent
CHAT = HERE.parents[1] / "examples" / "chat"
SIZE = ViewportSize(width=1240, height=680)

# With tracing on, both windows show the same trace. Nobody need take the spans.
ENV = {
    **os.environ,
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:9",
}


@contextmanager
def chat() -> Generator[list[str]]:
    """Run `fairlead dev` on the chat; yields the URL of its page at each edge."""
    told = ["--edges", "2", "--workers", "2", "--port", "0", "--admin-port", "0"]
    argv = [sys.executable, "-m", "fairlead", "dev", str(CHAT), *told]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(argv, cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True) as dev,
    ):
        assert dev.stdout is not None
        try:
            line = next(line for line in dev.stdout if line.startswith("Open in two windows"))
            yield re.findall(r"http\S+", line)
        finally:
            dev.terminate()
            for _ in dev.stdout:
                pass  # or its last words would block it


def window(browser: Browser, url: str, name: str, scheme: Literal["dark", "light"]) -> Page:
    page = browser.new_context(
        viewport=SIZE, color_scheme=scheme, device_scale_factor=1.25, locale="en-GB"
    ).new_page()  # fmt: skip
    page.goto(f"{url}?user={name}&room=lobby")
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    return page


def say(page: Page, text: str, *readers: Page) -> None:
    page.get_by_role("textbox", name=re.compile("^Message to")).fill(text)
    page.keyboard.press("Enter")
    for each in (page, *readers):
        expect(each.get_by_role("log").first.get_by_text(text)).to_be_visible()
    expect(page.get_by_text("sending…")).to_have_count(0)


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Question to the model").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def spoken(page: Page, words: str) -> None:
    expect(page.get_by_text(re.compile(f"^{words}$"))).to_be_visible(timeout=30_000)


def talk(ann: Page, ben: Page) -> None:
    """What is seen on the pictures."""
    say(ann, "Morning! I have just deployed the new workers. Is everybody still connected?", ben)
    say(ben, "I am, and on the other edge at that. Nothing even flickered here.", ann)
    say(ann, "Then I take down the one with the old build, too.", ben)
    say(ben, "Go on. What I type meanwhile waits for a worker and arrives once.", ann)
    ask(ann, "What happens if I press stop?")
    ask(ben, "How do tokens get here?")
    spoken(ann, r"2\d words")
    ann.get_by_role("button", name="Stop").click()
    ask(ann, "And if I let you speak?")
    ann.get_by_role("textbox", name="Name of a person to talk to").fill("ben")
    ann.keyboard.press("Enter")
    ann.get_by_role("textbox", name="Message to ben").fill("Lunch at one?")
    ann.keyboard.press("Enter")
    expect(ben.get_by_role("button", name="ann, 1 unread")).to_be_visible()
    ann.get_by_role("button", name="lobby").click()
    spoken(ann, r"[56]\d words")


def main() -> None:
    with chat() as urls, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        ann = window(browser, urls[0], "ann", "light")
        ben = window(browser, urls[1], "ben", "dark")
        talk(ann, ben)
        ann.screenshot(path=HERE / "chat-light.png")
        ben.screenshot(path=HERE / "chat-dark.png")
        browser.close()


if __name__ == "__main__":
    main()
