"""What a worker does beside its work: where that fails, somebody is to know."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fairlead.testing.system import NatsServer
from fairlead_worker.serve import _beside
from support.system import system


async def test_a_worker_that_beats_no_more_ends(fairlead_nats: NatsServer, tmp_path: Path) -> None:
    """Every edge takes it for dead: it is to be started again, not to go on unseen."""
    async with system(fairlead_nats, tmp_path) as app:
        worker = await app.worker("failing_beat.py", ready=False)
        await worker.says("worker serves")
        assert await worker.ended() == 1
        last = json.loads(worker.program.lines[-1])
        assert last["msg"] == "the worker ended in an error of ours"
        assert "failing_beat.py" in last["exception"]


async def test_a_chore_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("an error of ours")

    await asyncio.wait({_beside("measure", fails())})
    await asyncio.sleep(0)  # it is told after whoever waits
    assert "a chore of the worker ended in an error" in caplog.text


async def test_a_chore_that_is_ended_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    chore = _beside("measure", asyncio.sleep(60))
    chore.cancel()
    await asyncio.wait({chore})
    await asyncio.sleep(0)
    assert caplog.text == ""
