from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairlead.dev import nats_server
from fairlead.dev.nats_server import NatsServer
from fairlead.dev.processes import Child, Children
from fairlead.dev.service import serves
from fairlead.settings import CannotStart
from fairlead.testing.program import DEADLINE


@asynccontextmanager
async def started(server: NatsServer, lines: list[str]) -> AsyncGenerator[Child]:
    children = Children(lambda _, line: lines.append(line))
    child = await children.start(server.spec())
    try:
        assert await serves(child, DEADLINE), lines
        yield child
    finally:
        await children.stop()


async def info(server: NatsServer) -> dict[str, Any]:
    """What the server says of itself to each client."""
    host, port = server.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    line = await reader.readline()
    writer.close()
    found: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    return found


async def test_it_runs_as_fairlead_needs_it_and_leaves_only_its_store(tmp_path: Path) -> None:
    lines: list[str] = []
    with nats_server.locked_folder(tmp_path / "dev") as folder:
        server = NatsServer(folder)
        async with started(server, lines) as child:
            told = await info(server)
            assert told["jetstream"] is True
            assert told["max_payload"] == 2 * 1024 * 1024
            assert told["host"] == "127.0.0.1"
        assert child.reason() in {"exit code 0", "exit code 1", "SIGTERM"}
        server.forget()
        assert {path.name for path in folder.iterdir()} == {".gitignore", "jetstream"}
    assert [line for line in lines if nats_server.worth_showing(line)] == []


async def test_a_second_start_takes_the_same_port(tmp_path: Path) -> None:
    """Edges and workers know it by its port; they only wait for it to come back."""
    with nats_server.locked_folder(tmp_path) as folder:
        server = NatsServer(folder)
        async with started(server, []) as child:
            url = server.url
            child.kill()
            await child.ended()
        async with started(server, []):
            assert server.url == url


async def test_what_a_killed_server_left_is_not_believed(tmp_path: Path) -> None:
    with nats_server.locked_folder(tmp_path) as folder:
        (folder / "nats-server_1.ports").write_text('{"nats": ["nats://127.0.0.1:1"]}')
        server = NatsServer(folder)
        async with started(server, []):
            assert not server.url.endswith(":1")


def test_the_folder_is_for_one_alone(tmp_path: Path) -> None:
    with (
        nats_server.locked_folder(tmp_path / "dev"),
        pytest.raises(CannotStart, match="another `fairlead dev` runs here"),
        nats_server.locked_folder(tmp_path / "dev"),
    ):
        pass
    with nats_server.locked_folder(tmp_path / "dev"):
        assert (tmp_path / "dev" / ".gitignore").read_text() == "*\n"


def test_a_missing_server_is_told_by_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match=r"pip install '\.\[dev\]'"):
        nats_server.executable()


def test_a_server_on_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nats-server"
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nats_server.executable() == str(program)
