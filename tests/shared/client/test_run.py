"""Streams that a server keeps: cut, resumed, cancelled. The server's answers are the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fairlead.client import FairleadError, Gap, Item, Restart, Retry, Run, run, subscribe

AT_ONCE = Retry(first=0.0)

NAMED = {"fairlead-run": "r1", "fairlead-run-token": "k1"}

Reading = asyncio.Future[list[Any]]
Cancelling = asyncio.Future[None]

BEGIN = 'event: run\ndata: {"run":"r1","key":"k1"}\n\n'
END = "id: e\nevent: end\ndata: {}\n\n"


@dataclass
class Answer:
    """One answer of the server.

    Attributes:
        hold: the connection stays open after it, until the client goes.
        cut: its end is that of the connection, in mid-answer.
        never: the connection ends without one.
    """

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    cut: bool = False
    never: bool = False


def problem(status: int, **members: Any) -> Answer:
    said = json.dumps({"status": status, **members})
    return Answer(said, status, {"content-type": "application/problem+json"})


@dataclass
class Asked:
    """One request."""

    line: str
    headers: dict[str, str]
    body: str


class Scripted:
    """An HTTP server with one answer for each request, in order.

    Attributes:
        left: set when a client has gone from an answer that is held.
        heard: set when a request has come; may_answer: cleared, to have it wait for its answer.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        self.asked: list[Asked] = []
        self.left = asyncio.Event()
        self.heard = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @property
    def lines(self) -> list[str]:
        return [asked.line for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            pairs = (line.partition(": ") for line in rest)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.asked.append(Asked(first.removesuffix(" HTTP/1.1"), headers, body.decode()))
            self.heard.set()
            await self.may_answer.wait()
            await self._answer(self.answers.pop(0), reader, writer)
        finally:
            writer.close()

    async def _answer(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if answer.never:
            return
        headers = {"content-type": "text/event-stream", "connection": "close", **answer.headers}
        if answer.cut:
            headers["content-length"] = "100000"
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join([*lines, "", ""]) + answer.text).encode())
        await writer.drain()
        if answer.hold:
            assert await reader.read() == b""
            self.left.set()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    script = Scripted()
    async with await asyncio.start_server(script.serve, "127.0.0.1", 0) as listening:
        script.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ask"
        yield script


async def read(server: Scripted, start: Callable[..., Run] = run, **options: Any) -> list[Any]:
    found: list[Any] = []
    running = start(server.url, **{"retry": AT_ONCE, **options})
    running.on("gap", found.append)
    running.on("restart", found.append)
    async for item in running:
        found.append(item.data)  # noqa: PERF401  # between what the listeners append
    return found


async def _all(running: Run) -> list[Any]:
    return [item.data async for item in running]


async def test_a_run_that_is_kept_is_attached_to_again_behind_what_was_read(
    server: Scripted,
) -> None:
    server.answers = [
        Answer(f'{BEGIN}id: c1\ndata: "one"\n\nid: c2\ndata: "tw', cut=True),
        Answer(status=503, headers={"retry-after": "0"}),
        Answer(f'event: resumed\ndata: {{"recovered":true}}\n\n{BEGIN}id: c2\ndata: "two"\n\n'),
        Answer(f'event: resumed\ndata: {{"recovered":true}}\n\n{END}'),
    ]
    assert await read(server, body={"q": 1}) == ["one", "two"]
    assert server.lines == ["POST /ask", *["GET /ask?run=r1&key=k1"] * 3]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [
        None, "c1", "c1", "c2"
    ]  # fmt: skip
    first, second, *_ = server.asked
    assert (first.body, first.headers["content-type"]) == ('{"q":1}', "application/json")
    assert second.body == ""


async def test_a_run_that_is_no_longer_kept_was_not_read_to_its_end(server: Scripted) -> None:
    """A 204 alone would look like it: an EventSource has to stop there, too."""
    forgotten = Answer(status=204, headers={"fairlead-run-over": "forgotten"})
    server.answers = [Answer(f"{BEGIN}id: c1\ndata: 1\n\n"), forgotten]
    running = run(server.url, retry=AT_ONCE)
    items = aiter(running)
    assert (await anext(items)).data == 1
    with pytest.raises(FairleadError, match="no longer kept; what it said after c1 is") as caught:
        await anext(items)
    assert caught.value.status == 410


@pytest.mark.parametrize("headers", [{}, {"fairlead-run-over": "seen"}], ids=["", "seen"])
async def test_204_it_has_ended_and_all_of_it_was_read(
    server: Scripted, headers: dict[str, str]
) -> None:
    server.answers = [Answer(f"{BEGIN}id: c1\ndata: 1\n\n"), Answer(status=204, headers=headers)]
    assert await read(server) == [1]


async def test_what_a_resume_could_not_give_back_is_a_gap(server: Scripted) -> None:
    server.answers = [
        Answer(f"{BEGIN}id: c1\ndata: 1\n\n"),
        Answer(
            'event: resumed\ndata: {"recovered":false}\n\n'
            'event: gap\ndata: {"cursor":"c5"}\n\nid: c6\ndata: 6\n\n'
        ),
        Answer(END),
    ]
    assert await read(server) == [1, Gap("c1", "reconnect"), Gap("c5", "history"), 6]
    assert server.asked[2].headers["last-event-id"] == "c6"


async def test_a_restart_numbers_what_follows(server: Scripted) -> None:
    restart = 'event: restart\ndata: {"run":"r1","attempt":2}\n\n'
    server.answers = [Answer(f"data: 1\n\n{restart}id: c\nevent: n\ndata: 1\n\n{END}")]
    told: list[Restart] = []
    running = run(server.url)
    running.on("restart", told.append)
    assert [item async for item in running] == [Item(1), Item(1, "n", "c", 2)]
    assert told == [Restart("r1", 2)]


async def test_a_stream_that_is_not_kept_fails_when_it_is_cut(server: Scripted) -> None:
    """Another one would not be the same."""
    server.answers = [Answer("data: 1\n\n", cut=True, headers={"fairlead-run": "r1"})]
    with pytest.raises(FairleadError, match="broke before its end"):
        await read(server)


async def test_a_run_beside_a_room_with_history_is_not_begun_again(server: Scripted) -> None:
    """The cursors are the room's: with them another run would begin."""
    server.answers = [Answer("id: room1\ndata: 1\n\n", cut=True, headers=NAMED), Answer(END)]
    with pytest.raises(FairleadError, match="broke before its end"):
        await read(server)
    assert server.lines == ["GET /ask"]


RECOVERED = 'event: resumed\ndata: {"recovered":true}\n\n'
LATE = 'event: resumed\ndata: {"recovered":false}\n\nevent: gap\ndata: {"cursor":"c5"}\n\n'


@pytest.mark.parametrize("begin", [RECOVERED, LATE], ids=["in time", "too late for some of it"])
async def test_a_run_that_was_found_by_a_cursor_is_attached_to_again(
    server: Scripted, begin: str
) -> None:
    """The server says which it is in the head alone; that it keeps it, by what it gives back."""
    server.answers = [Answer(f"{begin}id: c6\ndata: 6\n\n", cut=True, headers=NAMED), Answer(END)]
    assert (await read(server, cursor="c3"))[-1] == 6
    assert server.lines == ["GET /ask", "GET /ask?run=r1&key=k1"]
    assert server.asked[1].headers["last-event-id"] == "c6"


async def test_who_attached_by_an_id_attaches_again(server: Scripted) -> None:
    """Also where the cut came before the first event: nothing can begin there."""
    server.url += "?run=r1&key=k1"
    server.answers = [Answer(cut=True, headers=NAMED), Answer(f"id: c4\ndata: 4\n\n{END}")]
    assert await read(server, cursor="c3") == [4]
    assert server.lines == ["GET /ask?run=r1&key=k1"] * 2


async def test_who_reads_along_a_run_that_is_not_kept_misses_what_a_cut_swallows(
    server: Scripted,
) -> None:
    server.url += "?run=r1&key=k1"
    server.answers = [Answer("data: 1\n\n", cut=True, headers=NAMED), Answer(f"data: 3\n\n{END}")]
    assert await read(server) == [1, Gap(None, "reconnect"), 3]


async def test_what_was_refused_is_a_problem_and_a_run_is_asked_for_once(server: Scripted) -> None:
    server.answers = [problem(503, detail="no worker")]
    with pytest.raises(FairleadError, match="no worker") as caught:
        await read(server)
    assert caught.value.status == 503
    server.answers = [Answer(f"{BEGIN}id: c1\ndata: 1\n\n"), problem(410)]
    with pytest.raises(FairleadError) as caught:
        await read(server)
    assert caught.value.status == 410
    server.answers = [
        Answer(f'data: 1\n\nevent: error\ndata: {{"status":500,"trace":"t"}}\n\n{END}')
    ]
    with pytest.raises(FairleadError) as caught:
        await read(server)
    assert caught.value.trace == "t"
    server.answers = [Answer("<p>a proxy", headers={"content-type": "text/html"})]
    with pytest.raises(FairleadError, match="no event stream"):
        await read(server)


async def test_a_run_whose_server_is_not_there_is_not_begun_later(server: Scripted) -> None:
    with pytest.raises(FairleadError, match="was not reached"):
        await read(server, lambda url, **options: run("http://127.0.0.1:1/ask", **options))


async def test_a_room_is_asked_for_until_it_is_there_and_again_from_where_it_was(
    server: Scripted,
) -> None:
    cursor = 'event: cursor\ndata: {"cursor":"c4"}\n\n'
    server.answers = [
        Answer(status=503),
        Answer(f"id: c1\ndata: 1\n\n{cursor}retry: 1\n\n"),
        Answer(END),
    ]
    assert await read(server, subscribe) == [1]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, None, "c4"]


async def test_a_room_without_history_has_a_gap_after_each_cut(server: Scripted) -> None:
    server.answers = [Answer("data: 1\n\n"), Answer(f"data: 2\n\n{END}")]
    assert await read(server, subscribe) == [1, Gap(None, "reconnect"), 2]


async def test_cancel_stops_the_run_by_its_key_and_ends_the_loop(server: Scripted) -> None:
    headers = {**NAMED, "fairlead-trace": "t"}
    server.answers = [Answer("data: 1\n\n", headers=headers, hold=True), Answer(status=204)]
    running = run(f"{server.url}?a=b", headers={"X-Mine": "x"}, token=lambda: "secret")
    items = aiter(running)
    assert await anext(items) == Item(1)
    await running.cancel()
    assert [item async for item in items] == []
    assert (running.id, running.key, running.trace) == ("r1", "k1", "t")
    assert server.lines == ["GET /ask?a=b", "DELETE /ask?a=b&run=r1&key=k1"]
    sent = server.asked[1].headers
    assert (sent["x-mine"], sent["authorization"]) == ("x", "Bearer secret")
    await server.left.wait()


async def test_cancel_from_elsewhere_ends_a_loop_that_waits(server: Scripted) -> None:
    server.answers = [Answer(f"{BEGIN}data: 1\n\n", hold=True), Answer(status=204)]
    running = run(server.url)
    items = aiter(running)
    await anext(items)
    waiting = asyncio.ensure_future(anext(items, None))
    await asyncio.sleep(0)  # it is begun, and waits
    await running.cancel()
    assert await waiting is None


async def test_a_cancel_that_the_server_refuses_raises(server: Scripted) -> None:
    server.answers = [Answer(f"{BEGIN}data: 1\n\n", hold=True), problem(403, detail="not yours")]
    running = run(server.url)
    async for _ in running:
        with pytest.raises(FairleadError, match="not yours"):
            await running.cancel()


async def test_a_loop_that_is_left_closes_the_stream(server: Scripted) -> None:
    server.answers = [Answer("data: 1\n\n", hold=True)]
    async for _ in run(server.url):
        break
    await server.left.wait()


async def test_begin_where_an_earlier_reader_was(server: Scripted) -> None:
    server.answers = [Answer(END)]
    assert await read(server, cursor="c3") == []
    assert server.asked[0].headers["last-event-id"] == "c3"


async def test_bytes_and_text_as_the_trigger_says_it(server: Scripted) -> None:
    server.answers = [Answer(f"event: base64\ndata: AP8=\n\ndata: {{plain\n\n{END}")]
    assert await read(server, format="text", body=b"raw") == [b"\x00\xff", "{plain"]
    assert (server.asked[0].body, "content-type" in server.asked[0].headers) == ("raw", False)


async def test_a_client_of_one_s_own_is_used_and_stays_open(server: Scripted) -> None:
    server.answers = [Answer(END), Answer(END)]
    async with httpx.AsyncClient(headers={"x-of": "mine"}) as client:
        for _ in range(2):
            assert await read(server, client=client) == []
    assert [asked.headers["x-of"] for asked in server.asked] == ["mine", "mine"]


async def test_a_client_of_one_s_own_has_the_patience_of_ours(server: Scripted) -> None:
    """Its 5 s without a byte would be too little for a model that thinks."""
    server.answers = [Answer(f"{BEGIN}data: 1\n\n", hold=True), Answer(status=204)]
    async with httpx.AsyncClient(timeout=0.0) as client:
        running = run(server.url, client=client)
        async for _ in running:
            await running.cancel()
    assert server.lines == ["GET /ask", "DELETE /ask?run=r1&key=k1"]


async def test_a_stream_is_read_once(server: Scripted) -> None:
    server.answers = [Answer(END)]
    running = run(server.url)
    assert [item async for item in running] == []
    with pytest.raises(RuntimeError, match="read once"):
        aiter(running)


async def test_what_was_cancelled_before_it_began_never_begins(server: Scripted) -> None:
    running = run(server.url)
    await running.cancel()
    assert [item async for item in running] == []
    assert server.lines == []


async def begun(
    server: Scripted, start: Callable[..., Run] = run
) -> tuple[Run, Reading, Cancelling]:
    """A stream whose request is out and unanswered, its loop, and a cancel that waits for it."""
    running = start(server.url, retry=AT_ONCE)
    reading = asyncio.ensure_future(_all(running))
    await server.heard.wait()
    cancelling = asyncio.ensure_future(running.cancel())
    await asyncio.sleep(0)  # it is begun, and waits
    return running, reading, cancelling


async def test_a_cancel_before_the_head_waits_for_it_and_stops_the_run(server: Scripted) -> None:
    server.may_answer.clear()
    server.answers = [Answer(f"{BEGIN}data: 1\n\n", headers=NAMED, hold=True), Answer(status=204)]
    _, reading, cancelling = await begun(server)
    assert not cancelling.done()
    server.may_answer.set()
    await cancelling
    assert await reading == [], "what comes after a cancel is not read"
    assert server.lines == ["GET /ask", "DELETE /ask?run=r1&key=k1"]
    await server.left.wait()


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=204), Answer("data: 1\n\n")])
async def test_a_cancel_before_the_head_of_what_began_no_run(
    server: Scripted, answer: Answer
) -> None:
    """It was refused, or is over, or is no run that could be named: there is nothing to stop."""
    server.may_answer.clear()
    server.answers = [answer]
    _, reading, cancelling = await begun(server)
    server.may_answer.set()
    await cancelling
    assert await reading == []
    assert server.lines == ["GET /ask"]


async def test_a_cancel_before_a_head_that_never_comes_raises(server: Scripted) -> None:
    """The run may have begun, and nobody says which it is."""
    server.may_answer.clear()
    server.answers = [Answer(never=True)]
    _, reading, cancelling = await begun(server)
    server.may_answer.set()
    with pytest.raises(FairleadError, match="the run may go on, as no answer came: Remote"):
        await cancelling
    assert await reading == []


async def test_a_cancel_whose_loop_is_ended_before_the_head_raises(server: Scripted) -> None:
    server.may_answer.clear()
    server.answers = [Answer(END)]
    _, reading, cancelling = await begun(server)
    reading.cancel()
    with pytest.raises(FairleadError, match="the run may go on"):
        await cancelling
    server.may_answer.set()


async def test_a_room_has_no_run_that_could_go_on(server: Scripted) -> None:
    server.may_answer.clear()
    server.answers = [Answer(never=True)]
    running, reading, cancelling = await begun(server, subscribe)
    told: list[str] = []
    running.on("status", lambda change: told.append(change.status))
    server.may_answer.set()
    await cancelling
    assert await reading == []
    assert told == ["closed"], "it is not asked for again"


async def test_a_cancel_that_does_not_reach_the_server_raises(server: Scripted) -> None:
    server.answers = [Answer(f"{BEGIN}data: 1\n\ndata: 2\n\n", hold=True)]
    hook = iter(["first", "second"])
    running = run(server.url, token=lambda: next(hook), client=Refusing())
    async for item in running:
        assert item.data == 1, "what comes after a cancel is not read"
        with pytest.raises(
            FairleadError, match="the run may go on, as no answer came: ConnectError"
        ):
            await running.cancel()


class Refusing(httpx.AsyncClient):
    """Reaches no server with a DELETE."""

    async def delete(self, *_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("no route")


async def test_what_a_token_hook_raises_the_loop_raises(server: Scripted) -> None:
    def token() -> str:
        raise TimeoutError("no token")

    with pytest.raises(TimeoutError, match="no token"):
        await read(server, token=token)
