"""`fairlead top` beside a running system: on a terminal, in a pipe, as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from fairlead.dev.ports import free_port
from fairlead.testing.program import DEADLINE
from support.system import NatsServer, System, system

ROOM = "/support/realtime/rooms/blue"


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with system(nats, tmp_path_factory.mktemp("top")) as made:
        edge, _ = await asyncio.gather(made.edge(), made.worker("everything.py"))
        await edge.serves(ROOM)
        yield made


def command(app: System, *flags: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "fairlead",
        "top",
        "--nats",
        app.nats.url,
        "--app",
        app.app,
        *flags,
    ]


async def said(app: System, *flags: str) -> str:
    program = await asyncio.create_subprocess_exec(
        *command(app, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE):
        out, err = await program.communicate()
    assert (program.returncode, err) == (0, b"")
    return out.decode()


async def test_a_picture_as_json_has_who_is_there_and_how_fast(app: System) -> None:
    edge = app.edges[0]
    async with edge.v1(ROOM) as client:

        async def speak() -> None:
            while True:
                await client.send("word")
                await client.until("ack")

        speaking = asyncio.ensure_future(speak())
        picture = json.loads(await said(app, "--once", "--json"))
        speaking.cancel()
    (shown,), (worker,) = picture["edges"], picture["workers"]
    assert (shown["websockets"], shown["ready"], worker["ready"]) == (1, True, True)
    assert shown["rates"]["received"] > 0 and worker["rates"]["done"] > 0
    assert [(room["topic"], room["members"]) for room in picture["rooms"]] == [("rooms.blue", 1)]


async def test_an_edge_that_listens_on_all_addresses_is_where_nats_sees_it(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The console connects to it there."""
    async with system(nats, tmp_path_factory.mktemp("top")) as made:
        edge = await made.edge("--host", "0.0.0.0")
        picture = json.loads(await said(made, "--once", "--json"))
    assert [each["address"] for each in picture["edges"]] == [f"127.0.0.1:{edge.port}"]


@pytest.mark.parametrize("flags", [["--once"], []], ids=["asked for", "since it is no terminal"])
async def test_a_picture_in_a_pipe(app: System, flags: list[str]) -> None:
    async with app.edges[0].v1(ROOM):
        lines = (await said(app, *flags)).splitlines()
    assert lines[0].startswith(f"fairlead {app.app}  ") and lines[0].endswith(" connected")
    assert "1 websockets" in lines[1]
    assert {"Edges  1", "Workers  1", "Rooms  1"} <= set(lines)


async def test_json_goes_on_until_it_is_told_to_stop(app: System) -> None:
    program = await asyncio.create_subprocess_exec(*command(app, "--json"), stdout=subprocess.PIPE)
    assert program.stdout is not None
    async with asyncio.timeout(DEADLINE):
        first, second = [json.loads(await program.stdout.readline()) for _ in range(2)]
        program.send_signal(signal.SIGINT)
        assert await program.wait() == 0
    assert second["at"] - first["at"] > 0.5


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
async def test_on_a_terminal_it_is_drawn_each_second_until_a_key_ends_it(
    app: System, key: bytes
) -> None:
    """The terminal is left as it was found."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    termios.tcsetwinsize(theirs, (40, 120))
    program = await asyncio.create_subprocess_exec(
        *command(app), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: os.set_inheritable(theirs, True), env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        shown = b""
        async with asyncio.timeout(DEADLINE):
            while shown.count(b"connected") < 2:
                shown += await asyncio.to_thread(screen.read, 65536)
            if key == b"\x03":
                program.send_signal(signal.SIGINT)  # as the terminal's line discipline does
            else:
                os.write(ours, key)
            assert await program.wait() == 0
            while b"\x1b[?1049l" not in shown:
                shown += await asyncio.to_thread(screen.read, 65536)
        assert b"Traceback" not in shown
        assert termios.tcgetattr(theirs) == before
    os.close(theirs)


async def test_where_nats_is_not_it_says_where_it_looked() -> None:
    nowhere = f"nats://user:secret@127.0.0.1:{free_port()}"
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fairlead", "top", "--once", "--nats", nowhere,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE):
        _, err = await program.communicate()
    told = err.decode()
    assert program.returncode == 1
    assert told.startswith(
        f"fairlead: NATS at 127.0.0.1:{nowhere.rpartition(':')[2]} could not be used within 5 s: "
    )
    assert told.count("\n") == 1 and "secret" not in told
