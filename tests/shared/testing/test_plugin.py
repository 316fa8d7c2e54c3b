"""The pytest plugin, used as a user's tests use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fairlead.testing.system import System

CHAT = """
from fairlead import WS, Message, feature, project

chat = feature("Chat")

@chat.websocket("rooms.{room}", tag="v1", deliver="topic")
async def talk(ctx: WS, message: Message):
    return message.data

app = project(chat)
"""


async def test_a_chat_over_two_edges_with_a_cut_connection(
    fairlead_system: System, tmp_path: Path
) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    one, two = await fairlead_system.run(str(tmp_path / "chat.py"), edges=2, workers=2)
    async with one.v1("/chat/v1/rooms/blue") as ann, two.v1("/chat/v1/rooms/blue") as bob:
        await ann.send("hello")
        assert await bob.hears() == "hello"
        await ann.cut()
        await bob.send("are you there?")
        assert await bob.hears() == "are you there?"
    async with two.v1("/chat/v1/rooms/blue") as ann:
        await ann.send("back")
        assert await ann.hears() == "back"


async def test_a_worker_that_is_killed_is_replaced_by_the_other(
    fairlead_system: System, tmp_path: Path
) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    [edge] = await fairlead_system.run(str(tmp_path / "chat.py"), workers=2)
    async with edge.v1("/chat/v1/rooms/blue") as ann:
        fairlead_system.workers[0].kill()
        for word in "one", "two", "three":
            await ann.send(word)
            assert await ann.hears() == word


USER_TEST = """
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_chat(fairlead_system):
    [edge] = await fairlead_system.run("chat.py")
    async with edge.raw("/chat/v1/rooms/blue") as ann:
        await ann.send("hello")
        assert await ann.recv() == "hello"
"""


def test_the_fixtures_need_no_asyncio_plugin(tmp_path: Path) -> None:
    """A user whose async tests are run by anyio, and whose TARGET is seen from their folder."""
    (tmp_path / "chat.py").write_text(CHAT)
    (tmp_path / "test_chat.py").write_text(USER_TEST)
    told = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*told, "test_chat.py"], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_the_plugin_costs_a_project_that_does_not_use_it_little() -> None:
    """No web server, no WebSocket client, no NATS client: they come with the fixtures."""
    code = "import sys, fairlead.testing.plugin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"websockets", "starlette", "uvicorn", "nats"} & set(loaded.stdout.split())
