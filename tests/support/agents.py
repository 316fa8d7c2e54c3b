"""One application, three times: with the Python client, and with the JavaScript client in node and
in a browser. A scenario tells an agent what to do, and hears what came of it.

What comes of it is a dict: `of` names the connection, message or stream, and beside it are

- status, gap, restart: an event of that name; token: how often the hook was asked
- read, reply: data that came, with `attempt` and whether it has a cursor
- acknowledged: the id; failed: status, detail and code of an error; ended: without one, and of a
  stream also `id` and `trace`; told: where others find a run, its id, key and cursor
- error: status and detail of what failed and belongs to no message
- cancelling: it was begun; cancelled, refreshed: it is done
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page

from fairlead import client
from fairlead.client import Connection, FairleadError, Item, Retry, Run, Sent
from support.node import CLIENT, NODE
from support.system import until

SCRIPT = CLIENT / "test" / "agent.mjs"

Outcome = dict[str, Any]


class Agent(ABC):
    """An application with a client.

    Attributes:
        outcomes: all that came of what it was told, in order.
        home: URL of an edge that a browser has its page from; "" is that of the first command.
    """

    home = ""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._met: set[int] = set()

    @abstractmethod
    async def does(self, command: str, **arguments: Any) -> None:
        """Tell it what to do: a method of `InPython`, or of agent.mjs."""

    async def open(self, url: str, **options: Any) -> None:
        """Connect, as `chat`, and read it."""
        await self.does("open", **{"as": "chat", "url": url, **options})

    async def send(self, data: Any, **options: Any) -> None:
        """Over `chat`; the message is named as its data are, if it is given no name."""
        named = {"on": "chat", "as": str(data), "data": data}
        await self.does("send", **{**named, **options})

    async def stream(self, url: str, **options: Any) -> None:
        """Read server-sent events, as `stream`."""
        await self.does("stream", **{"as": "stream", "url": url, **options})

    async def says(self, of: str, *kinds: str, **members: Any) -> Outcome:
        """What has these members, which may be there already; each is met once."""
        wanted = {"of": of, **members}

        def found() -> int | None:
            for number, outcome in enumerate(self.outcomes):
                assert "uncaught" not in outcome, outcome["uncaught"]
                if number in self._met or not wanted.items() <= outcome.items():
                    continue
                if all(kind in outcome for kind in kinds):
                    return number
            return None

        try:
            await until(lambda: found() is not None, f"{of} says {kinds or members}")
        except AssertionError as error:
            said = "\n".join(map(str, self.outcomes))
            raise AssertionError(f"{error}; it said\n{said}") from None
        number = found()
        assert number is not None
        self._met.add(number)
        return self.outcomes[number]

    def all(self, of: str, kind: str) -> list[Any]:
        """Every word of a kind so far, in order."""
        return [each[kind] for each in self.outcomes if each["of"] == of and kind in each]


class InPython(Agent):
    """With `fairlead.client`, in the test's own process."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: list[asyncio.Task[None]] = []
        self._known: dict[str, Any] = {}

    async def does(self, command: str, **arguments: Any) -> None:
        self._tasks.append(asyncio.create_task(self._do(command, arguments)))
        # What was told first is begun first, as over the line to node.
        await asyncio.sleep(0)

    async def _do(self, command: str, arguments: dict[str, Any]) -> None:
        try:
            await getattr(self, f"_{command}")(**arguments)
        except Exception:  # the scenario shows it
            self._say("python", uncaught=traceback.format_exc())

    async def leave(self) -> None:
        """End whatever it still does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, url: str, **others: Any) -> None:
        name, options = self._options(others)
        async with client.connect(url, **options) as connection:
            self._watch(name, connection)
            await self._read(connection, name)
            await connection.wait_closed()

    async def _send(
        self, on: str, data: Any, iterate: bool = False, leave: int | None = None,
        id: str | None = None, **others: Any,
    ) -> None:  # fmt: skip
        name = others["as"]
        raw = bytes(data["bytes"]) if isinstance(data, dict) and "bytes" in data else data
        connection: Connection = self._known[on]
        sent = self._known[name] = connection.send(raw, id=id)
        try:
            if iterate:
                await self._each(sent, name, "reply", leave)
            self._say(name, acknowledged=(await sent).id)
        except FairleadError as error:
            self._failed(name, error)

    async def _stream(
        self, url: str, room: bool = False, leave: int | None = None, **others: Any
    ) -> None:
        name, options = self._options(others)
        made = (client.subscribe if room else client.run)(url, **options)
        self._watch(name, made)
        await self._read(made, name, leave)

    async def _tell(self, of: str) -> None:
        it = self._known[of]
        self._say(of, told={"id": it.id, "key": it.key, "cursor": it.cursor})

    async def _cancel(self, of: str) -> None:
        cancelling = self._known[of].cancel()
        if cancelling is not None:
            task = asyncio.ensure_future(cancelling)
            await asyncio.sleep(0)  # its first step is done
            self._say(of, cancelling=True)
            try:
                await task
            except FairleadError as error:
                self._failed(of, error)
                return
        self._say(of, cancelled=True)

    async def _end(self, of: str, run: str, key: str | None = None) -> None:
        await self._known[of].cancel(run, key)

    async def _refresh(self, of: str, token: str | None = None) -> None:
        await self._known[of].refresh(token)
        self._say(of, refreshed=True)

    async def _close(self, of: str) -> None:
        await self._known[of].close()

    def _options(self, others: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name: str = others.pop("as")
        options = {"retry": Retry(first=others.pop("retry", 0.1)), **others}
        if others.get("token"):
            options["token"] = self._hook(name)
        return name, options

    def _hook(self, name: str) -> Callable[[], str]:
        def token() -> str:
            asked = len(self.all(name, "token")) + 1
            self._say(name, token=asked)
            return f"token-{asked}"

        return token

    def _watch(self, name: str, it: Connection | Run) -> None:
        self._known[name] = it
        it.on("status", lambda change: self._say(name, status=change.status))
        it.on("gap", lambda gap: self._say(name, gap=gap.reason))
        it.on("restart", lambda restart: self._say(name, restart=restart.attempt))
        if isinstance(it, Connection):
            it.on("error", lambda error: self._say(
                name, error={"status": error.status, "detail": error.detail}
            ))  # fmt: skip

    async def _read(self, items: Connection | Run, name: str, leave: int | None = None) -> None:
        try:
            await self._each(items, name, "read", leave)
        except FairleadError as error:
            self._failed(name, error)
        else:
            known = ("id", "trace") if isinstance(items, Run) else ()
            self._say(name, ended=True, **{each: getattr(items, each) for each in known})

    async def _each(
        self, items: Connection | Sent | Run, name: str, word: str, leave: int | None
    ) -> None:
        """Says each, and leaves after so many."""
        count = 0
        async for item in items:
            data = {"bytes": [*item.data]} if isinstance(item.data, bytes) else item.data
            event = {"event": item.event} if isinstance(item, Item) else {}
            came = {word: data, "attempt": item.attempt, "cursor": item.id is not None}
            self._say(name, **came, **event)
            count += 1
            if count == leave:
                break

    def _failed(self, name: str, error: FairleadError) -> None:
        failed = {"status": error.status, "detail": error.detail, "code": error.code}
        self._say(name, failed=failed)

    def _say(self, of: str, **members: Any) -> None:
        self.outcomes.append({"of": of, **members})


@asynccontextmanager
async def in_python() -> AsyncIterator[Agent]:
    agent = InPython()
    try:
        yield agent
    finally:
        await agent.leave()


class InNode(Agent):
    """With the built JavaScript client, in a process of node."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process

    async def does(self, command: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"does": command, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                outcome = json.loads(line)
            except json.JSONDecodeError:
                outcome = {"of": "node", "uncaught": line.decode()}
            self.outcomes.append(outcome)


@asynccontextmanager
async def in_node() -> AsyncIterator[Agent]:
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    agent = InNode(process)
    listening = asyncio.create_task(agent.listen())
    try:
        yield agent
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


class InBrowser(Agent):
    """With the built JavaScript client, in a page of the edge that it talks to."""

    def __init__(self, tab: Page) -> None:
        super().__init__()
        self._tab = tab
        self._loaded = False

    async def does(self, command: str, **arguments: Any) -> None:
        if not self._loaded:
            await self._load(self.home or arguments["url"])
        call = "([command, given]) => void doer[command](given)"
        await self._tab.evaluate(call, [command, arguments])

    async def _load(self, url: str) -> None:
        self._loaded = True
        await self._tab.expose_function("say", lambda outcome: self.outcomes.append(outcome))
        self._tab.on("pageerror", lambda error: self.outcomes.append(
            {"of": "page", "uncaught": str(error)}
        ))  # fmt: skip
        await self._tab.goto(urlsplit(url)._replace(path="/", query="").geturl())
        await self._tab.evaluate(
            """async () => {
              const { agent } = await import("/agent.mjs");
              globalThis.doer = agent(await import("/fairlead.min.js"), say);
            }"""
        )


@asynccontextmanager
async def in_browser(browser: Browser) -> AsyncIterator[Agent]:
    context = await browser.new_context()
    try:
        yield InBrowser(await context.new_page())
    finally:
        await context.close()


def pages(folder: Path, built: Path) -> Path:
    """What an edge needs to serve for a browser: the client, the agent, and a page."""
    folder.mkdir()
    shutil.copy(built / "fairlead.min.js", folder)
    shutil.copy(SCRIPT, folder)
    (folder / "index.html").write_text("<!doctype html><title>agent</title>")
    return folder
