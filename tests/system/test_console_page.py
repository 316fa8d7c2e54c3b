"""The console as people have it: its page in a real browser, over two edges and two workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from fairlead.testing.program import DEADLINE
from support.chromium import chromium
from support.console import Console, start_console
from support.system import Edge, System, request, until

expect.set_options(timeout=DEADLINE * 1000)

TOKEN = "open-sesame"
RUNS = str(Path(__file__).parent / "projects" / "console.py")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium_of_all() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chromium_of_all: Browser) -> AsyncIterator[BrowserContext]:
    """One that nobody has used."""
    async with await chromium_of_all.new_context() as fresh:
        yield fresh


@dataclass
class Shown:
    """A console with its page open, and what it shows."""

    page: Page
    console: Console
    edges: list[Edge]
    failures: list[str]


def _is_a_failure(said: ConsoleMessage) -> bool:
    """A 404 is none: the page asks for a trace before its last spans are there."""
    return said.type == "error" and "404" not in said.text


async def shown(app: System, browser: BrowserContext, *flags: str, fragment: str = "") -> Shown:
    console = await start_console(app, *flags)
    spans = {
        "OTEL_SDK_DISABLED": "false", "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": console.url("/v1/traces"),
    }  # fmt: skip
    first, second, *_ = await asyncio.gather(
        app.edge(env=spans), app.edge(env=spans),
        app.worker(RUNS, env=spans), app.worker(RUNS, env=spans),
    )  # fmt: skip
    for edge in (first, second):
        await edge.serves("/shop/v1/kept")
    page = await browser.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda said: failures.append(said.text) if _is_a_failure(said) else None)
    await page.goto(console.url("/") + fragment)
    await expect(page.locator("#state-text")).to_have_text("live")
    return Shown(page, console, [first, second], failures)


async def test_what_lives_and_what_is_executed_is_seen_and_who_was_killed_is_gone(
    app: System, browser: BrowserContext
) -> None:
    it = await shown(app, browser)
    page = it.page
    await expect(page.locator("#t-edges tbody tr")).to_have_count(2)
    await expect(page.locator("#t-workers tbody tr")).to_have_count(2)
    async with (
        it.edges[0].v1("/shop/v1/chat?channel=blue"),
        it.edges[1].v1("/shop/v1/chat?channel=blue"),
    ):
        await page.get_by_role("tab", name="Rooms").click()
        room = page.locator("#t-rooms tbody tr").filter(has_text="blue")
        await expect(room.locator("td").nth(2)).to_have_text("2")
        await expect(room.locator("td").nth(3)).to_have_text("2")
        await page.get_by_role("tab", name="Routes").click()
        await expect(page.locator("#t-routes")).to_contain_text("/shop/v1/kept")
    it.edges[1].kill()
    await page.get_by_role("tab", name="Overview").click()
    await expect(page.locator("#t-edges tbody tr")).to_have_count(1)
    await expect(page.locator("#t-gone")).to_contain_text("without a farewell")
    assert it.failures == []


async def test_a_message_is_tried_and_its_waterfall_is_seen(
    app: System, browser: BrowserContext
) -> None:
    it = await shown(app, browser, "--token", TOKEN, fragment=f"#token={TOKEN}")
    page = it.page
    assert TOKEN not in page.url, "what the fragment held is not left there"
    await page.get_by_role("tab", name="Try it").click()
    await page.locator("#try-path").fill("/shop/v1/chat?channel=blue")
    await page.get_by_role("button", name="Open", exact=True).click()
    await expect(page.locator("#try-state")).to_have_text("open: fairlead.v1")
    await page.locator("#say").fill('{"text": "hello"}')
    await page.locator("#say").press("Enter")
    answer = page.locator("#frames li").filter(has_text='"type":"message"').first
    await expect(answer).to_contain_text('"text":"hello"')
    await page.locator("#frames li.in button").first.click()
    picture = page.locator("#waterfall")
    for name in ("receive chat", "queue", "process chat", "publish chat", "broker", "deliver chat"):
        await expect(picture.locator(".row").filter(has_text=name).first).to_be_visible()
    strip, pieces = picture.locator(".parts"), picture.locator(".parts > div")
    widths = [box["width"] for piece in await pieces.all() if (box := await piece.bounding_box())]
    whole = await strip.bounding_box()
    assert whole is not None and sum(widths) > 0.9 * whole["width"], "where all of the time went"
    await picture.locator(".row").filter(has_text="process chat").first.click()
    await expect(picture.locator(".more-of")).to_contain_text("fairlead.queue.wait")
    assert it.failures == []


@pytest.mark.parametrize(("path", "kind"), [("/shop/v1/kept", "kept"), ("/shop/v1/live", "stream")])
async def test_a_run_is_cancelled(
    app: System, browser: BrowserContext, path: str, kind: str
) -> None:
    it = await shown(app, browser, "--token", TOKEN, fragment=f"#token={TOKEN}")
    page = it.page
    async with it.edges[0].events(path) as stream:
        await page.get_by_role("tab", name="Runs").click()
        run = page.locator("#t-runs tbody tr").filter(has_text=stream.headers["fairlead-run"])
        await expect(run.locator("td").nth(1)).to_have_text(kind)
        await run.get_by_role("button").click()
        while (await stream.next()).get("event") != "end":
            pass
    await expect(run).to_have_count(0)
    assert it.failures == []


async def test_rooms_runs_connections_and_messages_are_cancelled(app: System) -> None:
    """By what the page's button asks for; each client hears what is said of a cancelled run."""
    console = await start_console(app, "--token", TOKEN)
    edge, _ = await asyncio.gather(app.edge(), app.worker(RUNS))
    await edge.serves("/shop/v1/kept")

    async def cancelled(workflow: str) -> None:
        async def there() -> bool:
            _, _, body = await request(console.url("/api/fleet"))
            found.extend(r for r in json.loads(body)["runs"] if r["workflow"] == f"Shop/{workflow}")
            return bool(found)

        found: list[dict[str, str]] = []
        await until(there, f"a run of {workflow} is told of")
        asked = json.dumps({"worker": found[0]["worker"], "run": found[0]["run"]}).encode()
        headers = {"authorization": f"Bearer {TOKEN}"}
        status, *_ = await request(console.url("/api/cancel"), asked, headers=headers)
        assert status == 202

    async with edge.v1("/shop/v1/endless") as client:
        ref = await client.send("go")
        await cancelled("endless")
        assert (await client.until("error", ref=ref))["error"]["status"] == 499
    async with edge.v1("/shop/v1/counter") as client:
        await cancelled("counter")
        await client.until("end")
    async with edge.v1("/shop/v1/ticks") as client:
        await client.until("message")
        await cancelled("ticks")

        async def silent() -> bool:
            _, _, body = await request(console.url("/api/fleet"))
            return not [r for r in json.loads(body)["runs"] if r["workflow"] == "Shop/ticks"]

        await until(silent, "it has ended, and is not begun anew while the member stays")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://example.org"}, 403),
        ({"authorization": f"Bearer {TOKEN}"}, 404),
        ({"authorization": f"Bearer {TOKEN}", "host": "example.org"}, 400),
    ],
)
async def test_who_may_not_end_runs_is_told_so(
    app: System, headers: dict[str, str], status: int
) -> None:
    console = await start_console(app, "--token", TOKEN)
    asked = json.dumps({"worker": "w", "run": "r"}).encode()
    assert (await request(console.url("/api/cancel"), asked, headers=headers))[0] == status


async def test_without_a_token_nothing_can_be_changed_and_the_keyboard_is_enough(
    app: System, browser: BrowserContext
) -> None:
    it = await shown(app, browser)
    page = it.page
    async with it.edges[0].events("/shop/v1/live"):
        await page.locator("#tab-overview").focus()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await expect(page.get_by_role("tab", name="Runs")).to_be_focused()
        run = page.locator("#t-runs tbody tr").filter(has_text="live")
        await expect(run.get_by_role("button")).to_be_disabled()
    await page.keyboard.press("End")
    await expect(page.locator("#try-open")).to_be_disabled()
    await expect(page.locator("#try-state")).to_contain_text("read-only")
    assert (await request(it.console.url("/api/cancel"), b"{}"))[0] == 403
    assert it.failures == []
