from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead.dev import processes
from fairlead.dev.processes import Children, Role, Spec
from fairlead.testing.program import DEADLINE, alive, wait_until_gone


class Lines:
    """What the children wrote, to be waited for."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def write(self, name: str, line: str) -> None:
        self.all.append((name, line))
        self._news.set()

    async def wait_for(self, line: tuple[str, str]) -> None:
        async with asyncio.timeout(DEADLINE):
            while line not in self.all:
                self._news.clear()
                await self._news.wait()


@pytest_asyncio.fixture
async def lines() -> Lines:
    return Lines()


@pytest_asyncio.fixture
async def children(lines: Lines) -> AsyncGenerator[Children]:
    made = Children(lines.write)
    yield made
    made.kill()
    await made.stop()


async def never() -> bool:
    return False


def spec(
    program: str, name: str = "child", role: Role = Role.WORKER, grace: float = DEADLINE
) -> Spec:
    argv = (sys.executable, "-u", "-c", program)
    return Spec(name, role, argv, os.environ, grace, never)


SLEEP = "import time; print('up'); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP


async def test_lines_of_both_streams_come_with_the_name(children: Children, lines: Lines) -> None:
    program = "import sys; print('out', flush=True); sys.stderr.write('err\\nno newline')"
    child = await children.start(spec(program))
    await child.ended()
    assert lines.all == [("child", "out"), ("child", "err"), ("child", "no newline")]
    assert not child.running


async def test_a_line_without_an_end_is_shown_in_pieces(children: Children, lines: Lines) -> None:
    child = await children.start(spec("print('x' * 1_000_000)"))
    await child.ended()
    assert "".join(line for _, line in lines.all) == "x" * 1_000_000
    assert max(len(line) for _, line in lines.all) <= 2 * processes.LONGEST_LINE


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("pass", "exit code 0"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
async def test_the_reason_of_an_end(children: Children, program: str, reason: str) -> None:
    child = await children.start(spec(program))
    assert await child.ended() > 0
    assert child.reason() == reason


async def test_a_grandchild_that_keeps_the_pipe_does_not_hide_the_end(
    children: Children, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS", 0.1)
    # It sleeps for longer than any test may take.
    program = (
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "print(subprocess.Popen(sleep, start_new_session=True).pid)\n"
        "sys.stdout.write('last words')"
    )
    child = await children.start(spec(program))
    async with asyncio.timeout(DEADLINE):
        await child.ended()
    os.kill(int(lines.all[0][1]), signal.SIGKILL)
    assert lines.all[1:] == [("child", "last words")]


def test_reasons_that_have_no_name() -> None:
    assert processes.how_it_ended(None) == "not ended"
    assert processes.how_it_ended(-250) == "signal 250"


async def test_a_child_that_does_not_stop_is_killed_with_its_own_children(
    children: Children, lines: Lines
) -> None:
    program = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); print(p.pid);" + STUBBORN
    )
    child = await children.start(spec(program, grace=0.1))
    await lines.wait_for(("child", "up"))
    await child.stop()
    assert child.reason() == "SIGKILL"
    grandchildren = [int(line) for _, line in lines.all if line.isdecimal()]
    wait_until_gone(grandchildren)


async def test_they_stop_role_by_role(children: Children, lines: Lines) -> None:
    program = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    print('stopping'); time.sleep(0.05); print('stopped'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop)\n" + SLEEP.replace("import time; ", "")
    )
    for name, role in [("n", Role.NATS), ("w", Role.WORKER), ("e", Role.EDGE)]:
        await children.start(spec(program, name, role))
        await lines.wait_for((name, "up"))
    lines.all.clear()
    await children.stop()
    assert lines.all == [(n, what) for n in "ewn" for what in ("stopping", "stopped")]


async def test_nothing_starts_once_they_stop(children: Children) -> None:
    await children.stop()
    with pytest.raises(RuntimeError, match="not started: the supervisor stops"):
        await children.start(spec(SLEEP))


async def test_a_start_that_is_cancelled_leaves_no_orphan(children: Children, lines: Lines) -> None:
    starting = asyncio.create_task(children.start(spec("import os; print(os.getpid());" + SLEEP)))
    # Far enough that the fork is under way, not so far that it is done.
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await children.stop()
    wait_until_gone([int(line) for _, line in lines.all if line.isdecimal()])


async def test_a_kill_ends_a_stop_at_once(children: Children, lines: Lines) -> None:
    child = await children.start(spec(STUBBORN))
    await lines.wait_for(("child", "up"))
    stopping = asyncio.create_task(children.stop())
    children.kill()
    await stopping
    assert child.reason() == "SIGKILL"


async def test_a_program_that_is_not_there(children: Children) -> None:
    missing = Spec("x", Role.NATS, ("/nowhere/nats-server",), os.environ, 1.0, never)
    with pytest.raises(FileNotFoundError):
        await children.start(missing)


def test_not_even_sigkill_of_the_supervisor_leaves_an_orphan(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys
from fairlead.dev.processes import Children, Role, Spec

async def never(): return False

async def main():
    children = Children(lambda name, line: print(line, flush=True))
    argv = (sys.executable, "-u", "-c", {"import os; print(os.getpid());" + STUBBORN!r})
    child = await children.start(Spec("c", Role.NATS, argv, os.environ, 60, never))
    await child.ended()

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "up\n"
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone([pid])


async def test_a_child_is_asked_once_however_many_wait_for_its_end(
    children: Children, lines: Lines
) -> None:
    """To edge and worker a second SIGTERM means "now"."""
    program = (
        "import signal, sys, time\n"
        "def now(*_):\n"
        "    sys.exit(9)\n"
        "def drain(*_):\n"
        "    signal.signal(signal.SIGTERM, now); print('draining'); time.sleep(0.2); sys.exit()\n"
        "signal.signal(signal.SIGTERM, drain)\n" + SLEEP
    )
    child = await children.start(spec(program))
    await lines.wait_for(("child", "up"))
    first = asyncio.create_task(child.stop())
    await lines.wait_for(("child", "draining"))
    await children.stop()
    await first
    assert child.reason() == "exit code 0"
