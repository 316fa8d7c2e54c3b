"""What an application lives through, with each client and against real edges and workers.

A scenario is written once; `client` says with what: fairlead.client, or clients/js in node or in a
browser.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from websockets.asyncio.server import ServerConnection, serve

from support.agents import Agent, in_browser, in_node, in_python, pages
from support.chromium import chromium
from support.line import Nowhere, line_to
from support.system import Edge, NatsServer, System, request, system, until

PROJECT = str(Path(__file__).with_name("project.py"))

ROOM = "/support/realtime/rooms"
STREAM = "/support/stream"

pytestmark = pytest.mark.asyncio(loop_scope="module")

with_each = pytest.mark.parametrize("client", ["python", "node", "browser"], indirect=True)


@pytest.fixture(scope="module")
def page(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pages(tmp_path_factory.mktemp("pages") / "page", built)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def client(
    request: pytest.FixtureRequest, built: Path, browser: Browser
) -> AsyncIterator[Agent]:
    made = {"python": in_python(), "node": in_node(), "browser": in_browser(browser)}
    async with made[request.param] as agent:
        yield agent


class Fleet:
    """An app of the project of the clients.

    Attributes:
        edge: the first of its edges.
    """

    def __init__(self, app: System, page: Path) -> None:
        self.app = app
        self._page = page

    async def begin(self, edges: int = 1) -> Fleet:
        found = await asyncio.gather(self.worker(), *(self.another() for _ in range(edges)))
        self.edges = [each for each in found if isinstance(each, Edge)]
        self.edge = self.edges[0]
        for edge in self.edges:
            await edge.serves(f"{STREAM}/kinds")
        return self

    async def another(self, *flags: str) -> Edge:
        return await self.app.edge("--pages", str(self._page), *flags)

    async def worker(self) -> Any:
        return await self.app.worker(PROJECT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    fairlead_nats: NatsServer, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """An edge and a worker that stay, for the scenarios that harm neither."""
    async with system(fairlead_nats, tmp_path_factory.mktemp("standing")) as app:
        yield await Fleet(app, page).begin()


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(fairlead_nats: NatsServer, page: Path, tmp_path: Path) -> AsyncIterator[Fleet]:
    """An app of the scenario's own, without processes."""
    async with system(fairlead_nats, tmp_path) as app:
        yield Fleet(app, page)


_rooms = itertools.count(1)


@pytest.fixture
def room() -> str:
    """The path of a room where nobody else is."""
    return f"{ROOM}/room{next(_rooms)}"


# One message


@with_each
async def test_replies_of_every_kind_and_the_acknowledgement(
    client: Agent, standing: Fleet
) -> None:
    await client.open(standing.edge.http("/support/realtime/echo"))
    for data in ("text", {"a": [1, None]}, {"bytes": [0, 255]}):
        await client.send(data, iterate=True)
        assert (await client.says(str(data), "reply"))["reply"] == data
        await client.says(str(data), "acknowledged")
    await client.send("last", id="of-my-own")
    await client.says("last", acknowledged="of-my-own")


@with_each
async def test_an_error_is_the_problem_of_one_message(client: Agent, standing: Fleet) -> None:
    await client.open(standing.edge.http("/support/realtime/fails"))
    expected = {"before": ([], 500), "while": (["one"], 418), "x" * (2**20 + 1): ([], 413)}
    for data, (replies, status) in expected.items():
        await client.send(data, iterate=True, **{"as": data[:10]})
        found = await client.says(data[:10], "failed")
        assert (client.all(data[:10], "reply"), found["failed"]["status"]) == (replies, status)
    assert (client.all("while", "failed"))[0]["detail"] == "a teapot"
    await client.send("never")
    await client.says("never", "acknowledged")


@with_each
async def test_a_stream_of_tokens_is_cancelled_on_the_worker(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    await client.open(standing.edge.http("/support/realtime/endless"))
    by_word, by_leaving = (str(tmp_path / name) for name in ("by word", "by leaving"))
    await client.send(by_word, iterate=True)
    await client.says(by_word, reply="token")
    await client.does("cancel", of=by_word)
    await client.send(by_leaving, iterate=True, leave=3)
    for note in (by_word, by_leaving):
        assert (await client.says(note, "failed"))["failed"]["status"] == 499
        await until(Path(note).exists, f"the generator was cancelled {note}")
    assert client.all(by_leaving, "reply") == ["token"] * 3


@with_each
async def test_a_message_that_was_cancelled_is_not_sent_again(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    """The connection is lost before the client hears that the server has heard it."""
    note = str(tmp_path / "note")
    async with line_to(standing.edge) as line:
        await client.open(line.http("/support/realtime/endless"))
        await client.send(note, iterate=True)
        await client.says(note, reply="token")
        line.deaf = True
        await client.does("cancel", of=note)
        await client.says(note, cancelled=True)
        await until(Path(note).exists, "the generator was cancelled")
        await line.cut()
        assert (await client.says(note, "failed"))["failed"]["status"] == 499
        another = str(tmp_path / "another")
        await client.send(another, iterate=True, leave=1)
        await client.says(another, "failed")
        assert set(client.all(note, "attempt")) == {1}


# A room


@with_each
async def test_a_room_in_order_with_more_than_the_window_allows(
    client: Agent, standing: Fleet, room: str
) -> None:
    await client.open(standing.edge.http(room))
    for number in range(40):
        await client.send(number)
    for number in range(40):
        await client.says("chat", read=number)
        await client.says(str(number), "acknowledged")
    assert client.all("chat", "read") == [*range(40)]


@with_each
async def test_a_cut_is_resumed_with_each_message_once_and_in_order(
    client: Agent, standing: Fleet, room: str
) -> None:
    async with line_to(standing.edge) as line, standing.edge.v1(room) as speaker:
        await client.open(line.http(room))
        await client.says("chat", status="open")
        for number in range(10):
            await speaker.send(number)
            await speaker.until("ack")
            if number == 2:
                await client.says("chat", read=number)
            if number in (2, 6):
                await line.cut()
        await client.says("chat", read=9)
        assert client.all("chat", "read") == [*range(10)]
        assert client.all("chat", "gap") == []
        assert client.all("chat", "status").count("reconnecting") >= 1


@with_each
async def test_what_a_room_without_history_said_meanwhile_is_a_gap(
    client: Agent, standing: Fleet
) -> None:
    async with line_to(standing.edge) as line:
        await client.open(line.http("/support/realtime/volatile"))
        await client.says("chat", status="open")
        await line.cut()
        await client.says("chat", gap="reconnect")


@with_each
async def test_a_token_is_asked_for_before_each_attempt(
    client: Agent, standing: Fleet, room: str
) -> None:
    async with line_to(standing.edge) as line:
        await client.open(line.http(room), token=True)
        await client.says("chat", token=1)
        await client.says("chat", status="open")
        await line.cut()
        await client.says("chat", token=2)
        await client.says("chat", status="open")


@with_each
async def test_a_token_is_given_before_it_expires_and_an_edge_checks_none(
    client: Agent, standing: Fleet, room: str
) -> None:
    """It says so, with an error that belongs to no message; the connection stays."""
    await client.open(standing.edge.http(room), token=True)
    await client.says("chat", token=1)
    await client.says("chat", status="open")
    await client.does("refresh", of="chat")
    await client.says("chat", token=2)
    await client.does("refresh", of="chat", token="of my own")
    for _ in range(2):
        error = (await client.says("chat", "error"))["error"]
        assert error == {
            "status": 400,
            "detail": "this edge checks no tokens, so it refreshes none",
        }
        await client.says("chat", refreshed=True)
    await client.send("still here")
    await client.says("still here", "acknowledged")
    assert client.all("chat", "status") == ["open"]
    assert client.all("chat", "token") == [1, 2], "it is asked for where none was given"


@with_each
async def test_it_may_be_closed(client: Agent, standing: Fleet, room: str) -> None:
    await client.open(standing.edge.http(room))
    await client.says("chat", status="open")
    await client.does("close", of="chat")
    await client.says("chat", status="closed")
    await client.says("chat", ended=True)


# The end


@with_each
async def test_a_refused_handshake_is_explained(client: Agent, standing: Fleet, room: str) -> None:
    for path, status in (("/support/realtime/nowhere", 404), (f"{room}?channel=a%20b", 400)):
        await client.open(standing.edge.http(path), **{"as": path})
        failed = (await client.says(path, "failed"))["failed"]
        assert failed["status"] == status
        assert failed["detail"]


@with_each
async def test_the_run_of_a_connection_to_its_end(client: Agent, standing: Fleet) -> None:
    await client.open(standing.edge.http("/support/realtime/counter"))
    for data in ("one", "two", "end"):
        await client.send(data)
    await client.says("chat", ended=True)
    assert client.all("chat", "read") == ["open 1", "1 one", "2 two"]


@asynccontextmanager
async def closing_with(code: int) -> AsyncIterator[str]:
    """The URL of a server that welcomes, and closes with a code: an edge needs a flaw for 1008."""

    async def close(socket: ServerConnection) -> None:
        await socket.send(
            '{"type":"welcome","connection":"c","cursor":null,"recovered":null,"window":16}'
        )
        await socket.close(code, "why")

    async with serve(close, "127.0.0.1", 0, subprotocols=["fairlead.v1"]) as server:  # type: ignore[list-item]  # a NewType of str
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


@with_each
@pytest.mark.parametrize("code", [1008, 4500, 4501])
async def test_some_close_codes_are_final(client: Agent, standing: Fleet, code: int) -> None:
    client.home = standing.edge.http("/")
    async with closing_with(code) as url:
        await client.open(url)
        failed = (await client.says("chat", "failed"))["failed"]
        assert (failed["code"], failed["detail"]) == (code, "why")
        assert client.all("chat", "status") == ["open", "closed"]


# Edges that go


@with_each
async def test_a_killed_edge_comes_back_and_so_does_what_was_said_meanwhile(
    client: Agent, fleet: Fleet, room: str
) -> None:
    edge, other = (await fleet.begin(edges=2)).edges
    async with other.v1(room) as witness:
        await client.open(edge.http(room))
        await client.send("before")
        await client.says("before", "acknowledged")
        edge.kill()
        await edge.ended()
        await client.says("chat", status="reconnecting")
        await witness.send("said meanwhile")
        await witness.until("ack")
        await client.send("while away")
        await fleet.another("--port", str(edge.port))
        await client.says("while away", "acknowledged")
        await client.says("chat", read="while away")
        assert client.all("chat", "read") == ["before", "said meanwhile", "while away"]
        assert client.all("chat", "gap") == [], "it came back with its cursor"


@with_each
async def test_a_drained_edge_hands_over_to_another(client: Agent, fleet: Fleet, room: str) -> None:
    edge, other = (await fleet.begin(edges=2)).edges
    async with line_to(edge) as line, other.v1(room) as speaker:
        await client.open(line.http(room))
        await client.send("before")
        await client.says("before", "acknowledged")
        line.edge = other
        assert await edge.stop() == 0
        await speaker.send("said meanwhile")
        await client.send("after")
        await client.says("after", "acknowledged")
        await client.says("chat", read="after")
        assert client.all("chat", "read")[0] == "before"
        assert sorted(client.all("chat", "read")[1:]) == ["after", "said meanwhile"]
        assert client.all("chat", "gap") == []


@with_each
async def test_what_a_killed_edge_did_not_acknowledge_is_in_the_room_once(
    client: Agent, fleet: Fleet, room: str
) -> None:
    edge, other = (await fleet.begin(edges=2)).edges
    async with line_to(edge) as line, other.v1(room) as witness:
        await client.open(line.http(room))
        await client.says("chat", status="open")
        line.deaf = True
        for number in range(5):
            await client.send(number)
        await witness.until("message", data=4)
        line.edge = other
        edge.kill()
        await line.cut()
        await client.send("new")
        for name in (*"01234", "new"):
            await client.says(name, "acknowledged")
        await witness.send("the end")
        seen = [await witness.hears()]
        while seen[-1] != "the end":
            seen.append(await witness.hears())
        assert seen == ["new", "the end"]


# Workers that go


@with_each
async def test_a_message_waits_for_a_worker(client: Agent, fleet: Fleet, room: str) -> None:
    await fleet.begin()
    [worker] = fleet.app.workers
    worker.kill()
    await worker.ended()
    await client.open(fleet.edge.http(room))
    await client.send("hello")
    await client.says("chat", status="waiting")
    await fleet.worker()
    await client.says("hello", "acknowledged")
    assert client.all("chat", "status") == ["open", "waiting", "open"]


@with_each
async def test_a_killed_worker_is_a_restart(client: Agent, fleet: Fleet, tmp_path: Path) -> None:
    """Of the answer to a message, and of a stream, kept or not: another worker begins anew."""
    await fleet.begin()
    [worker] = fleet.app.workers
    go = tmp_path / "go"
    await client.open(fleet.edge.http("/support/realtime/held"))
    await client.send(str(go), iterate=True, **{"as": "answer"})
    await client.stream(fleet.edge.http(f"{STREAM}/again"))
    await client.stream(fleet.edge.http(f"{STREAM}/kept"), body=str(go), **{"as": "kept"})
    for of, said in (("answer", {"reply": "attempt 1"}), ("stream", {"read": "attempt 1"})):
        await client.says(of, **said)
    await client.says("kept", read=9, attempt=1)
    await fleet.worker()
    worker.kill()
    await client.says("chat", restart=2)
    await client.says("stream", restart=2)
    await client.says("kept", restart=2)
    go.touch()
    await client.says("answer", reply="end", attempt=2)
    await client.says("answer", "acknowledged")
    await client.says("stream", read="attempt 2", attempt=2)
    await client.says("stream", ended=True)
    assert client.all("answer", "reply") == ["attempt 1", "attempt 2", "end"]
    await client.says("kept", ended=True)
    assert client.all("kept", "read") == [*range(10), *range(11)]


# Streams


@with_each
async def test_streams_to_their_end(client: Agent, standing: Fleet) -> None:
    def at(path: str) -> str:
        return standing.edge.http(f"{STREAM}/{path}")

    headers = {"X-Test": "x"}
    await client.stream(at("post"), body={"a": 1}, headers=headers, **{"as": "post"})
    await client.stream(at("text"), format="text", **{"as": "text"})
    await client.stream(at("kinds"), **{"as": "kinds"})
    for name in ("post", "text", "kinds"):
        end = await client.says(name, ended=True)
        assert end["id"]
        assert end["trace"]
    assert client.all("post", "read") == [{"body": '{"a":1}', "header": "x"}]
    assert client.all("text", "read") == ["one\ntwo\nthree", '{"a":1}']
    assert client.all("kinds", "read") == ["text", {"bytes": [0, 255]}, {"b": 2}]
    assert client.all("kinds", "event") == ["message", "message", "named"]


@with_each
async def test_a_stream_that_fails_is_a_problem(client: Agent, standing: Fleet) -> None:
    for path, items, status in (("fails", ["one"], 500), ("nowhere", [], 404)):
        await client.stream(standing.edge.http(f"{STREAM}/{path}"), **{"as": path})
        assert (await client.says(path, "failed"))["failed"]["status"] == status
        assert client.all(path, "read") == items


@with_each
async def test_a_stream_is_left_or_cancelled_and_the_worker_knows(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    for name, options in (("left", {"leave": 3}), ("cancelled", {})):
        url = standing.edge.http(f"{STREAM}/endless?note={tmp_path / name}")
        await client.stream(url, **{"as": name}, **options)
        await client.says(name, read=2)
    await client.does("cancel", of="cancelled")
    for name in ("left", "cancelled"):
        await client.says(name, ended=True)
        await until((tmp_path / name).exists, f"the generator was {name}")
    assert client.all("left", "read") == [0, 1, 2]


@with_each
async def test_a_room_by_server_sent_events_is_resumed(
    client: Agent, standing: Fleet, room: str
) -> None:
    async with line_to(standing.edge) as line, standing.edge.v1(room) as speaker:
        await client.stream(line.http(room.replace(ROOM, f"{STREAM}/rooms")), room=True)
        await client.says("stream", status="open")
        for number in range(10):
            await speaker.send(number)
            await speaker.until("ack")
            if number == 2:
                await client.says("stream", read=number, cursor=True)
            if number in (2, 6):
                await line.cut()
        await client.says("stream", read=9)
        assert client.all("stream", "read") == [*range(10)]
        assert client.all("stream", "gap") == []


@with_each
async def test_a_run_that_is_kept_is_read_on_over_another_edge(
    client: Agent, fleet: Fleet, tmp_path: Path
) -> None:
    edge, other = (await fleet.begin(edges=2)).edges
    async with line_to(edge) as line:
        go = tmp_path / "go"
        await client.stream(line.http(f"{STREAM}/kept"), body=str(go))
        await client.says("stream", read=9, cursor=True)
        line.edge = other
        edge.kill()
        await edge.ended()
        await client.says("stream", status="reconnecting")
        go.touch()
        await client.says("stream", ended=True)
        assert client.all("stream", "read") == [*range(11)]
        assert client.all("stream", "gap") == []


@with_each
async def test_who_comes_back_to_a_run_that_is_no_longer_kept_is_told_that_something_is_lost(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    """As a laptop does that was shut meanwhile. It must not look like the end of what was said."""
    url, go = standing.edge.http(f"{STREAM}/brief"), tmp_path / "go"
    async with line_to(standing.edge) as line:
        await client.stream(line.http(f"{STREAM}/brief"), body=str(go))
        await client.says("stream", read=9, cursor=True)
        await client.does("tell", of="stream")
        run = (await client.says("stream", "told"))["told"]
        line.edge = Nowhere()
        await line.cut()
        go.touch()

        async def forgotten() -> bool:
            return (await request(f"{url}?run={run['id']}&key={run['key']}"))[0] == 404

        await until(forgotten, "the run is forgotten")
        line.edge = standing.edge
        failed = (await client.says("stream", "failed"))["failed"]
        assert (failed["status"], run["cursor"] in failed["detail"]) == (410, True)
        assert client.all("stream", "read") == [*range(10)]


@with_each
async def test_a_run_that_is_kept_goes_on_until_it_is_cancelled(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    await client.stream(standing.edge.http(f"{STREAM}/kept"), body=str(never))
    await client.says("stream", read=9, cursor=True)
    await client.does("cancel", of="stream")
    await client.says("stream", ended=True)
    await until((tmp_path / "never cancelled").exists, "the generator was cancelled")


@with_each
@pytest.mark.parametrize("path", ["kept", "unwatched"])
async def test_a_run_is_cancelled_before_the_head_of_its_answer_has_come(
    client: Agent, standing: Fleet, tmp_path: Path, path: str
) -> None:
    """It is not enough to go away: both would go on. The head says which run it is."""
    never = tmp_path / "never"
    async with line_to(standing.edge) as line:
        await client.stream(line.http(f"{STREAM}/kinds"), **{"as": "before"})
        await client.says("before", ended=True)
        line.passing.clear()
        await client.stream(line.http(f"{STREAM}/{path}"), body=str(never))
        await until((tmp_path / "never begun").exists, "the run has begun")
        await client.does("cancel", of="stream")
        await client.says("stream", cancelling=True)
        line.passing.set()
        await client.says("stream", ended=True)
        await client.says("stream", cancelled=True)
        await until((tmp_path / "never cancelled").exists, "the generator was cancelled")
        assert client.all("stream", "read") == []


@with_each
async def test_a_connection_to_another_endpoint_ends_a_run_by_its_id_and_key(
    client: Agent, standing: Fleet, room: str, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    await client.open(standing.edge.http(room))
    await client.says("chat", status="open")
    await client.stream(standing.edge.http(f"{STREAM}/kept"), body=str(never))
    await client.says("stream", read=9)
    await client.does("tell", of="stream")
    run = (await client.says("stream", "told"))["told"]
    await client.does("end", of="chat", run=run["id"], key="another")
    assert (await client.says("chat", "error"))["error"]["status"] == 404
    await client.does("end", of="chat", run=run["id"], key=run["key"])
    await client.says("stream", ended=True)
    await until((tmp_path / "never cancelled").exists, "the generator was cancelled")


@with_each
async def test_another_attaches_to_a_run_by_its_id_and_key_behind_what_was_read(
    client: Agent, standing: Fleet, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    url = standing.edge.http(f"{STREAM}/kept")
    await client.stream(url, body=str(go))
    await client.says("stream", read=9)
    await client.does("tell", of="stream")
    run = (await client.says("stream", "told"))["told"]
    attached = f"{url}?run={run['id']}&key={run['key']}"
    await client.stream(attached, **{"as": "from the beginning"})
    await client.stream(attached, cursor=run["cursor"], **{"as": "behind"})
    await client.says("from the beginning", read=9)
    go.touch()
    for name in ("stream", "from the beginning", "behind"):
        await client.says(name, ended=True)
    assert client.all("from the beginning", "read") == [*range(11)]
    assert client.all("behind", "read") == [10]
