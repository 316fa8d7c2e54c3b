"""Every answer that refuses or reports: HTTP statuses, problem bodies, and what they don't say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets

from fairlead.protocol.problems import MAX_MESSAGE
from fairlead.testing.program import DEADLINE
from support.system import (
    Edge,
    NatsServer,
    Worker,
    edge_and_worker,
    request,
    system,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Worker]]:
    async with edge_and_worker(nats, tmp_path_factory.mktemp("outcomes")) as both:
        yield both


@pytest.fixture
def edge(running: tuple[Edge, Worker]) -> Edge:
    return running[0]


@pytest.fixture
def worker(running: tuple[Edge, Worker]) -> Worker:
    return running[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deserted(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Edge]:
    """An edge that knows the routes of a worker that is gone."""
    async with system(nats, tmp_path_factory.mktemp("deserted")) as app:
        worker = await app.worker()
        await worker.stop()
        yield await app.edge("--worker-wait", "1s")


def problem(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The problem (RFC 9457) in an answer of this status."""
    assert headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(body)
    assert found["status"] == status
    assert found["type"] == "about:blank"
    assert found["title"]
    return found


async def refused(edge: Edge, path: str, **asked: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """(problem, headers) of a request that is not served."""
    status, headers, body = await request(edge.http(path), **asked)
    return problem(status, headers, body), headers


async def not_upgraded(edge: Edge, path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(problem, headers) of a handshake that is refused."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with asyncio.timeout(DEADLINE), edge.raw(path):
            pass
    answer = caught.value.response
    headers = {name.lower(): value for name, value in answer.headers.raw_items()}
    return problem(answer.status_code, headers, bytes(answer.body or b"")), headers


async def exchange(edge: Edge, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers in lower case, body) for bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(DEADLINE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            pairs = [line.partition(":") for line in lines if line]
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body
    finally:
        writer.close()


# Before anything is accepted


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/support",
        "/support/realtime",
        "/support/realtime/unknown",
        "/support/realtime/echo/more",
        "/support/realtime/echo/",
        "/support/stream/value/",
        "/Support/realtime/echo",
        "//support/realtime/echo",
    ],
)
async def test_an_unknown_path_is_404_on_both_transports(edge: Edge, path: str) -> None:
    found, _ = await refused(edge, path)
    assert (found["status"], found["title"]) == (404, "Not Found")
    found, _ = await not_upgraded(edge, path)
    assert found["status"] == 404


async def test_a_websocket_on_an_sse_path_is_404(edge: Edge) -> None:
    found, _ = await not_upgraded(edge, "/support/stream/value")
    assert found["status"] == 404


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/support/stream/value", "POST", "GET"),
        ("/support/stream/post", "GET", "POST"),
        ("/support/stream/kinds", "PUT", "GET, POST"),
        ("/support/stream/kinds", "DELETE", "GET, POST"),
    ],
)
async def test_another_method_is_405_and_allow_names_those_that_are_served(
    edge: Edge, path: str, method: str, allowed: str
) -> None:
    found, headers = await refused(edge, path, method=method)
    assert found["status"] == 405
    assert headers["allow"] == allowed


async def test_a_post_on_a_websocket_path_is_405(edge: Edge) -> None:
    found, headers = await refused(edge, "/support/realtime/echo", method="POST", data=b"x")
    assert found["status"] == 405
    assert "allow" in headers


async def test_a_body_of_1_mib_passes_and_a_byte_more_is_413(edge: Edge) -> None:
    path, headers = "/support/stream/post", {"X-Test": "x"}
    body = b"b" * MAX_MESSAGE
    async with edge.events(path, method="POST", body=body, headers=headers) as stream:
        assert json.loads((await stream.next())["data"])["size"] == MAX_MESSAGE
    async with edge.events(path, method="POST", body=body + b"b", headers=headers) as stream:
        assert stream.status == 413
        assert stream.headers["content-type"] == "application/problem+json"


async def test_a_body_that_does_not_announce_its_size_is_413_too(edge: Edge) -> None:
    head = b"POST /support/stream/post HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (MAX_MESSAGE + 1, b"b" * (MAX_MESSAGE + 1))
    status, headers, body = await exchange(edge, head + chunk)
    assert problem(status, headers, body)["status"] == 413


async def test_a_plain_get_on_a_websocket_path_is_426(edge: Edge) -> None:
    found, headers = await refused(edge, "/support/realtime/echo?channel=blue")
    assert (found["status"], found["title"]) == (426, "Upgrade Required")
    assert headers["upgrade"] == "websocket"


BAD_CHANNELS = ["a.b", "%3E", "*", "a%20b", "a+b", "%20", "", "x" * 65, "%C3%A4", "a%0D%0AB", "%00"]


@pytest.mark.parametrize("channel", BAD_CHANNELS)
async def test_a_channel_name_that_would_forge_a_nats_subject_is_400(
    edge: Edge, channel: str
) -> None:
    found, _ = await not_upgraded(edge, f"/support/realtime/echo?channel={channel}")
    assert (found["status"], found["title"]) == (400, "Bad Request")
    # Asked over HTTP, it is why the handshake was refused, not that it should upgrade.
    found, _ = await refused(edge, f"/support/realtime/echo?channel={channel}")
    assert found["status"] == 400
    found, _ = await refused(edge, f"/support/stream/rooms/a?channel={channel}")
    assert found["status"] == 400


@pytest.mark.parametrize("room", ["a.b", "%3E", "*", "a%20b", "x" * 65, "a%2Fb"])
async def test_a_topic_parameter_that_would_forge_a_nats_subject_is_400(
    edge: Edge, room: str
) -> None:
    found, _ = await not_upgraded(edge, f"/support/realtime/rooms/{room}")
    assert found["status"] == 400
    found, _ = await refused(edge, f"/support/stream/rooms/{room}")
    assert found["status"] == 400


async def test_two_channels_are_400_and_64_characters_or_the_default_by_name_are_not(
    edge: Edge,
) -> None:
    found, _ = await not_upgraded(edge, "/support/realtime/echo?channel=a&channel=b")
    assert found["status"] == 400
    for channel in ("x" * 64, "-", "_", "A-b_9"):
        async with edge.raw(f"/support/realtime/echo?channel={channel}") as client:
            await client.send("x")
            assert await client.recv() == "x"


@pytest.mark.parametrize("query", ["q=%FF", "q=%C3", "%ff=1"])
async def test_a_query_that_is_not_utf_8_is_400(edge: Edge, query: str) -> None:
    found, _ = await refused(edge, f"/support/stream/value?{query}")
    assert found["status"] == 400
    found, _ = await not_upgraded(edge, f"/support/realtime/echo?{query}")
    assert found["status"] == 400


@pytest.mark.parametrize(
    "path",
    [
        "/support/stream/../stream/value",
        "/support/stream/./value",
        "/support/stream/%2e%2e/stream/value",
        "/support/stream/.%2E/stream/value",
        "/support/stream%2Fvalue",
        "/support%2fstream%2fvalue",
        "/support/stream//value",
        "/../support/stream/value",
        "/support/stream/value/..",
        "/support/realtime/context/..",
        "/support/realtime/context/%2e%2e",
        "/support/realtime/context/%FF",
        "/support/stream\\value",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
async def test_a_path_that_would_climb_is_404(edge: Edge, path: str) -> None:
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    for more in ("", upgrade):
        sent = f"GET {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n"
        status, headers, body = await exchange(edge, sent.encode())
        assert problem(status, headers, body)["status"] == 404


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"],
)
async def test_what_is_not_http_is_400_and_the_edge_serves_on(edge: Edge, sent: bytes) -> None:
    status, _, _ = await exchange(edge, sent)
    assert status == 400
    assert (await request(edge.http("/support/stream/value")))[0] == 200


# No worker


async def test_no_worker_within_worker_wait_is_503_with_retry_after(deserted: Edge) -> None:
    found, headers = await refused(deserted, "/support/stream/value")
    assert (found["status"], found["title"]) == (503, "Service Unavailable")
    assert int(headers["retry-after"]) >= 1


async def test_without_a_worker_the_other_answers_are_as_ever(deserted: Edge) -> None:
    assert (await refused(deserted, "/support/stream/unknown"))[0]["status"] == 404
    assert (await refused(deserted, "/support/stream/value", method="PUT"))[0]["status"] == 405
    assert (await refused(deserted, "/support/realtime/echo"))[0]["status"] == 426
    assert (await not_upgraded(deserted, "/support/realtime/echo?channel=*"))[0]["status"] == 400


async def test_a_message_scope_websocket_opens_with_no_worker_and_is_a_member(
    deserted: Edge,
) -> None:
    async with (
        deserted.raw("/support/realtime/rooms/empty") as raw,
        deserted.v1("/support/realtime/rooms/empty") as v1,
    ):
        said = json.dumps({"topic": "rooms.empty", "data": "from outside"}).encode()
        assert (await request(deserted.admin("/publish"), said))[0] == 200
        assert await raw.recv() == "from outside"
        assert (await v1.next())["data"] == "from outside"
        await raw.send("nobody executes this")
        error = json.loads(await raw.recv())
        assert error["type"] == "error"
        assert error["error"]["status"] == 503


async def test_an_app_that_no_worker_ever_served_answers_404(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with system(nats, tmp_path) as app:
        edge = await app.edge()
        assert (await refused(edge, "/support/stream/value"))[0]["status"] == 404
        assert (await not_upgraded(edge, "/support/realtime/echo"))[0]["status"] == 404


# SSE: ends and resumes


async def test_last_event_id_of_an_end_is_204_so_that_an_event_source_stops(edge: Edge) -> None:
    path = "/support/stream/value"
    async with edge.events(path) as stream:
        await stream.next()
        end = await stream.next()
    assert end["event"] == "end"
    for path_again, headers in (
        (path, {"Last-Event-ID": end["id"]}),
        (f"{path}?cursor={end['id']}", {}),
    ):
        status, answered, body = await request(edge.http(path_again), headers=headers)
        assert (status, body, answered["fairlead-run-over"]) == (204, b"", "seen")
    # It belongs to that endpoint; elsewhere it is foreign.
    async with edge.events("/support/stream/kinds", headers={"Last-Event-ID": end["id"]}) as stream:
        assert (await stream.next())["event"] == "resumed"


@pytest.mark.parametrize("last", ["garbage", "!!", "AXBn", "x" * 5000, "0", "gr\u00fc\u00dfe"])
async def test_a_malformed_last_event_id_begins_with_resumed_false(edge: Edge, last: str) -> None:
    async with edge.events("/support/stream/value", headers={"Last-Event-ID": last}) as stream:
        assert await stream.bytes() == b'event: resumed\ndata: {"recovered":false}\n\n'
        assert "query" in (await stream.next())["data"]
        assert (await stream.next())["event"] == "end"


async def test_a_stream_that_runs_a_function_starts_it_anew_and_resumes_nothing(edge: Edge) -> None:
    async with edge.v1("/support/realtime/rooms/resumed") as member:
        cursor = member.welcome["cursor"]
    path = f"/support/stream/rooms/resumed?cursor={cursor}"
    async with edge.events(path) as stream:
        assert await stream.bytes() == b'event: resumed\ndata: {"recovered":false}\n\n'
        assert json.loads((await stream.next())["data"]) == "you read rooms.resumed"


# What execute raises


async def test_what_an_sse_run_raises_is_an_error_event_and_then_the_end(edge: Edge) -> None:
    for when, data in (("before", []), ("while", ['"one"'])):
        async with edge.events(f"/support/stream/raises?when={when}") as stream:
            assert stream.status == 200
            found = [await stream.next() for _ in range(len(data) + 2)]
            assert [event["data"] for event in found[: len(data)]] == data
            error, end = found[-2:]
            assert error["event"] == "error"
            assert json.loads(error["data"])["status"] == 500
            assert end["event"] == "end"
            assert await stream.bytes() == b""


async def test_a_reject_of_an_sse_run_carries_its_status_and_detail(edge: Edge) -> None:
    async with edge.events("/support/stream/raises?when=reject") as stream:
        error = json.loads((await stream.next())["data"])
        assert (error["status"], error["detail"]) == (400, "not like this")


@pytest.mark.parametrize(
    ("when", "before"),
    [
        ("before", []),
        ("while", ["one"]),
        ("after", ["one", "two"]),
        ("unserializable", ["one", "two"]),
    ],
)
async def test_a_message_that_raises_keeps_the_items_before_and_the_connection(
    edge: Edge, when: str, before: list[str]
) -> None:
    async with edge.v1("/support/realtime/raises") as client:
        for ref in (1, 2):
            await client.send(when)
            for item in before:
                frame = await client.next()
                assert (frame["data"], frame["ref"]) == (item, ref)
            error = await client.next()
            assert (error["type"], error["ref"]) == ("error", ref)
            assert (error["error"]["status"], error["error"]["title"]) == (
                500,
                "Internal Server Error",
            )
    async with edge.raw("/support/realtime/raises") as raw:
        await raw.send(when)
        assert [await raw.recv() for _ in before] == before
        problem = json.loads(await raw.recv())
        assert problem["type"] == "error"
        assert problem["error"]["status"] == 500


async def test_a_reject_answers_with_its_own_status_and_text(edge: Edge) -> None:
    async with edge.v1("/support/realtime/raises") as client:
        await client.send("reject")
        error = (await client.until("error"))["error"]
        assert (error["status"], error["detail"]) == (418, "a teapot")


async def test_what_an_exception_says_stays_inside_and_the_trace_id_finds_it_in_the_log(
    edge: Edge, worker: Worker
) -> None:
    async with edge.v1("/support/realtime/raises") as client:
        await client.send("before")
        error = (await client.until("error"))["error"]
    async with edge.events("/support/stream/raises?when=before") as stream:
        sse_error = json.loads((await stream.next())["data"])
    for found in (error, sse_error):
        assert "secret" not in json.dumps(found)
        assert "RuntimeError" not in json.dumps(found)
        assert re.fullmatch("[0-9a-f]{32}", found["trace"])
        line = await worker.says(r'^\{.*"trace_id":"' + found["trace"])
        logged = next(json.loads(each) for each in worker.program.lines if each.startswith(line))
        assert logged["level"] == "error"
        assert logged["exception"].endswith("RuntimeError"), "where it was raised, not what it says"
    assert stream.headers["fairlead-trace"].split("-")[1] == sse_error["trace"]


async def test_in_dev_the_problem_says_what_the_exception_said(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with system(nats, tmp_path) as app:
        await app.worker(env={"FAIRLEAD_DEV": "1"}, ready=False)
        edge = await app.edge()
        await edge.serves("/support/stream/value")
        async with edge.v1("/support/realtime/raises") as client:
            await client.send("before")
            error = (await client.until("error"))["error"]
            assert error["detail"] == "RuntimeError: a secret"


async def test_a_request_to_attach_to_a_run_starts_none(edge: Edge) -> None:
    """404: a run that is not known; those that are have test_runs.py."""
    status, headers, body = await request(edge.http("/support/stream/value?run=abc"))
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert "run" in json.loads(body)["detail"]


# More than may be sent at once

LARGE = """
from collections.abc import AsyncIterator
from fairlead import SSE, WS, Message, feature, project

shop = feature("Shop")

@shop.websocket("sender", tag="v1")
async def sender(ctx: WS, message: Message) -> str:
    return "x" * int(message.data)

@shop.websocket("room", tag="v1", deliver="topic")
async def room(ctx: WS, message: Message) -> str:
    return "x" * int(message.data)

@shop.sse("/stream", tag="v1")
async def stream(ctx: SSE) -> AsyncIterator[str]:
    yield "x" * 3_000_000

app = project(shop)
"""


async def test_an_item_that_is_too_large_fails_and_costs_nobody_the_connection(
    nats: NatsServer, tmp_path: Path
) -> None:
    """NATS would end the worker's, again with each worker that tries."""
    (tmp_path / "flows.py").write_text(LARGE)
    async with system(nats, tmp_path) as app:
        [edge] = await app.run(str(tmp_path / "flows.py"))
        for path in ("/shop/v1/sender", "/shop/v1/room"):
            async with edge.v1(path, max_size=2 * MAX_MESSAGE) as client:
                for size in (MAX_MESSAGE + 1, 3_000_000):
                    await client.send(str(size))
                    assert (await client.until("error"))["error"]["status"] == 500
                await client.send(str(MAX_MESSAGE))
                assert len((await client.until("message"))["data"]) == MAX_MESSAGE
        async with edge.events("/shop/v1/stream") as stream:
            while (event := await stream.next()).get("event") != "error":
                assert event
            assert json.loads(event["data"])["status"] == 500
        said = "".join(app.workers[0].program.lines)
        assert "fairlead.errors.TooLarge" in said
        assert "NATS" not in said
        url = edge.admin("/publish")
        for body, status in (
            ({"topic": "room", "data": "x" * (MAX_MESSAGE + 1)}, 413),
            ({"topic": "room", "data": "x", "chanel": "blue"}, 400),
        ):
            answer = await request(url, json.dumps(body).encode())
            assert problem(status, answer[1], answer[2])["status"] == answer[0] == status
        assert "'chanel'; expected topic, channel, data, id" in answer[2].decode()
