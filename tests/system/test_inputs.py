"""Injected inputs: validated before the first byte; messages when they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from support.system import Edge, NatsServer, request, system

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with system(nats, tmp_path_factory.mktemp("inputs")) as app:
        edge, _ = await asyncio.gather(app.edge(), app.worker("guarded.py"))
        await edge.serves("/support/realtime/order")
        yield edge


async def test_inputs_are_converted_and_defaults_filled_in(edge: Edge) -> None:
    path = "/support/realtime/inputs/7?name=blue&many=1&many=2"
    async with edge.events(path, headers={"User-Agent": "me/1"}) as stream:
        assert stream.status == 200
        assert json.loads((await stream.next())["data"]) == [7, "blue", "me/1", [1, 2], 10]


async def test_all_that_is_wrong_is_listed_before_the_head(edge: Edge) -> None:
    status, headers, body = await request(
        edge.http("/support/realtime/inputs/seven?many=x&limit=1.5"), headers={"User-Agent": "me"}
    )
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    errors = json.loads(body)["errors"]
    assert {tuple(error["loc"]) for error in errors} >= {
        ("path", "number"), ("query", "name"), ("query", "limit"),
    }  # fmt: skip
    assert all(set(error) == {"loc", "msg", "type"} for error in errors)


async def test_a_body_is_validated_against_its_model(edge: Edge) -> None:
    url = edge.http("/support/realtime/order")
    status, _, body = await request(url, b'{"name":"tea","count":2}', "POST")
    assert status == 200
    assert b'data: {"ordered":"tea","count":2}' in body
    status, _, body = await request(url, b'{"name":"tea"}', "POST")
    assert status == 400
    assert json.loads(body)["errors"][0]["loc"] == ["body", "count"]
    status, _, body = await request(url, b"not json", "POST")
    assert (status, json.loads(body)["errors"][0]["loc"][0]) == (400, "body")


@pytest.mark.parametrize("path", ["/support/realtime/orders/1", "/support/realtime/wholeorders"])
async def test_a_handshake_with_wrong_inputs_is_refused(edge: Edge, path: str) -> None:
    """Of both scopes; a plain GET says the same."""
    with pytest.raises(InvalidStatus) as refused:
        await edge.raw(path)
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["errors"][0]["loc"] == ["query", "lang"]
    status, _, body = await request(edge.http(path))
    assert (status, json.loads(body)["errors"][0]["loc"]) == (400, ["query", "lang"])
    async with edge.raw(f"{path}?lang=en"):
        pass


async def test_an_invalid_message_is_an_error_frame_and_the_connection_stays(edge: Edge) -> None:
    async with edge.v1("/support/realtime/orders/5?lang=en") as client:
        bad = await client.send({"name": "tea", "count": "many"})
        error = await client.until("error")
        assert (error["ref"], error["error"]["status"]) == (bad, 400)
        assert error["error"]["errors"][0]["loc"] == ["count"]
        assert "many" not in json.dumps(error), "what the client sent is not repeated"
        await client.send({"name": "tea", "count": 2})
        assert (await client.until("message"))["data"] == {"name": "tea", "shop": 5, "lang": "en"}
    async with edge.raw("/support/realtime/orders/5?lang=en") as raw:
        await raw.send("no json")
        assert json.loads(await raw.recv())["error"]["status"] == 400
        await raw.send('{"name":"tea","count":2}')
        assert json.loads(await raw.recv())["name"] == "tea"


async def test_inputs_reach_the_run_of_a_connection(edge: Edge) -> None:
    async with edge.raw("/support/realtime/wholeorders?lang=fr") as client:
        await client.send("thé")
        assert await client.recv() == "fr thé"
