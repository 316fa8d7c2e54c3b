"""An edge mounted in an application of the user's own, under plain uvicorn."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fairlead.testing.program import running
from support.figures import ON, until_figures
from support.system import PROJECTS, Edge, NatsServer, System, everything, request, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOMS = "/realtime/support/realtime/rooms/blue"

HOSTS = {
    "websockets": ["mounted:app", "--ws", "websockets"],
    "sansio": ["mounted:app", "--ws", "websockets-sansio"],
    "ours": ["mounted:app", "--ws", "fairlead_edge.ws:EdgeWebSocketProtocol"],
    "fastapi": ["mounted_fastapi:app"],
}
"""Applications and servers: each of uvicorn's WebSocket protocols, and FastAPI as it comes."""


@contextmanager
def host_application(
    app: System, *host: str, env: Mapping[str, str] | None = None
) -> Iterator[Edge]:
    """The application under uvicorn, in a process of its own; it looks like an edge to clients."""
    argv = [sys.executable, "-m", "uvicorn", *host, "--port", "0", "--no-access-log"]
    argv += ["--app-dir", str(PROJECTS), "--timeout-graceful-shutdown", "10"]
    ours = {"FAIRLEAD_NATS": app.nats.url, "FAIRLEAD_APP": app.app, "OTEL_SDK_DISABLED": "true"}
    with running(argv, app.cwd, ours | dict(env or {})) as program:
        edge = Edge(program)
        found = program.wait_for(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
        edge.port = int(found[1])
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app_of_all(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """A worker and an edge, beside which others are mounted."""
    async with everything(nats, tmp_path_factory.mktemp("mount")) as made:
        yield made


@asynccontextmanager
async def serving(app: System, *host: str) -> AsyncIterator[Edge]:
    with host_application(app, *host) as edge:
        await until(lambda: _serves(edge), "the mounted edge serves")
        yield edge


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=HOSTS.values(), ids=HOSTS.keys()
)
async def mounted(app_of_all: System, request: pytest.FixtureRequest) -> AsyncIterator[Edge]:
    async with serving(app_of_all, *request.param) as edge:
        yield edge


async def _serves(edge: Edge) -> bool:
    return (await request(edge.http("/realtime/support/stream/value")))[0] == 200


async def test_the_rest_of_the_application_is_left_alone(mounted: Edge) -> None:
    assert (await request(mounted.http("/hello")))[2] == b"hello"
    assert (await request(mounted.http("/nothing")))[0] == 404
    status, headers, _ = await request(mounted.http("/realtime/nothing"))
    assert (status, headers["content-type"]) == (404, "application/problem+json")


async def test_members_of_a_room_are_on_mounted_and_other_edges(
    app_of_all: System, mounted: Edge
) -> None:
    (other,) = app_of_all.edges
    async with mounted.v1(ROOMS) as ann, other.v1(ROOMS.removeprefix("/realtime")) as bob:
        await ann.send("from the mount")
        await bob.send("from the edge")
        for client in (ann, bob):
            heard = {(await client.until("message"))["data"] for _ in range(2)}
            assert heard == {"from the mount", "from the edge"}


async def test_frames_of_every_kind_and_size_pass(mounted: Edge) -> None:
    async with mounted.raw("/realtime/support/realtime/echo") as client:
        for said in ("", "x", "é" * 60, "x" * 126, "x" * 70_000, b"", b"\x00\xff" * 40_000):
            await client.send(said)
            assert await client.recv() == said


async def test_outcomes_are_those_of_an_edge(mounted: Edge) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await mounted.raw("/realtime/nothing")
    assert refused.value.response.status_code == 404
    async with mounted.v1("/realtime/support/realtime/echo") as client:
        await client.socket.send(b"binary")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1003
    async with mounted.raw("/realtime/support/realtime/echo") as raw:
        await raw.send(b"x" * (1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed):
            await raw.recv()
        assert raw.close_code == 1009


async def test_an_event_stream_passes(mounted: Edge) -> None:
    async with mounted.events("/realtime/support/stream/value") as stream:
        assert stream.status == 200
        assert "data" in await stream.next()


async def test_one_that_does_not_read_is_cut_and_others_are_not_slowed(mounted: Edge) -> None:
    """The budget of a room's member, as on an edge: 4001 when 1 MiB waits."""
    async with mounted.raw(ROOMS, max_queue=1) as slow, mounted.v1(ROOMS) as quick:
        slow.transport.pause_reading()
        for _ in range(200):  # 20 MB: more than the kernel, the server and the budget take
            await quick.send("x" * 100_000)
            await quick.each("message", "ack")
        slow.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            while True:
                await slow.recv()
        assert slow.close_code == 4001


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
async def test_a_stop_drains_what_the_server_leaves_to_us(
    app_of_all: System, host: list[str]
) -> None:
    async with (
        serving(app_of_all, *host) as mounted,
        mounted.v1(ROOMS) as client,
        mounted.events("/realtime/support/stream/endless") as stream,
    ):
        await stream.next()
        stopping = asyncio.create_task(mounted.stop())
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012
        while await stream.bytes():
            pass
        await asyncio.wait_for(stopping, 8)


async def test_without_nats_it_answers_503_and_the_application_starts(app: System) -> None:
    env = {"FAIRLEAD_NATS": "nats://127.0.0.1:1", "FAIRLEAD_APP": "x", "OTEL_SDK_DISABLED": "true"}
    argv = [sys.executable, "-m", "uvicorn", "mounted:app", "--port", "0"]
    with running([*argv, "--app-dir", str(PROJECTS)], app.cwd, env) as program:
        edge = Edge(program)
        edge.port = int(program.wait_for(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")[1])
        assert (await request(edge.http("/hello")))[2] == b"hello"
        status, headers, body = await request(edge.http(ROOMS))
        assert (status, json.loads(body)["status"]) == (503, 503)
        assert "retry-after" in headers
        assert await edge.stop() in (0, -15)


@pytest.mark.parametrize("host", ["sansio", "fastapi"])
async def test_a_mounted_edge_shows_the_metrics_of_an_edge(app: System, host: str) -> None:
    """On a route of the application's own; its provider is nobody else's."""
    await app.worker()
    with host_application(app, *HOSTS[host], env=ON) as edge:
        await until(lambda: _serves(edge), "the mounted edge serves")
        async with edge.v1(ROOMS) as client:
            await client.send("hello")
            await client.each("message", "ack")
        found = await until_figures(
            edge.http("/metrics"),
            lambda f: f.sum("fairlead_loop_lag_seconds_count"),
            "its loop was looked at",
        )
        topic = {"messaging_destination_template": "rooms.{room}"}
        assert found.sum("fairlead_edge_room_deliveries_total", **topic) == 1
        assert found.sum("fairlead_ready") == 1
        assert found.sum("fairlead_edge_handshakes_total", fairlead_transport="websocket") == 1
