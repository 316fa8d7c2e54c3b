"""A connection that is lost, refused, drained: a WebSocket server whose words are the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast

import pytest
import pytest_asyncio
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from fairlead.client import (
    Connection,
    ConnectOptions,
    FairleadError,
    Gap,
    Message,
    Retry,
    StatusChange,
    connect,
)
from fairlead.client.clock import Moment
from fairlead.protocol.frames import SUBPROTOCOL
from fairlead.testing.program import DEADLINE
from fairlead.testing.waiting import until

AT_ONCE = Retry(first=0.0)

Respond = Callable[[ServerConnection, Request], Response | None]


class Peer:
    """One connection, as the server has it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    @property
    def path(self) -> str:
        assert self.socket.request is not None
        return self.socket.request.path

    async def says(self, type: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **members}))

    async def welcome(self, **members: Any) -> None:
        known = {"connection": "c", "cursor": None, "recovered": None, "window": 16}
        await self.says("welcome", **{**known, **members})

    async def hears(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            return cast(dict[str, Any], json.loads(await self.socket.recv()))

    async def closes(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    def cuts(self) -> None:
        self.socket.transport.abort()


class Scripted:
    """Takes connections, and hands them to the test in order.

    Attributes:
        respond: answers a handshake instead, where it returns something.
        asked: the path of each handshake.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.respond: Respond = lambda _, __: None
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def take(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self._peers.put_nowait(peer)
        await socket.wait_closed()

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        self.asked.append(request.path)
        return self.respond(socket, request)

    async def peer(self) -> Peer:
        async with asyncio.timeout(DEADLINE):
            return await self._peers.get()


@asynccontextmanager
async def listening(script: Scripted, **options: Any) -> AsyncIterator[Server]:
    async with serve(
        script.take, "127.0.0.1", 0, process_request=script.answer, compression=None, **options
    ) as server:
        script.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/room?channel=a"
        yield server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    script = Scripted()
    async with listening(script, subprotocols=[SUBPROTOCOL]):
        yield script


@asynccontextmanager
async def connected(
    server: Scripted, **options: Any
) -> AsyncIterator[tuple[Connection, Peer, list[StatusChange]]]:
    """A connection that was welcomed, its other end, and what became of it so far."""
    given = cast(ConnectOptions, {"retry": AT_ONCE, **options})
    async with connect(server.url, **given) as made:
        statuses: list[StatusChange] = []
        made.on("status", statuses.append)
        peer = await server.peer()
        await peer.welcome(cursor="k 0")
        await until(lambda: made.status == "open", "it is open")
        yield made, peer, statuses


def names(statuses: list[StatusChange]) -> list[str]:
    return [change.status for change in statuses]


async def test_it_comes_back_where_it_was_and_says_again_what_was_not_acknowledged(
    server: Scripted,
) -> None:
    async with connected(server) as (made, peer, statuses):
        sent = made.send("hello", id="mine", traceparent="00-1")
        frame = {"type": "message", "id": "mine", "data": "hello", "traceparent": "00-1"}
        assert await peer.hears() == {**frame, "ref": 1}
        peer.cuts()
        second = await server.peer()
        assert [peer.path, second.path] == ["/room?channel=a", "/room?channel=a&cursor=k+0"]
        await second.welcome(cursor="k 0", recovered=True)
        assert await second.hears() == {**frame, "ref": 2}
        await second.says("ack", ref=2)
        assert (await sent).id == "mine"
        assert names(statuses) == ["open", "reconnecting", "open"]


@pytest.mark.parametrize("code", [1008, 4500, 4501])
async def test_a_final_close_code_ends_it_and_its_loop(server: Scripted, code: int) -> None:
    async with connected(server) as (made, peer, statuses):
        sent = made.send("hello")
        await peer.closes(code, "why")
        with pytest.raises(FairleadError) as unsent:
            await sent
        with pytest.raises(FairleadError) as ended:
            await anext(aiter(made))
        assert [message async for message in made] == []
        for error in (unsent.value, ended.value, await made.wait_closed()):
            assert error is not None
            assert (error.code, error.detail) == (code, "why")
        assert statuses[-1].status == made.status == "closed"


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4001, 4003, 4499])
async def test_after_other_codes_it_comes_back(server: Scripted, code: int) -> None:
    async with connected(server) as (_, peer, _statuses):
        await peer.closes(code)
        await server.peer()


async def test_the_end_of_the_run_is_the_end_of_the_loop(server: Scripted) -> None:
    async with connected(server) as (made, peer, _):
        await peer.says("message", id=None, run="r", data="one")
        await peer.says("end", run="r")
        await peer.closes(1000)
        assert [message async for message in made] == [Message("one", run="r")]
        assert await made.wait_closed() is None


async def test_a_refused_handshake_says_why(server: Scripted) -> None:
    def refuse(socket: ServerConnection, _: Request) -> Response:
        answer = socket.respond(HTTPStatus.FORBIDDEN, '{"status":403,"detail":"not you"}')
        del answer.headers["content-type"]
        answer.headers["content-type"] = "application/problem+json"
        return answer

    server.respond = refuse
    async with connect(server.url) as made:
        with pytest.raises(FairleadError, match="not you") as caught:
            await anext(aiter(made))
        assert caught.value.status == 403
        with pytest.raises(FairleadError, match="the connection is closed"):
            await made.send("too late")


async def test_a_server_that_has_no_room_is_asked_when_it_said(server: Scripted) -> None:
    def refuse(socket: ServerConnection, _: Request) -> Response | None:
        if len(server.asked) > 1:
            return None
        answer = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no worker")
        answer.headers["retry-after"] = "0.01"
        return answer

    server.respond = refuse
    statuses: list[StatusChange] = []
    async with connect(server.url, retry=AT_ONCE) as made:
        made.on("status", statuses.append)
        await server.peer()
    assert statuses[0] == StatusChange("reconnecting", 0.01)


async def test_a_drained_server_says_when_to_come_back(server: Scripted) -> None:
    async with connected(server, retry=Retry(first=100.0, longest=100.0)) as (_, peer, statuses):
        await peer.says("reconnect", within=20)
        await peer.closes(1012)
        await server.peer()
        assert statuses[1].pause is not None
        assert statuses[1].pause <= 0.02


async def test_what_a_drained_server_said_is_of_one_return(server: Scripted) -> None:
    """Those who come back to what is not there yet, as behind a balancer, spread out further."""
    async with connected(server, retry=Retry(first=1e9, longest=1e9)) as (_, peer, statuses):
        await peer.says("reconnect", within=20)
        await peer.closes(1012)
        await (await server.peer()).closes(1012)
        await until(lambda: names(statuses).count("reconnecting") == 2, "it was lost again")
    drained, lost = (each.pause for each in statuses if each.status == "reconnecting")
    assert drained is not None
    assert lost is not None
    assert drained <= 0.02 < lost


async def test_a_token_is_asked_for_before_each_attempt(server: Scripted) -> None:
    numbers = iter(range(1, 10))

    async def token() -> str:
        return f"secret {next(numbers)}"

    async with connected(server, token=token) as (made, peer, _):
        await made.refresh()
        assert await peer.hears() == {"type": "refresh", "token": "secret 2"}
        peer.cuts()
        await server.peer()
    assert [path.partition("access_token=")[2] for path in server.asked] == ["secret+1", "secret+3"]


async def test_a_token_that_cannot_be_had_is_an_event_and_asked_for_again(server: Scripted) -> None:
    asked: list[None] = []

    def token() -> str:
        asked.append(None)
        if len(asked) == 1:
            raise OSError("away")
        return "secret"

    errors: list[FairleadError] = []
    made = connect(server.url, token=token, retry=AT_ONCE)
    made.on("error", errors.append)
    async with made:
        await server.peer()
    assert [str(error) for error in errors] == ["no token: away"]


async def test_the_pause_may_be_cut_short(server: Scripted) -> None:
    async with connected(server, retry=Retry(1000.0, 1000.0)) as (made, peer, _):
        peer.cuts()
        await until(lambda: made.status == "reconnecting", "it has noticed")
        made.reconnect()
        (await server.peer()).cuts()
        made.on("status", lambda _: made.reconnect())
        await server.peer()


async def test_what_is_no_edge_of_ours_is_named(server: Scripted) -> None:
    other = Scripted()
    async with listening(other), connect(other.url) as made:
        with pytest.raises(FairleadError, match=r"does not speak fairlead\.v1"):
            await anext(aiter(made))


@pytest.mark.parametrize("host", ["127.0.0.1:99999", f"{'a' * 64}.example"], ids=["port", "host"])
async def test_what_can_never_be_reached_is_an_error_that_says_why(host: str) -> None:
    async with connect(f"ws://{host}/room") as made:
        sent = made.send("hello")
        with pytest.raises(FairleadError, match="no connection can be made") as caught:
            await anext(aiter(made))
        assert caught.value.__cause__ is not None
        with pytest.raises(FairleadError, match="no connection can be made"):
            await sent
    assert await made.wait_closed() is caught.value


NONSENSE = [
    "not JSON",
    '{"type":"ack"}',
    "[]",
    '{"type":"message","data":"a","encoding":"base64"}',
    '{"type":"error","error":"no problem"}',
]


@pytest.mark.parametrize("frame", NONSENSE)
async def test_a_server_that_talks_nonsense_is_left(server: Scripted, frame: str) -> None:
    async with connected(server) as (made, peer, _):
        await peer.socket.send(frame)
        with pytest.raises(FairleadError, match=r"no frame of fairlead\.v1"):
            await anext(aiter(made))


async def test_too_much_at_once_or_too_large_fails_without_being_sent(server: Scripted) -> None:
    async with connected(server, queue=2) as (made, peer, _):
        errors: list[FairleadError] = []
        made.on("error", errors.append)
        large = made.send("x" * (2**20 + 1))
        with pytest.raises(FairleadError) as caught:
            await large
        assert caught.value.status == 413
        made.send(1)
        made.send(2)
        unwatched = made.send(3)
        await until(lambda: errors, "nobody awaited it")
        assert [(error.id, error.detail) for error in errors] == [
            (unwatched.id, "2 messages are on their way already")
        ]
        assert [(await peer.hears())["data"] for _ in range(2)] == [1, 2]


async def test_a_message_that_waits_is_a_status(server: Scripted) -> None:
    async with connected(server) as (made, peer, statuses):
        sent = made.send("hello")
        await peer.says("waiting", ref=1)
        await peer.says("ack", ref=1)
        await sent
    assert names(statuses) == ["open", "waiting", "open", "closed"]


async def test_messages_that_nobody_reads_are_bounded_with_a_gap(server: Scripted) -> None:
    gaps: list[Gap] = []
    async with connected(server, buffer=2) as (made, peer, _):
        made.on("gap", gaps.append)
        for number in range(1, 6):
            await peer.says("message", id=f"k{number}", data=number)
        await until(lambda: made.cursor == "k5", "all came")
    assert gaps == [Gap("k3", "unread")]
    assert [message.data async for message in made] == [4, 5]


async def test_a_reader_that_keeps_up_misses_nothing_of_a_burst(server: Scripted) -> None:
    """As when all that was missed is replayed: many frames in one piece of the network."""
    said = [{"type": "message", "id": f"k{number}", "data": number} for number in range(2000)]
    frames = [Frame(Opcode.TEXT, json.dumps(each).encode()) for each in said]
    gaps: list[Gap] = []
    async with connected(server, buffer=10) as (made, peer, _):
        made.on("gap", gaps.append)
        peer.socket.transport.write(b"".join(frame.serialize(mask=False) for frame in frames))
        read: list[int] = []
        async with asyncio.timeout(DEADLINE):
            async for message in made:
                read.append(message.data)
                if message.data == said[-1]["data"]:
                    break
    assert read == [*range(2000)]
    assert gaps == []


async def test_a_run_is_cancelled_by_its_id_another_s_with_its_key(server: Scripted) -> None:
    async with connected(server) as (made, peer, _):
        await made.cancel("r")
        await made.cancel("q", "k")
        assert await peer.hears() == {"type": "cancel", "run": "r"}
        assert await peer.hears() == {"type": "cancel", "run": "q", "key": "k"}


async def test_who_cannot_be_asked_to_cancel_a_run_is_an_error(server: Scripted) -> None:
    async with connected(server, retry=Retry(1e9, 1e9)) as (made, peer, _):
        peer.cuts()
        await until(lambda: made.status == "reconnecting", "it has noticed")
        with pytest.raises(FairleadError, match=r"not open.*the run may go on"):
            await made.cancel("r")
        await made.refresh("fresh")  # the next attempt asks for one of its own
    with pytest.raises(FairleadError, match=r"not open.*the run may go on"):
        await made.cancel("r")


async def test_a_cancel_that_meets_the_end_of_its_connection_is_an_error(server: Scripted) -> None:
    async with connected(server, retry=Retry(1e9, 1e9)) as (made, _peer, _):
        made._socket = Gone()  # type: ignore[assignment]  # as in the moment before that is noticed
        with pytest.raises(FairleadError, match="the run may go on"):
            await made.cancel("r")


class Gone:
    """A socket whose end has just come."""

    async def send(self, _: str) -> None:
        raise ConnectionClosedError(None, None)


async def test_leaving_ends_its_tasks_and_says_good_bye(server: Scripted) -> None:
    before = asyncio.all_tasks()
    async with connected(server) as (made, peer, _):
        sent = made.send("hello")
    with pytest.raises(FairleadError, match="closed before the answer came"):
        await sent
    await peer.socket.wait_closed()
    assert peer.socket.close_code == 1000
    mine = {task for task in asyncio.all_tasks() - before if "fairlead" in task.get_name()}
    assert (mine, made.status) == (set(), "closed")


@pytest.mark.parametrize("moment", ["before it began", "connecting", "reconnecting"])
async def test_it_may_be_left_at_any_moment(server: Scripted, moment: str) -> None:
    async with connect(server.url, retry=Retry(1000.0, 1000.0)) as made:
        if moment == "connecting":
            await server.peer()
        if moment == "reconnecting":
            (await server.peer()).cuts()
            await until(lambda: made.status == "reconnecting", "it has noticed")
    assert made.status == "closed"
    assert await made.wait_closed() is None
    await made.close()


async def test_nothing_is_said_over_what_was_not_entered(server: Scripted) -> None:
    with pytest.raises(RuntimeError, match="async with connect"):
        connect(server.url).send("hello")


async def test_what_came_of_a_run_before_its_restart_is_not_read(server: Scripted) -> None:
    async with connected(server) as (made, peer, _):
        assert made.id == "c"
        await peer.says("message", id=None, run="r", data="old")
        await peer.says("restart", run="r", attempt=2)
        await peer.says("message", id=None, run="r", data="new")
        await peer.says("end", run="r")
        await peer.closes(1000)
        await made.wait_closed()
        assert [(each.data, each.attempt) async for each in made] == [("new", 2)]


async def test_while_nobody_is_there_it_goes_on_trying() -> None:
    script = Scripted()
    async with listening(script, subprotocols=[SUBPROTOCOL]):
        url = script.url
    pauses: list[float | None] = []
    made = connect(url, retry=AT_ONCE)
    made.on("status", lambda change: pauses.append(change.pause))
    async with made:
        await made.refresh()  # no token, no connection: nothing to say
        await until(lambda: len(pauses) >= 3, "it tried again")


async def test_what_comes_before_the_welcome_does_not_open_it(server: Scripted) -> None:
    async with connect(server.url) as made:
        peer = await server.peer()
        await peer.says("of a later version")
        assert made.status == "connecting"
        await peer.welcome()
        await until(lambda: made.status == "open", "it is open")


async def test_closing_what_was_not_entered_is_no_error(server: Scripted) -> None:
    made = connect(server.url)
    await made.close()
    assert made.status == "closed"


class LongLived(Connection):
    """A connection for which seconds go by like hours."""

    def now(self) -> Moment:
        return Moment(*(seconds * 3600 for seconds in super().now()))


async def test_a_loss_after_a_while_is_a_first_one_again(server: Scripted) -> None:
    pauses: list[float] = []
    async with LongLived(server.url, {"retry": Retry(first=0.001, longest=0.1)}) as made:
        made.on("status", lambda change: pauses.append(change.pause or 0.0))
        for _ in range(12):
            peer = await server.peer()
            await peer.welcome()
            await until(lambda: made.status == "open", "it is open")
            peer.cuts()
            await until(lambda: made.status != "open", "it has noticed")
    assert max(pauses) <= 0.001
