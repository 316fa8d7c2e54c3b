"""Policies: who may come in, and what they say of who it is; on both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from support.line import LongLine, served
from support.system import Edge, NatsServer, System, request, system

TALK = "/support/realtime/talk"
WHOLE = "/support/whole/talk"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Edge]]:
    """Two edges and two workers of guarded.py, for all tests of this module."""
    async with system(nats, tmp_path_factory.mktemp("policies")) as app:
        one, two, *_ = await asyncio.gather(
            app.edge(),
            app.edge(),
            app.worker("guarded.py", "--policy-timeout", "1s"),
            app.worker("guarded.py", "--policy-timeout", "1s"),
        )
        for edge in (one, two):
            await edge.serves("/support/realtime/me")
        yield one, two


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refusal(edge: Edge, path: str) -> tuple[int, dict[str, Any]]:
    """(status, problem) of a refused handshake."""
    with pytest.raises(InvalidStatus) as refused:
        await edge.raw(path)
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


@pytest.mark.parametrize("path", [TALK, WHOLE])
@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), ("?user=mallory", 403), ("?user=boom", 500), ("?user=slow", 503)],
)
async def test_a_refused_handshake_says_why(
    edges: tuple[Edge, Edge], path: str, query: str, status: int
) -> None:
    """Before anything is accepted; a plain GET of the same URL says the same to a browser."""
    found, problem = await refusal(edges[0], path + query)
    assert (found, problem["status"]) == (status, status)
    assert "secret" not in json.dumps(problem)
    asked, headers, body = await request(edges[0].http(path + query))
    assert asked == status
    assert headers["content-type"] == "application/problem+json"
    said = json.loads(body)
    assert {**said, "trace": ""} == {**problem, "trace": ""}
    if status == 503:
        assert "retry-after" in headers


@pytest.mark.parametrize("path", [TALK, WHOLE])
async def test_a_get_of_an_endpoint_that_would_have_been_accepted_is_426(
    edges: tuple[Edge, Edge], path: str
) -> None:
    status, headers, _ = await request(edges[0].http(f"{path}?user=ann"))
    assert (status, headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), ("?user=bob", 403), ("?user=ann", 200), ("?user=boom", 500), ("?user=slow", 503)],
)
async def test_event_streams_ask_the_policies_before_their_head(
    edges: tuple[Edge, Edge], query: str, status: int
) -> None:
    async with edges[0].events(f"/support/realtime/me{query}") as stream:
        assert stream.status == status
        if status == 200:
            assert json.loads((await stream.next())["data"]) == {"id": "ann", "role": "admin"}


async def test_a_room_that_is_only_shown_is_guarded_too(edges: tuple[Edge, Edge]) -> None:
    async with edges[0].events("/support/realtime/room") as stream:
        assert stream.status == 401
    async with edges[0].events("/support/realtime/room?user=bob") as stream:
        assert stream.status == 200
        async with edges[1].v1(f"{TALK}?user=ann") as ann:
            await ann.send("hi")
            assert (await stream.next())["event"] == "cursor"
            assert "subject" in json.loads((await stream.next())["data"])


async def test_a_post_is_asked_about_as_well(edges: tuple[Edge, Edge]) -> None:
    status, _, _ = await request(edges[0].http("/support/realtime/post"), b"x", "POST")
    assert status == 401
    status, _, body = await request(edges[0].http("/support/realtime/post?user=bob"), b"x", "POST")
    assert status == 200
    assert b'data: "x"' in body


async def test_the_subject_is_in_ctx_on_messages_and_in_from_on_any_worker(
    edges: tuple[Edge, Edge],
) -> None:
    async with edges[0].v1(f"{TALK}?user=ann") as ann, edges[1].v1(f"{TALK}?user=bob") as bob:
        workers = set()
        for _ in range(40):
            await ann.send("hi")
            heard = await bob.until("message")
            assert heard["from"] == "ann"
            assert heard["data"]["subject"] == {"id": "ann", "role": "admin"}
            assert heard["data"]["same"] is True
            workers.add(heard["data"]["worker"])
    assert len(workers) == 2, "policies ran on one of them, messages on both"


async def test_the_run_of_a_connection_knows_its_subject(edges: tuple[Edge, Edge]) -> None:
    async with edges[0].v1(f"{WHOLE}?user=ann") as ann:
        opened = await ann.until("message")
        assert opened["data"] == {"subject": {"id": "ann", "role": "admin"}, "attempt": 1}
        await ann.send("hi")
        assert (await ann.until("message"))["data"] == {"said": "hi", "by": "ann"}


async def test_direct_reaches_every_connection_of_a_subject(edges: tuple[Edge, Edge]) -> None:
    """On whatever edge; `from` is the sender's subject. Nobody of that name is 404."""
    path = "/support/direct/talk"
    async with (
        edges[0].v1(f"{path}?user=ann") as ann,
        edges[0].v1(f"{path}?user=bob") as bob,
        edges[1].v1(f"{path}?user=bob") as bob_again,
    ):
        await ann.send("bob hello")
        await ann.until("ack")
        for each in (bob, bob_again):
            heard = await each.until("message")
            assert (heard["data"], heard["from"]) == ("hello", "ann")
        await ann.send(f"{bob.id} only you")
        assert (await bob.until("message"))["data"] == "only you"
        await ann.send("carol hello")
        assert (await ann.until("error"))["error"]["status"] == 404
    async with edges[0].v1(f"{path}?user=ann") as ann:
        await ann.send("bob are you there")
        assert (await ann.until("error"))["error"]["status"] == 404, "bob has left"


async def test_who_is_welcomed_can_be_spoken_to(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also over an edge that is far from NATS, to which it has to say first whom it listens for."""
    async with (
        system(nats, tmp_path_factory.mktemp("far")) as app,
        served(LongLine(nats, "127.0.0.1", 0.2)) as line,
    ):
        near, far, _ = await asyncio.gather(
            app.edge(),
            app.edge(env={"FAIRLEAD_NATS": f"nats://127.0.0.1:{line.port}"}),
            app.worker("guarded.py", "--policy-timeout", "5s"),
        )
        for edge in (near, far):
            await edge.serves("/support/realtime/me")
        path = "/support/direct/talk"
        async with near.v1(f"{path}?user=ann") as ann, far.v1(f"{path}?user=bob") as bob:
            await ann.send("bob hello")
            await ann.until("ack")
            assert (await bob.until("message"))["data"] == "hello"


async def test_a_client_that_leaves_during_the_check_leaves_nothing(
    edges: tuple[Edge, Edge],
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", edges[0].port)
    writer.write(
        f"GET {WHOLE}?user=slow HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await writer.drain()
    writer.close()
    async with edges[0].v1(f"{WHOLE}?user=ann") as ann:
        assert (await ann.until("message"))["data"]["attempt"] == 1


async def test_policies_are_not_asked_again_when_a_run_opens_elsewhere(app: System) -> None:
    edge, first = await asyncio.gather(app.edge(), app.worker("guarded.py"))
    await edge.serves("/support/realtime/me")
    async with edge.v1(f"{WHOLE}?user=ann") as ann:
        await ann.until("message")
        await app.worker("guarded.py")
        await first.stop()
        await ann.until("restart")
        again = await ann.until("message")
        assert again["data"] == {"subject": {"id": "ann", "role": "admin"}, "attempt": 2}


async def test_without_a_worker_nobody_is_let_in(app: System) -> None:
    """Who would ask the policies? Both scopes, event streams, and a room that is only shown."""
    edge, worker = await asyncio.gather(
        app.edge("--worker-wait", "500ms"), app.worker("guarded.py")
    )
    await edge.serves("/support/realtime/me")
    worker.kill()
    await worker.ended()
    streams = ("/support/realtime/me?user=ann", "/support/realtime/room?user=ann")
    for path in (f"{TALK}?user=ann", f"{WHOLE}?user=ann", *streams):
        status, headers, body = await request(edge.http(path))
        assert (status, json.loads(body)["status"]) == (503, 503)
        assert "retry-after" in headers
    for path in (f"{TALK}?user=ann", f"{WHOLE}?user=ann"):
        found, problem = await refusal(edge, path)
        assert (found, problem["status"]) == (503, 503)
