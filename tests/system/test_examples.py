"""The programs of examples/, over two edges and two workers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from support.system import Edge, NatsServer, System, request, system, until

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = "/support/realtime"

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def two_of_each(app: System, example: str, **env: str) -> tuple[Edge, Edge]:
    """Two edges with two workers of an example behind them."""
    target = str(EXAMPLES / example)
    one, two, *_ = await asyncio.gather(
        app.edge(), app.edge(), app.worker(target, env=env), app.worker(target, env=env)
    )
    return one, two


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Edge]]:
    async with system(nats, tmp_path_factory.mktemp("seed")) as app:
        one, two = await two_of_each(app, "seed.py")
        for edge in (one, two):
            await edge.serves(f"{SEED}/valid")
        yield one, two


Edges = tuple[Edge, Edge]


async def test_stream_sse(edges: Edges) -> None:
    async with edges[0].events(f"{SEED}/stream?channel=blue") as stream:
        first, second = [json.loads((await stream.next())["data"]) for _ in range(2)]
        assert (first["channel"], second["channel"]) == ("blue", "blue")
        assert first["time"] < second["time"]
    async with edges[1].events(f"{SEED}/stream") as stream:
        assert stream.status == 200, "what execute finds out, it finds out after the head"
        error = await stream.next()
        assert (error["event"], json.loads(error["data"])["status"]) == ("error", 400)


async def test_stream_sse_with_an_injected_channel(edges: Edges) -> None:
    async with edges[1].events(f"{SEED}/valid?channel=blue") as stream:
        assert json.loads((await stream.next())["data"])["channel"] == "blue"
    status, headers, body = await request(edges[0].http(f"{SEED}/valid"))
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["errors"] == [
        {"loc": ["query", "channel"], "msg": "Field required", "type": "missing"}
    ]


async def test_echo_websocket(edges: Edges) -> None:
    async with edges[0].raw(f"{SEED}/echo") as one, edges[1].raw(f"{SEED}/echo") as two:
        await one.send("mine")
        await two.send(b"\x00other")
        assert await one.recv() == "mine"
        assert await two.recv() == b"\x00other"


async def test_broadcast_websocket(edges: Edges) -> None:
    path = f"{SEED}/broadcast?channel=blue"
    async with (
        edges[0].raw(path) as ann,
        edges[1].raw(path) as bob,
        edges[1].raw(f"{SEED}/broadcast?channel=red") as eve,
    ):
        await ann.send("hello blue")
        assert [await ann.recv(), await bob.recv()] == ["hello blue"] * 2
        await eve.send("hello red")
        assert await eve.recv() == "hello red", "nothing of the other room came before"


async def test_one_to_one_websocket(edges: Edges) -> None:
    async with edges[0].v1(f"{SEED}/direct") as ann, edges[1].v1(f"{SEED}/direct") as bob:
        await ann.send("who am I")
        assert (await ann.until("message"))["data"]["you"] == ann.id
        await ann.send({"to": bob.id, "text": "psst"})
        heard = await bob.until("message")
        assert (heard["data"], heard["from"]) == ({"text": "psst"}, ann.id)
        await ann.send({"to": "nobody", "text": "psst"})
        assert (await ann.until("error"))["error"]["status"] == 404


async def test_stream_chat_websocket(edges: Edges) -> None:
    async with edges[0].v1(f"{SEED}/lobby") as ann:
        assert (await ann.until("message", **{"from": ann.id}))["data"]["tick"] == 0
        async with edges[1].v1(f"{SEED}/lobby") as bob:
            bob_id = bob.id
            await bob.send("hi")
            while (await ann.until("message", **{"from": bob_id}))["data"] != {"says": "hi"}:
                pass
        while (await ann.until("message"))["data"] != {"left": bob_id}:
            pass


async def test_stream_errors_logging(edges: Edges) -> None:
    """An error of any worker reaches a reader on any other."""
    async with edges[0].events(f"{SEED}/errors") as stream:
        assert json.loads((await stream.next())["data"]) == {"alive": 0}
        async with edges[1].v1(f"{SEED}/announce") as client:
            processes: set[str] = set()
            while len(processes) < 2:
                await client.send("fail")
                failed = (await client.until("error"))["error"]
                error = json.loads((await stream.next())["data"])
                while error["trace"] != failed["trace"]:  # an attempt that was late, and failed too
                    error = json.loads((await stream.next())["data"])
                processes.add(error.pop("process"))
                assert error == {
                    "type": "RuntimeError",
                    "message": "asked to fail",
                    "workflow": "Support/AnnounceWebsocket",
                    "trace": failed["trace"],
                }


async def test_a_token_stream_of_words(edges: Edges) -> None:
    status, _, body = await request(edges[0].http(f"{SEED}/answer"), b"why?", "POST")
    assert status == 200
    words = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    assert "".join(words[:-1]).startswith("You asked: why? I would say")
    assert body.endswith(b"data: {}\n\n")


async def test_an_announcement_is_for_the_others(edges: Edges) -> None:
    path = f"{SEED}/announce?channel=hall"
    async with edges[0].v1(path) as ann, edges[1].v1(path) as bob:
        await ann.send("lunch")
        assert (await bob.until("message"))["data"] == {"announcement": "lunch"}
        await bob.send("later")
        assert (await ann.until("message"))["data"] == {"announcement": "later"}


# examples/tokens.py


TOKENS = "/assistant/chat/tokens"


async def test_tokens_of_the_made_up_model(nats: NatsServer, tmp_path: Path) -> None:
    async with system(nats, tmp_path) as app:
        one, two = await two_of_each(app, "tokens.py", TOKEN_PAUSE="0.001")
        await asyncio.gather(one.serves(TOKENS), two.serves(TOKENS))
        for edge in (one, two):
            async with edge.events(TOKENS, method="POST", body=b'{"prompt":"why?"}') as stream:
                said, event = [], await stream.next()
                while "event" not in event:
                    said.append(json.loads(event["data"]))
                    event = await stream.next()
                assert "".join(said).startswith("A good question. why?")
                assert event == {"event": "usage", "data": f'{{"tokens":{len(said)}}}'}
                assert (await stream.next())["event"] == "end"
        status, _, body = await request(one.http(TOKENS), b'{"prompt":""}', "POST")
        assert (status, json.loads(body)["errors"][0]["loc"]) == (400, ["body", "prompt"])


class FakeOpenAI:
    """A server that speaks the streaming part of OpenAI's API, for as long as it is read."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.left = asyncio.Event()

    async def completions(self, request: Request) -> StreamingResponse:
        self.asked.append(await request.json())

        async def tokens() -> AsyncIterator[str]:
            number = 0
            try:
                while True:
                    chunk = {"choices": [{"delta": {"content": f"t{number} "}}]}
                    yield f"data: {json.dumps(chunk)}\n\n"
                    number += 1
                    await asyncio.sleep(0.01)
            finally:
                self.left.set()

        return StreamingResponse(tokens(), media_type="text/event-stream")


@asynccontextmanager
async def fake_openai() -> AsyncIterator[tuple[FakeOpenAI, str]]:
    fake = FakeOpenAI()
    app = Starlette(routes=[Route("/v1/chat/completions", fake.completions, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        try:
            yield fake, f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            await serving


async def test_tokens_of_a_real_model_stop_when_the_client_goes(
    nats: NatsServer, tmp_path: Path
) -> None:
    """To the model's own server: nothing is paid for what nobody reads."""
    async with fake_openai() as (fake, url), system(nats, tmp_path) as app:
        one, _ = await two_of_each(app, "tokens.py", OPENAI_BASE_URL=url, MODEL="test")
        await one.serves(TOKENS)
        async with one.events(TOKENS, method="POST", body=b'{"prompt":"why?"}') as stream:
            assert [json.loads((await stream.next())["data"]) for _ in range(3)] == [
                "t0 ", "t1 ", "t2 ",
            ]  # fmt: skip
            assert fake.asked[0]["model"] == "test"
            assert not fake.left.is_set()
        await until(fake.left.is_set, "the model's server is left")
