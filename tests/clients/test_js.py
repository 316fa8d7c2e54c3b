"""The JavaScript client as it ships, against real edges and workers: in node, and in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from fairlead.testing.program import Program, running
from support.node import CLIENT, NODE
from support.system import Edge, System, cut, until

SCENARIOS = CLIENT / "test" / "scenarios.mjs"

ROOM = "/support/realtime/rooms/lobby"
READ_ROOM = "/support/stream/rooms/lobby"


class Script:
    """A scenario that runs in node: one JSON line per outcome."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._met: set[int] = set()

    async def says(self, **members: Any) -> dict[str, Any]:
        """An outcome that has these members, which may be there already; each is met once."""
        number = 0
        while True:
            line = await asyncio.to_thread(self._program.wait_for, "", number)
            number = self._program.lines.index(line.string, number) + 1
            found: dict[str, Any] = json.loads(line.string)
            assert "uncaught" not in found, found
            if number not in self._met and members.items() <= found.items():
                self._met.add(number)
                return found

    def all(self, member: str) -> list[dict[str, Any]]:
        """Every outcome so far that has this member."""
        found = [json.loads(line) for line in self._program.lines]
        return [each for each in found if member in each]

    async def rest(self) -> list[dict[str, Any]]:
        """What came after the last that was met, when it has ended by itself."""
        code = await asyncio.to_thread(self._program.ended)
        assert code == 0, "\n".join(self._program.lines)
        return [json.loads(line) for line in self._program.lines[max(self._met, default=0) :]]


@pytest.fixture
def script(built: Path, tmp_path: Path) -> Any:
    with ExitStack() as stack:
        yield lambda name, *args: Script(
            stack.enter_context(running([NODE, str(SCENARIOS), name, *args], tmp_path))
        )


Start = Callable[..., Script]


@asynccontextmanager
async def line_to(edge: Edge) -> AsyncIterator[Line]:
    """A TCP line to an edge, to be cut, or to be deaf first."""
    line = Line(edge.port)
    server = await asyncio.start_server(line.pass_on, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        await line.cut()


class Line:
    """Passes bytes on, both ways.

    Attributes:
        deaf: the client hears nothing any more, though it is heard.
    """

    port = 0
    deaf = False

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: list[asyncio.StreamWriter] = []

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._ends += [writer, far_writer]
        await asyncio.gather(
            self._copy(reader, far_writer, lambda: False),
            self._copy(far_reader, writer, lambda: self.deaf),
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drops: Callable[[], bool]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not drops():
                    writer.write(data)
            await cut(writer)

    async def cut(self) -> None:
        """End what is open, at once; who comes after it is heard and hears."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.transport.abort()
        self.deaf = False
        for end in ends:
            await cut(end)


async def everything(app: System, *edges: str) -> Edge:
    """An edge and a worker of everything.py."""
    edge, _ = await asyncio.gather(app.edge(*edges), app.worker())
    await edge.serves("/support/stream/value")
    return edge


def test_the_rules_without_a_network() -> None:
    """node's own test runner on clients/js/test/*.test.ts; what it says is in the failure."""
    tests = sorted(map(str, (CLIENT / "test").glob("*.test.ts")))
    told = [NODE, "--test", "--test-reporter=tap", *tests]
    done = subprocess.run(told, capture_output=True, text=True, cwd=CLIENT)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^# pass [1-9]", done.stdout, re.M)


def test_the_types_of_the_sources_and_of_the_tests(built: Path) -> None:
    tsc = CLIENT / "node_modules/typescript/lib/tsc.js"
    for project in (".", "test"):
        told = [NODE, str(tsc), "--noEmit", "-p", project]
        done = subprocess.run(told, capture_output=True, text=True, cwd=CLIENT)
        assert done.returncode == 0, done.stdout


def test_the_lockfile_names_no_registry() -> None:
    assert '"resolved"' not in (CLIENT / "package-lock.json").read_text()


async def test_replies_of_every_kind_and_the_ack(app: System, script: Start) -> None:
    edge = await everything(app)
    said = script("echo", edge.http("/support/realtime/echo"))
    assert await said.rest() == [
        {"reply": "text"},
        {"reply": {"a": [1, None]}},
        {"reply": {"bytes": [0, 255]}},
        {"acknowledged": "of-my-own"},
    ]


async def test_a_room_in_order_with_more_than_the_window_allows(app: System, script: Start) -> None:
    edge = await everything(app)
    said = script("room", edge.ws(ROOM), "40")
    assert await said.rest() == [{"acknowledged": 40}, {"read": list(range(40))}]


async def test_errors_are_problems(app: System, script: Start) -> None:
    edge = await everything(app)
    said = await script("errors", edge.http("/support/realtime/raises")).rest()
    assert [(each["replies"], each["status"]) for each in said] == [
        ([], 500),
        (["one"], 500),
        (["one", "two"], 418),
        ([], 413),
    ]
    assert said[2]["detail"] == "a teapot"


async def test_cancel_reaches_the_worker(app: System, script: Start, tmp_path: Path) -> None:
    edge = await everything(app)
    notes = [tmp_path / "by word", tmp_path / "by leaving", tmp_path / "by signal"]
    said = script("cancel", edge.http("/support/realtime/endless"), *map(str, notes))
    assert [each["status"] for each in await said.rest()] == [499, 499, 499]
    for note in notes:
        await until(note.exists, f"the generator was cancelled {note.name}")


async def test_a_message_waits_for_a_worker(app: System, script: Start) -> None:
    edge, worker = await asyncio.gather(app.edge(), app.worker())
    await edge.serves("/support/stream/value")
    worker.kill()
    await worker.ended()
    said = script("waiting", edge.http("/support/realtime/echo"))
    await said.says(status="waiting")
    await app.worker()
    assert await said.rest() == [
        {"status": "open"}, {"acknowledged": True}, {"status": "closed"}
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["killed", "drained"])
async def test_an_edge_goes_and_comes_back(app: System, script: Start, end: str) -> None:
    edge, other = await asyncio.gather(everything(app), app.edge())
    async with other.v1(ROOM) as witness:
        said = script("returns", edge.http(ROOM))
        await said.says(acknowledged="before")
        if end == "killed":
            edge.kill()
            await edge.ended()
        else:
            assert await edge.stop() == 0
        await said.says(status="reconnecting")
        await witness.send("said meanwhile")
        await witness.until("ack")
        await app.edge("--port", str(edge.port))
        await said.says(acknowledged="while away")
        for word in "before", "said meanwhile", "while away":
            await said.says(read=word)
        assert [each["read"] for each in said.all("read")] == [
            "before", "said meanwhile", "while away"
        ]  # fmt: skip
        assert said.all("gap") == [], "it came back with its cursor"


async def test_what_was_executed_but_not_acknowledged_is_in_the_room_once(
    app: System, script: Start, tmp_path: Path
) -> None:
    edge = await everything(app)
    async with edge.v1(ROOM) as witness, line_to(edge) as line:
        go = tmp_path / "go"
        said = script("unacknowledged", f"http://127.0.0.1:{line.port}{ROOM}", str(go))
        await said.says(status="open")
        line.deaf = True
        go.touch()
        await witness.until("message", data=0)
        await witness.until("message", data=4)
        await line.cut()
        assert (await said.says(acknowledged=6))["connections"] == 2
        await witness.send("the end")
        seen = [await witness.until("message")]
        while seen[-1]["data"] != "the end":
            seen.append(await witness.until("message"))
        assert [each["data"] for each in seen] == [5, "the end"]


async def test_a_refused_handshake_is_explained(app: System, script: Start) -> None:
    edge = await everything(app)
    told = [edge.http("/support/realtime/nowhere"), edge.http(f"{ROOM}?channel=a%20b")]
    said = await script("refused", *told).rest()
    assert [each["status"] for each in said] == [404, 400]
    assert all(each["detail"] for each in said)


async def test_the_run_of_a_connection_to_its_end(app: System, script: Start) -> None:
    edge, _ = await asyncio.gather(app.edge(), app.worker("connections.py"))
    await edge.serves("/support/realtime/counter")
    said = script("connection-run", edge.http("/support/realtime/counter"))
    assert await said.rest() == [{"items": ["open 1", "1 one", "2 two"]}, {"closed": None}]


async def test_streams(app: System, script: Start) -> None:
    edge = await everything(app)
    said = await script("streams", edge.http("/support/stream")).rest()
    run = said.pop(0)
    assert run["data"] == [{"size": 7, "start": '{"a":1}', "header": "x"}]
    assert run["id"] and run["trace"]
    assert said == [
        {"text": ["one\ntwo\nthree", '{"a":1}']},
        {"kinds": [["message", "text"], ["message", {"bytes": [0, 255]}], ["message", {"a": 1}],
                   ["named", {"b": 2}]]},
        {"items": ["one"], "status": 500},
        {"items": [], "status": 404},
    ]  # fmt: skip


async def test_a_stream_is_left_and_the_worker_knows(
    app: System, script: Start, tmp_path: Path
) -> None:
    edge = await everything(app)
    notes = [tmp_path / name for name in ("left", "aborted", "cancelled")]
    said = script("leave", edge.http("/support/stream/endless"), *map(str, notes))
    assert await said.rest() == [
        {"left": [0, 1, 2]}, {"aborted": "AbortError"}, {"cancelled": True}
    ]  # fmt: skip
    for note in notes:
        await until(note.exists, f"the generator was {note.name}")


async def test_a_room_by_server_sent_events_over_two_edges(app: System, script: Start) -> None:
    edge, other = await asyncio.gather(everything(app), app.edge())
    await other.serves(READ_ROOM)
    async with other.v1(ROOM) as speaker:
        said = script("subscribe", edge.http(READ_ROOM))
        await said.says(read="you read rooms.lobby")
        await speaker.send("one")
        await said.says(read="one", cursor=True)
        edge.kill()
        await edge.ended()
        await said.says(status="reconnecting")
        await app.edge("--port", str(edge.port))
        await said.says(gap="reconnect")
        await said.says(read="you read rooms.lobby")
        await speaker.send("two")
        await said.says(read="two", cursor=True)


async def test_in_a_browser(app: System, built: Path, tmp_path: Path) -> None:
    shutil.copy(built / "fairlead.min.js", tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><title>empty</title>")
    edge, _ = await asyncio.gather(app.edge("--pages", str(tmp_path)), app.worker())
    await edge.serves("/support/stream/value")
    found = shutil.which("chromium")
    assert found, "chromium is missing; `make test` installs it"
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=found, args=flags) as browser,
    ):
        tab = await browser.new_page()
        await tab.goto(edge.http("/"))
        assert await tab.evaluate(BROWSER) == {
            "ack": "mine", "read": ["hello"], "stream": [{"query": {"a": "1"}, "body": ""}], "refused": 404,
        }  # fmt: skip


BROWSER = """async () => {
  const { connect, run } = await import("/fairlead.min.js");
  const connection = connect("/support/realtime/rooms/lobby");
  const { id: ack } = await connection.send("hello", { id: "mine" });
  const read = [];
  for await (const message of connection) {
    read.push(message.data);
    connection.close();
  }
  const stream = [];
  for await (const { data } of run("/support/stream/value?a=1")) stream.push(data);
  const { status: refused } = await connect("/support/realtime/nowhere").closed;
  return { ack, read, stream, refused };
}"""
