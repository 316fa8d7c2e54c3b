"""The console as a process: a real NATS behind, HTTP in front."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from support.console import start_console
from support.system import NatsServer, System, nats_server, request, system, until


async def post(url: str, body: Any, token: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    status, _, answer = await request(url, json.dumps(body).encode(), headers=headers)
    return status, json.loads(answer)


MESSAGE = {"topic": "rooms.blue", "data": "from outside"}


async def test_it_lives_is_ready_and_stops(app: System) -> None:
    console = await start_console(app)
    assert (await request(console.url("/livez")))[0] == 200
    status, _, body = await request(console.url("/readyz"))
    assert (status, json.loads(body)["nats"]) == (200, {"connected": True})
    assert await console.stop() == 0


async def test_it_answers_before_nats_does(tmp_path: Path) -> None:
    async with system(NatsServer(tmp_path / "nats"), tmp_path) as nowhere:
        console = await start_console(nowhere, ready=False)
        assert (await request(console.url("/livez")))[0] == 200
        status, _, body = await request(console.url("/readyz"))
        assert (status, json.loads(body)["nats"]) == (503, {"connected": False})
        assert await console.stop() == 0


async def test_a_port_that_is_taken_is_one_line_and_exit_code_1(app: System) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        console = app.start("console", "--port", str(taken.getsockname()[1]))
        assert await console.ended() == 1
    (line,) = [json.loads(line)["reason"] for line in console.program.lines]
    assert "cannot listen on 127.0.0.1:" in line


async def test_a_nats_that_is_no_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    plain = "listen: 127.0.0.1:{port}\nmax_payload: 2097152\n# {store}\n"
    async with nats_server(tmp_path / "nats", plain) as nats, system(nats, tmp_path) as app:
        console = app.start("console", "--port", "0")
        assert await console.ended() == 1
        assert "has no JetStream" in console.program.lines[-1]


@pytest.mark.parametrize("flags", [("--open-publish",), ("--open-publish", "--token", "secret")])
async def test_it_publishes_as_an_admin_port_does_where_that_is_wanted(
    app: System, flags: tuple[str, ...]
) -> None:
    """For a topic that is declared after the console has begun, too."""
    console = await start_console(app, *flags)
    status, problem = await post(console.url("/publish"), MESSAGE)
    assert (status, problem["detail"][:20]) == (404, "topic 'rooms.blue' i")
    await app.worker("traced.py")
    edge = await app.edge()
    await edge.serves("/support/realtime/rooms/blue")
    async with edge.raw("/support/realtime/rooms/blue") as member:
        await until_published(console.url("/publish"))
        assert await member.recv() == "from outside"


async def until_published(url: str) -> None:
    """The topics are looked for once a second at most."""

    async def published() -> bool:
        return (await post(url, MESSAGE))[0] == 200

    await until(published, "the topic is known")


async def test_it_is_read_only_unless_a_token_is_set(app: System) -> None:
    console = await start_console(app)
    status, problem = await post(console.url("/publish"), MESSAGE)
    assert (status, "--token" in problem["detail"]) == (403, True)


async def test_with_a_token_it_asks_for_it(app: System) -> None:
    console = await start_console(app, "--token", "secret")
    assert (await post(console.url("/publish"), MESSAGE))[0] == 401
    assert (await post(console.url("/publish"), MESSAGE, "wrong"))[0] == 401
    assert (await post(console.url("/publish"), MESSAGE, "secret"))[0] == 404, "let in: no topic"
