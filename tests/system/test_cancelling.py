"""Who may end a run from elsewhere: who its own workflow's policies let in, and who began it or has
its token. By `DELETE`, and by the `cancel` of a `fairlead.v1` connection to whatever endpoint."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from support.system import (
    MS,
    V1,
    Edge,
    Events,
    NatsServer,
    System,
    nats_server,
    request,
    system,
    until,
)  # fmt: skip

KINDS = ["kept", "plain"]


@dataclass
class Fleet:
    """Two edges, a worker, and what its workflows wrote down."""

    one: Edge
    two: Edge
    log: Path

    def told(self, word: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(word)]

    async def ended(self, asked: float) -> None:
        """The run's `finally` ran, soon after it was asked for (seconds since the epoch)."""
        await until(lambda: self.told("finally"), "the run's `finally` ran")
        seconds = float(self.told("finally")[0].split()[1]) - asked
        sys.stdout.write(f"\ncancelled from elsewhere: `finally` after {seconds * 1000:.0f} ms\n")
        assert seconds < 100 * MS


@pytest_asyncio.fixture
async def fleet(nats: NatsServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with system(nats, tmp_path) as app:
        yield await started(app)


async def started(app: System) -> Fleet:
    project = str(Path(__file__).parent / "projects" / "owned.py")
    one, two = await app.run(project, edges=2)
    return Fleet(one, two, app.cwd / "runs.log")


@asynccontextmanager
async def run_of(edge: Edge, kind: str, who: str = "ann") -> AsyncIterator[tuple[str, str, Events]]:
    """A run that somebody has begun: its id, its token, and the stream that shows it."""
    async with edge.events(f"/owned/v1/{kind}/1?who={who}") as stream:
        while (await stream.next()).get("data") != "0":
            pass
        yield stream.headers["fairlead-run"], stream.headers["fairlead-run-token"], stream


async def refused(client: V1, run: str, key: str | None = None) -> int:
    """The status with which a `cancel` is answered."""
    await client.say(type="cancel", run=run, **({} if key is None else {"key": key}))
    status: int = (await client.until("error"))["error"]["status"]
    return status


async def status(edge: Edge, path: str, method: str) -> int:
    async with asyncio.timeout(10_000 * MS):  # a run that is shown has no end
        return (await request(edge.http(path), method=method))[0]


async def goes_on(stream: Events) -> None:
    for _ in range(5):
        assert (await stream.next()).get("event") is None


async def to_end(stream: Events) -> None:
    async with asyncio.timeout(10_000 * MS):
        while (await stream.next()).get("event") != "end":
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_who_began_it_ends_it_over_any_connection_of_theirs(fleet: Fleet, kind: str) -> None:
    """That endpoint has no policies; the run's are asked, with the path that it was begun at."""
    async with (
        run_of(fleet.one, kind) as (run, _, stream),
        fleet.two.v1("/owned/v1/ear?who=ann") as ann,
    ):
        asked = time.time()
        await ann.say(type="cancel", run=run)
        await to_end(stream)
        await fleet.ended(asked)
        assert fleet.told("asked") == ["asked ann {'room': '1'}"] * 2


@pytest.mark.parametrize("kind", KINDS)
async def test_who_another_workflow_takes_for_them_does_not_end_it(fleet: Fleet, kind: str) -> None:
    async with run_of(fleet.one, kind) as (run, _, stream):
        for path in ("/owned/v1/claim?as=ann", "/owned/v1/claim?as=ann&who=bob", "/owned/v1/ear"):
            async with fleet.two.v1(path) as other:
                assert await refused(other, run) == 404, path
        await goes_on(stream)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_token_does_not_help_whom_the_policies_refuse(fleet: Fleet, kind: str) -> None:
    async with run_of(fleet.one, kind) as (run, key, stream):
        async with fleet.two.v1("/owned/v1/ear?who=none") as none:
            assert await refused(none, run, key) == 403
        path = f"/owned/v1/{kind}/1?who=none&run={run}&key={key}"
        for method in ("GET", "DELETE"):
            assert await status(fleet.two, path, method) == 403
        await goes_on(stream)
        async with fleet.two.v1("/owned/v1/ear?who=bob") as bob:
            assert await refused(bob, run, "wrong") == 404
            asked = time.time()
            await bob.say(type="cancel", run=run, key=key)
            await to_end(stream)
            await fleet.ended(asked)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_is_not_reached_through_another_endpoint(fleet: Fleet, kind: str) -> None:
    """Whose policies would be those that are asked."""
    other = "kept" if kind == "plain" else "plain"
    async with run_of(fleet.one, kind) as (run, key, stream):
        for path in (
            f"/owned/v1/{other}/1?who=ann&run={run}",
            f"/owned/v1/other?run={run}&key={key}",
        ):
            for method in ("GET", "DELETE"):
                assert await status(fleet.two, path, method) == 404, path
        await goes_on(stream)


async def test_the_run_of_a_connection_is_ended_by_who_it_is(fleet: Fleet) -> None:
    async with (
        fleet.one.v1("/owned/v1/talk/1?who=ann") as ann,
        fleet.two.v1("/owned/v1/claim?as=ann") as claims,
        fleet.two.v1("/owned/v1/ear?who=ann") as again,
    ):
        run = (await ann.until("message"))["run"]
        assert await refused(claims, run) == 404
        await again.say(type="cancel", run=run)
        await ann.until("end", run=run)


async def test_what_is_no_run_is_a_404(fleet: Fleet) -> None:
    async with fleet.one.v1("/owned/v1/ear?who=ann") as ann:
        for run in ("", "nonsense", "a-1-1", f"{ann.id}-77", ann.id, ".*-1"):
            assert await refused(ann, run, "k") == 404


async def test_while_nats_is_away_no_run_is_said_to_be_unknown(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        fleet = await started(app)
        async with (
            run_of(fleet.one, "kept") as (run, key, _),
            fleet.two.v1("/owned/v1/ear") as client,
        ):
            await nats.stop()
            assert await refused(client, run, key) == 503
