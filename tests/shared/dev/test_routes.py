from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fairlead.dev import routes
from fairlead.dev.routes import Route, RoutesFailed
from fairlead.testing.program import wait_until_gone


async def read(program: str) -> list[Route]:
    return await routes.read((sys.executable, "-c", program), "chat.py", os.environ)


async def test_routes_are_read_past_what_the_module_prints() -> None:
    line = (
        '[{"workflow": "Chat", "feature": "Support", "transport": "websocket", "methods": ["GET"],'
        ' "endpoint": "/support/realtime/chat", "topic": "chat", "history": null,'
        ' "deliver": "topic"}]'
    )
    found = await read(f"print('hello'); print({line!r})")
    assert found == [
        Route(
            "Chat",
            "Support",
            "websocket",
            ("GET",),
            "/support/realtime/chat",
            "chat",
            None,
            "topic",
        )
    ]


async def test_the_arguments() -> None:
    with pytest.raises(RoutesFailed) as failed:
        await read("import sys; sys.exit(' '.join(sys.argv))")
    assert failed.value.said == "-c routes chat.py --json\n"
    assert failed.value.code == 1


@pytest.mark.parametrize("printed", ["", "[1]", "{}", "no routes"])
async def test_anything_else_is_a_failure(printed: str) -> None:
    with pytest.raises(RoutesFailed) as failed:
        await read(f"print({printed!r})")
    assert "printed no routes" in failed.value.said


async def test_an_import_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PATIENCE", 0.05)
    with pytest.raises(RoutesFailed) as failed:
        await read("import time; time.sleep(600)")
    assert failed.value.said == "chat.py was not imported within 0.05 s"


async def test_a_caller_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    program = f"import os, time; print(os.getpid(), file=open({str(fifo)!r}, 'w')); time.sleep(600)"
    reading = asyncio.create_task(read(program))
    pid = int(await asyncio.to_thread(fifo.read_text))
    reading.cancel()
    await asyncio.wait([reading])
    wait_until_gone([pid])
