from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from fairlead.dev.processes import Children, Role, Spec
from fairlead.dev.service import Backoff, Service, serves
from fairlead.testing.program import DEADLINE

# Reads what to do from a file, so that a test can change it between two starts.
PROGRAM = """
import pathlib, sys, time
what = pathlib.Path(sys.argv[1]).read_text()
print(what)
if what.startswith("fail"): raise SystemExit(3)
pathlib.Path(sys.argv[2]).touch()
time.sleep(600)
"""


class Place:
    """A service over one program in a folder, and what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._news = asyncio.Event()
        self.children = Children(self.write)
        backoff = Backoff(first=0.01, most=0.02)
        self.service = Service(
            self.spec, self.children, self.write, patience=DEADLINE, backoff=backoff
        )
        self.starts = 0

    def does(self, what: str) -> None:
        (self.folder / "what").write_text(what)

    def write(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")
        self._news.set()

    async def wait_for(self, pattern: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not any(re.search(pattern, line) for line in self.lines):
                self._news.clear()
                await self._news.wait()

    def spec(self) -> Spec:
        self.starts += 1
        up = self.folder / f"up-{self.starts}"

        async def ready() -> bool:
            return up.exists()

        argv = (sys.executable, "-u", "-c", PROGRAM, str(self.folder / "what"), str(up))
        return Spec("worker", Role.WORKER, argv, os.environ, DEADLINE, ready)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        keeping = asyncio.create_task(self.service.keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    def pid(self) -> int:
        assert self.service.child is not None
        return self.service.child.pid


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    made = Place(tmp_path)
    yield made
    made.children.kill()
    await made.children.stop()


def test_the_pause_doubles_and_begins_anew_after_a_healthy_life() -> None:
    backoff = Backoff()
    lives = [0.1, 0.1, 0.1, 9.9, 0.1, 0.1, 10.0, 0.1]
    assert [backoff.after(lived) for lived in lives] == [0.5, 1, 2, 4, 5, 5, 0.5, 1]


async def test_a_child_that_dies_is_started_again_with_the_reason(place: Place) -> None:
    place.does("fail")
    async with place.kept():
        await place.wait_for(
            r"dev: worker \(process \d+\) ended: exit code 3; it starts again in 0.02"
        )
        place.does("serve")
        await place.service.ready()
    assert place.service.child is not None
    assert place.service.child.running


async def test_a_replacement_serves_before_the_old_one_goes(place: Place) -> None:
    place.does("serve one")
    async with place.kept():
        await place.service.ready()
        old = place.service.child
        assert old is not None
        place.does("serve two")
        gone_with: list[bool] = []
        old.when_ended(lambda _: gone_with.append((place.folder / "up-2").exists()))
        assert await place.service.replace()
        assert gone_with == [True]
        assert old.reason() == "SIGTERM"
        assert place.pid() != old.pid
    assert not [line for line in place.lines if "ended" in line]


async def test_a_replacement_that_fails_leaves_the_old_one(place: Place) -> None:
    place.does("serve")
    async with place.kept():
        await place.service.ready()
        pid = place.pid()
        place.does("fail")
        assert not await place.service.replace()
        assert place.pid() == pid
        assert "dev: the new worker did not start: exit code 3; the old one goes on" in place.lines


async def test_a_replacement_comes_at_once_where_the_old_one_waits_to_start_again(
    place: Place,
) -> None:
    place.does("fail")
    place.service._backoff = Backoff(first=3600.0)
    async with place.kept():
        await place.wait_for("starts again in 3600 s")
        assert not await place.service.replace()
        await place.wait_for("save again when it is mended")
        place.does("serve")
        assert await place.service.replace()
        first = place.pid()
        # It is kept alive like the one before.
        place.service._backoff = Backoff(first=0.01)
        os.kill(first, 9)
        await place.wait_for(f"process {first}.* ended: SIGKILL; it starts again in 0.01 s")


async def test_a_child_that_never_is_ready_has_the_patience_to_be(place: Place) -> None:
    async def never() -> bool:
        return False

    place.does("serve")
    spec = place.spec()
    child = await place.children.start(
        Spec(spec.name, spec.role, spec.argv, spec.env, spec.grace, never)
    )
    assert not await serves(child, patience=0.01)
    assert child.running


async def test_a_replacement_that_is_cancelled_leaves_no_second_child(place: Place) -> None:
    """A stop may come while the new worker imports."""
    place.does("serve")
    async with place.kept():
        await place.service.ready()
        place.service._spec = _never_ready(place.spec)
        replacing = asyncio.create_task(place.service.replace())
        place.does("imports")
        await place.wait_for("worker: imports|worker: serve")
        replacing.cancel()
        await asyncio.wait([replacing])
    await place.children.stop()
    assert place.service.child is not None
    assert not place.service.child.running


def _never_ready(spec: Callable[[], Spec]) -> Callable[[], Spec]:
    async def never() -> bool:
        return False

    def made() -> Spec:
        of = spec()
        return Spec(of.name, of.role, of.argv, of.env, of.grace, never)

    return made
