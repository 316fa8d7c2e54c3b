"""Ending what runs beside a process, and its signals; more of those in tests/system."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead import process
from fairlead.testing.program import DEADLINE, Program, running

TGKILL = 234
"""The system call of Linux on x86-64 that gives a signal to one thread."""

STUCK = """
import asyncio, multiprocessing, sys, threading, time
from fairlead import process

def heard(number):
    print("heard", number, flush=True)

def forked():
    print("forked", multiprocessing.current_process().pid, flush=True)
    time.sleep(3600)

async def main():
    process.signals(heard)
    idle = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
    idle.start()
    print("thread", idle.native_id, flush=True)
    if "forks" in sys.argv:
        child = multiprocessing.get_context("fork").Process(target=forked)
        child.start()
        child.join()
        print("it ended with", child.exitcode, flush=True)
    if "ends" not in sys.argv:
        time.sleep(3600)

asyncio.run(main())
print("the loop has ended", flush=True)
time.sleep(3600)
"""


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await process.end(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_who_is_told_to_stop_meanwhile_ends_work_that_swallows_a_cancellation() -> None:
    """As nats-py does where a name is not resolved in the turn in which it is cancelled."""
    swallowed = asyncio.Event()
    stop = asyncio.Event()

    async def connecting() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(60)

    work = asyncio.ensure_future(connecting())
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(DEADLINE):
        assert not await process.unless(work, stop)
    assert swallowed.is_set() and work.cancelled()


async def test_what_a_task_raised_is_not_raised_again() -> None:
    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await process.end(task)
    assert isinstance(task.exception(), ValueError)


async def test_nothing_to_end_is_ended() -> None:
    await process.end()


# Signals


@pytest.fixture
def stuck(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    """A program whose main thread waits in C: in a coroutine, or once its loop has ended (`ends`)."""
    told = getattr(request, "param", "")
    with running([sys.executable, "-c", STUCK, told], tmp_path) as program:
        yield program


def test_a_signal_that_another_thread_is_given_is_heard(stuck: Program) -> None:
    """The kernel gives a signal to any thread, and that one cannot wake the main thread."""
    thread = int(stuck.wait_for(r"^thread (\d+)")[1])
    for number in (1, 2):
        ctypes.CDLL(None).syscall(TGKILL, stuck.process.pid, thread, signal.SIGTERM)
        stuck.wait_for(f"^heard {number}$")


@pytest.mark.parametrize("stuck", ["forks"], indirect=True)
def test_a_process_that_was_forked_hears_for_itself(stuck: Program) -> None:
    child = int(stuck.wait_for(r"^forked (\d+)")[1])
    os.kill(child, signal.SIGTERM)
    stuck.wait_for(f"^it ended with {-signal.SIGTERM}$")
    stuck.send(signal.SIGINT)
    stuck.wait_for("^heard 1$")
    assert "heard 2" not in stuck.lines


@pytest.mark.parametrize("stuck", ["ends"], indirect=True)
def test_once_the_loop_has_ended_a_signal_ends_the_process(stuck: Program) -> None:
    stuck.wait_for("^the loop has ended")
    stuck.send(signal.SIGTERM)
    assert stuck.ended() == 0
    assert "heard 1" in stuck.lines
