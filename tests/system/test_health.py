"""/livez and /readyz: what a process says of itself, in a status and in a sentence."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fairlead.looplag import STUCK_AFTER
from support.figures import ON, figures
from support.system import System, nats_server, request, system, until


async def asked(port: int, path: str) -> tuple[int, dict[str, Any]]:
    status, _, body = await request(f"http://127.0.0.1:{port}{path}")
    return status, json.loads(body)


async def test_a_process_whose_loop_runs_lives_and_says_how_late_it_was(app: System) -> None:
    for process in (await app.worker(), await app.edge()):
        status, body = await asked(process.admin_port, "/livez")
        assert (status, body["live"]) == (200, True)
        assert set(body) == {"live", "lag_seconds"}
        assert 0 <= body["lag_seconds"] < STUCK_AFTER


async def test_a_loop_that_stands_still_is_told_from_beside_it(app: System) -> None:
    """For how long, and where; the metrics are there meanwhile, and what needs the loop waits for it."""
    # Once: what waits for the loop may need it twice, and would find it stuck again.
    worker = await app.worker("stuck.py", env={**ON, "STUCK_ONCE": "1"})
    port = worker.admin_port
    edge = await app.edge()
    async with edge.v1("/support/realtime/stuck") as client:
        await client.send("go")
        publishing = asyncio.create_task(
            request(f"http://127.0.0.1:{port}/publish", b'{"topic": "stuck", "data": "x"}')
        )
        await until(lambda: is_stuck(port), "it is stuck")
        status, body = await asked(port, "/livez")
        assert (status, body["live"]) == (503, False)
        assert body["still_seconds"] >= STUCK_AFTER
        assert "the event loop has stood still for" in body["reason"]
        assert "time.sleep(8)" in body["where"][-1]
        status, body = await asked(port, "/readyz")
        assert status == 503
        assert any("the event loop has stood still" in reason for reason in body["reason"])
        assert (await figures(worker)).sum("fairlead_loop_lag_max_seconds") >= STUCK_AFTER
        await until(lambda: lives(port), "it runs on")
        assert (await asked(port, "/livez"))[1]["lag_seconds"] >= STUCK_AFTER
        assert (await publishing)[0] == 200
        assert (await figures(worker)).sum("fairlead_worker_standstills_total") >= 1


async def is_stuck(port: int) -> bool:
    return (await asked(port, "/livez"))[0] == 503


async def lives(port: int) -> bool:
    return (await asked(port, "/livez"))[0] == 200


async def test_a_nats_that_is_away_is_forgiven_for_a_while_and_then_told(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        edge = await app.edge("--ready-grace", "1s")
        assert nats.process is not None
        nats.process.kill()
        await until(lambda: is_ready(edge.admin_port, False), "it is not ready any more")
        status, body = await edge.readyz()
        assert status == 503
        assert body["nats"]["connected"] is False and body["nats"]["away_seconds"] >= 1
        (reason,) = body["reason"]
        assert reason.startswith("NATS has been away for ") and reason.endswith("longer than 1 s")
        assert (await asked(edge.admin_port, "/livez"))[0] == 200, "NATS has no part in that"
        nats.close()
        await nats.start()
        await until(lambda: is_ready(edge.admin_port, True), "it is ready again")
        assert await edge.readyz() == (
            200, {"ready": True, "nats": {"connected": True}, "serving": True, "draining": False}
        )  # fmt: skip


async def is_ready(port: int, wanted: bool) -> bool:
    return ((await asked(port, "/readyz"))[0] == 200) is wanted


async def test_a_drain_is_a_reason(app: System, tmp_path: Path) -> None:
    await app.worker()
    edge = await app.edge()
    async with edge.v1("/support/realtime/slow") as client:
        await client.send(str(tmp_path / "go"))
        await client.until("message")
        stopping = asyncio.create_task(edge.stop())
        await edge.says("draining")
        status, body = await edge.readyz()
        assert (status, body["reason"]) == (503, ["it is being drained; clients belong elsewhere"])
        (tmp_path / "go").touch()
        assert await stopping == 0


async def test_all_that_is_missing_at_the_start_is_told(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        nats.close()
        for kind, lacks in (
            ("edge", "no routes are known yet"),
            ("worker", "no work is taken yet"),
        ):
            port = (
                (await app.edge(ready=False)).admin_port if kind == "edge" else await _worker(app)
            )
            status, body = await asked(port, "/readyz")
            assert (status, body["reason"]) == (503, [lacks, "NATS was not reached yet"])


async def _worker(app: System) -> int:
    worker = await app.worker("everything.py", ready=False)
    return int(json.loads(await worker.says(r'{.*"admin port.*}'))["port"])
