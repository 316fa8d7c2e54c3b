"""The chat example as people have it: its page in real windows of a browser, over two edges."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect
from playwright.async_api import Page as Tab

from fairlead.testing.program import DEADLINE
from support.chromium import chromium
from support.otlp import collector
from support.system import Edge, System, Worker, request

CHAT = Path(__file__).parents[2] / "examples" / "chat"
ENDPOINT = "/support/realtime/answers"

expect.set_options(timeout=DEADLINE * 1000)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@dataclass
class Window:
    """One person's window.

    Attributes:
        failures: of the page's script, and what its content policy has stopped.
    """

    tab: Tab
    failures: list[str]

    @property
    def status(self) -> Locator:
        return self.tab.locator("#status")

    @property
    def log(self) -> Locator:
        return self.tab.locator("#log")

    @property
    def answer(self) -> Locator:
        return self.tab.locator("#answers article").last

    def message(self, text: str) -> Locator:
        return self.log.get_by_role("listitem").filter(has_text=text)

    async def say(self, text: str) -> Locator:
        """Type it and press Enter; what is shown of it."""
        await self.tab.get_by_role("textbox", name=re.compile("^Message to")).fill(text)
        await self.tab.keyboard.press("Enter")
        return self.message(text)

    async def ask(self, question: str) -> None:
        await self.tab.get_by_role("textbox", name="Question to the model").fill(question)
        await self.tab.get_by_role("button", name="Ask", exact=True).click()

    async def talk_to(self, name: str) -> None:
        await self.tab.get_by_role("textbox", name="Name of a person to talk to").fill(name)
        await self.tab.get_by_role("button", name="Talk to the person").click()

    async def has_connected(self, times: int) -> None:
        """It is connected now, and has been so many times."""
        await expect(self.status).to_have_text("Connected")
        await expect(self.tab.locator("#connections")).to_have_attribute("data-count", str(times))


@dataclass
class Chat:
    """The chat's processes, and windows on it."""

    app: System
    browser: Browser
    windows: list[Window]

    async def edge(self, *flags: str, **env: str) -> Edge:
        return await self.app.edge("--pages", str(CHAT / "page"), *flags, env=env)

    async def worker(self, **env: str) -> Worker:
        return await self.app.worker(str(CHAT), env=env)

    async def window(self, edge: Edge, query: str = "") -> Window:
        tab = await (await self.browser.new_context()).new_page()
        window = Window(tab, [])
        tab.on("pageerror", lambda error: window.failures.append(str(error)))
        tab.on("console", lambda line: _note_refusal(window, line.text))
        self.windows.append(window)
        await tab.goto(edge.http(f"/{query}"))
        return window

    async def joined(self, edge: Edge, name: str, room: str = "lobby") -> Window:
        await edge.serves(ENDPOINT)
        window = await self.window(edge, f"?user={name}&room={room}")
        await window.has_connected(1)
        return window


def _note_refusal(window: Window, line: str) -> None:
    if "Content Security Policy" in line:
        window.failures.append(line)


@pytest_asyncio.fixture(loop_scope="module")
async def chat(app: System, browser: Browser) -> AsyncIterator[Chat]:
    made = Chat(app, browser, [])
    yield made
    for window in made.windows:
        await window.tab.context.close()
    assert [window.failures for window in made.windows] == [[] for _ in made.windows]


@pytest_asyncio.fixture(loop_scope="module")
async def two(chat: Chat) -> tuple[Edge, Edge]:
    """Two edges and a worker."""
    one, other, _ = await asyncio.gather(chat.edge(), chat.edge(), chat.worker())
    return one, other


async def test_two_windows_on_two_edges_talk_in_a_room(chat: Chat, two: tuple[Edge, Edge]) -> None:
    ann, ben = await chat.joined(two[0], "ann"), await chat.joined(two[1], "ben")
    eve = await chat.joined(two[1], "eve", room="random")
    mine = await ann.say("hello from ann")
    await expect(mine).to_contain_text("You")
    await expect(mine).to_contain_text("sent")
    await expect(ben.message("hello from ann")).to_contain_text("ann")
    await ben.say("hello from ben")
    await expect(ann.message("hello from ben")).to_contain_text("ben")
    # A message comes once, to the sender too; another room hears nothing.
    await eve.say("anybody here?")
    await expect(eve.message("anybody here?")).to_contain_text("sent")
    for window, count in ((ann, 2), (ben, 2), (eve, 1)):
        await expect(window.log.get_by_role("listitem")).to_have_count(count)


async def test_whoever_has_no_tracing_still_gets_a_trace_id_of_what_he_says(
    chat: Chat, two: tuple[Edge, Edge]
) -> None:
    ann, ben = await chat.joined(two[0], "ann"), await chat.joined(two[1], "ben")
    trace = (await ann.say("hello")).get_by_role("button")
    await expect(trace).to_have_attribute("title", re.compile("^[0-9a-f]{32}$"))
    await expect(ben.message("hello")).to_be_visible()
    await expect(ben.message("hello").get_by_role("button")).to_have_count(0)


async def test_with_tracing_both_windows_show_the_trace_that_was_begun_at_the_key(
    chat: Chat,
) -> None:
    with collector() as spans:
        env = spans.env
        edge, _ = await asyncio.gather(chat.edge(**env), chat.worker(**env))
        ann, ben = await chat.joined(edge, "ann"), await chat.joined(edge, "ben")
        mine = (await ann.say("hello")).get_by_role("button")
        begun = await mine.get_attribute("title")
        await expect(ann.message("hello")).to_contain_text("sent")
        assert begun is not None
        for window in (ann, ben):
            trace = window.message("hello").get_by_role("button")
            await expect(trace).to_have_attribute("title", begun)


async def test_one_to_one_reaches_a_person_in_whatever_room(
    chat: Chat, two: tuple[Edge, Edge]
) -> None:
    ann = await chat.joined(two[0], "ann")
    ben = await chat.joined(two[1], "ben", room="random")
    eve = await chat.joined(two[1], "eve")
    await ann.talk_to("ben")
    await expect(await ann.say("only for you")).to_contain_text("sent")
    await ben.tab.get_by_role("button", name="ann, 1 unread").click()
    await expect(ben.message("only for you")).to_contain_text("ann")
    await ben.say("thanks")
    await expect(ann.message("thanks")).to_contain_text("ben")
    await expect(eve.log.get_by_role("listitem")).to_have_count(0)


async def test_one_to_one_with_nobody_says_so(chat: Chat, two: tuple[Edge, Edge]) -> None:
    ann = await chat.joined(two[0], "ann")
    await ann.talk_to("ben")
    letter = await ann.say("are you there?")
    await expect(letter).to_contain_text("ben is not here (404)")
    ben = await chat.joined(two[1], "ben")
    await letter.get_by_role("button", name="Send again").click()
    await expect(letter).to_contain_text("sent")
    await ben.tab.get_by_role("button", name="ann, 1 unread").click()
    await expect(ben.message("are you there?")).to_have_count(1)


async def test_a_token_stream_to_its_end(chat: Chat, two: tuple[Edge, Edge]) -> None:
    ann = await chat.joined(two[0], "ann")
    await ann.ask("how are you?")
    await expect(ann.answer).to_have_attribute("aria-busy", "true")
    await expect(ann.answer).to_contain_text("You asked: “how are you?”. I am no model")
    await expect(ann.answer).to_contain_text(re.compile(r"complete, \d+ words"))
    await expect(ann.answer).to_contain_text("the rest of this file may stay as it is.")
    await expect(ann.answer).not_to_have_attribute("aria-busy", "true")


async def test_a_token_stream_that_is_stopped_is_stopped_on_the_worker(chat: Chat) -> None:
    edge, worker = await asyncio.gather(chat.edge(), chat.worker())
    ann = await chat.joined(edge, "ann")
    await ann.ask("how are you?")
    await expect(ann.answer).to_contain_text("I am no model")
    await ann.tab.get_by_role("button", name="Stop").click()
    await expect(ann.answer).to_contain_text(re.compile(r"stopped after \d+ words"))
    told = await worker.says(r"ann has read \d+ of \d+ words")
    sent, of = map(int, re.findall(r"\d+", told))
    assert sent < of
    # And it may be asked again.
    await ann.ask("once more")
    await expect(ann.answer).to_contain_text("once more”. I am no model")


async def test_workers_come_and_go_and_no_window_notices(
    chat: Chat, two: tuple[Edge, Edge]
) -> None:
    ann, ben = await chat.joined(two[0], "ann"), await chat.joined(two[1], "ben")
    await ann.say("with the first")
    await expect(ben.message("with the first")).to_be_visible()
    old = await chat.worker()
    killed = await chat.worker()
    killed.kill()
    await ann.say("with one killed")
    assert await old.stop() == 0
    await ann.say("with one stopped")
    for text in ("with one killed", "with one stopped"):
        await expect(ben.message(text)).to_have_count(1)
        await expect(ann.message(text)).to_contain_text("sent")
    for window in (ann, ben):
        await window.has_connected(1)


async def test_a_message_without_any_worker_waits_for_one(chat: Chat) -> None:
    edge, worker = await asyncio.gather(chat.edge(), chat.worker())
    ann = await chat.joined(edge, "ann")
    worker.kill()
    await worker.ended()
    waiting = await ann.say("is a worker there?")
    await expect(waiting).to_contain_text("waits for a worker")
    await chat.worker()
    await expect(waiting).to_contain_text("sent")
    await ann.has_connected(1)


@pytest.mark.parametrize("end", ["drained", "killed"])
async def test_an_edge_that_comes_back_has_its_window_back_and_what_was_typed_meanwhile(
    chat: Chat, two: tuple[Edge, Edge], end: str
) -> None:
    ann, ben = await chat.joined(two[0], "ann"), await chat.joined(two[1], "ben")
    if end == "drained":
        assert await two[0].stop() == 0
    else:
        two[0].kill()
        await two[0].ended()
    await expect(ann.status).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
    typed = await ann.say("typed while away")
    await expect(typed).to_contain_text("waits for the connection")
    await chat.edge("--port", str(two[0].port))
    await ann.has_connected(2)
    await expect(typed).to_contain_text("sent")
    await ben.say("welcome back")
    await expect(ann.message("welcome back")).to_be_visible()
    for window in (ann, ben):
        await expect(window.message("typed while away")).to_have_count(1)
    await ben.has_connected(1)


async def test_what_an_edge_took_with_it_is_said_again(chat: Chat) -> None:
    """Unacknowledged when its edge died, sent again to the next: the room has it once."""
    one, other, worker = await asyncio.gather(chat.edge(), chat.edge(), chat.worker())
    ann, ben = await chat.joined(one, "ann"), await chat.joined(other, "ben")
    worker.kill()
    await worker.ended()
    taken = await ann.say("on the edge")
    await expect(taken).to_contain_text("waits for a worker")
    one.kill()
    await one.ended()
    await chat.worker()
    await chat.edge("--port", str(one.port))
    await expect(taken).to_contain_text("sent")
    await ann.say("and after it")
    await expect(ben.message("and after it")).to_be_visible()
    await expect(ben.message("on the edge")).to_have_count(1)


async def test_another_room_is_another_connection_and_what_waits_stays_where_it_was_said(
    chat: Chat, two: tuple[Edge, Edge]
) -> None:
    ann, ben = await chat.joined(two[0], "ann"), await chat.joined(two[1], "ben", room="random")
    await ann.tab.get_by_role("button", name="random").click()
    await ann.has_connected(2)
    await ann.say("hello, random")
    await expect(ben.message("hello, random")).to_be_visible()
    await ann.tab.get_by_role("button", name="lobby").click()
    await ann.has_connected(3)
    await expect(ann.message("hello, random")).to_have_count(0)


async def test_it_works_by_keyboard_alone(chat: Chat, two: tuple[Edge, Edge]) -> None:
    await two[0].serves(ENDPOINT)
    ann = await chat.window(two[0])
    keys = ann.tab.keyboard
    await expect(ann.tab.get_by_role("textbox", name="Your name")).to_be_focused()
    await keys.type("ann")
    await keys.press("Enter")
    await ann.has_connected(1)
    await expect(ann.tab.get_by_role("textbox", name="Message to # lobby")).to_be_focused()
    await keys.type("one line")
    await keys.press("Shift+Enter")
    await keys.type("and another")
    await keys.press("Enter")
    await expect(ann.message("one line\nand another")).to_contain_text("sent")
    await keys.press("Tab")  # the button
    await keys.press("Tab")  # the answers, to scroll
    await keys.press("Tab")
    await expect(ann.tab.get_by_role("textbox", name="Question to the model")).to_be_focused()
    await keys.type("hello")
    await keys.press("Enter")
    await keys.press("Tab")
    await expect(ann.tab.get_by_role("button", name="Stop")).to_be_focused()
    await keys.press("Enter")
    await expect(ann.answer).to_contain_text("stopped after")
    await expect(ann.tab.get_by_role("textbox", name="Question to the model")).to_be_focused()


async def test_a_person_who_is_refused_reads_why(chat: Chat, two: tuple[Edge, Edge]) -> None:
    await two[0].serves(ENDPOINT)
    nobody = await chat.window(two[0], f"?user={'x' * 41}")
    await expect(nobody.status).to_have_text(
        "Not connected: say who you are: ?user=NAME, at most 40 characters"
    )


async def test_a_bare_text_from_elsewhere_is_shown(chat: Chat, two: tuple[Edge, Edge]) -> None:
    """What any program publishes to the room has neither id nor sender."""
    ann = await chat.joined(two[0], "ann")
    body = json.dumps({"topic": "chat", "channel": "lobby", "data": "from cron"}).encode()
    status, _, _ = await request(two[1].admin("/publish"), body)
    assert status == 200
    await expect(ann.message("from cron")).to_contain_text("somebody")
