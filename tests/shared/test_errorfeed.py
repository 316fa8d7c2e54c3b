"""Uncaught errors as a stream: where they come from, and that the hooks before stay in place."""
# ruff: noqa: ASYNC110 -- what the feed does with an error nobody is told of

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fairlead import errorfeed, streams
from fairlead.errors import FairleadError
from fairlead.streams import process_errors

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@contextlib.asynccontextmanager
async def reading() -> AsyncIterator[asyncio.Queue[errorfeed.ProcessError]]:
    """A reader in a task of its own; what it reads is in the queue."""
    found: asyncio.Queue[errorfeed.ProcessError] = asyncio.Queue()

    async def read() -> None:
        async for error in process_errors():
            found.put_nowait(error)

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_reported_is_read() -> None:
    async with reading() as found:
        errorfeed.report(ValueError("x" * 5000), "Support/Echo", "0" * 32)
        assert await found.get() == {
            "type": "ValueError",
            "message": "x" * 2000,
            "workflow": "Support/Echo",
            "process": "",
            "trace": "0" * 32,
        }


async def test_errors_that_no_task_retrieves_are_read_and_the_handler_before_is_called() -> None:
    seen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()

    def before(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        seen.append(context)

    loop.set_exception_handler(before)

    async def fails() -> None:
        raise LookupError("nobody asks")

    try:
        async with reading() as found:
            task = asyncio.create_task(fails())
            await asyncio.wait([task])
            del task
            gc.collect()
            error = await found.get()
            assert (error["type"], error["message"]) == ("LookupError", "nobody asks")
            assert len(seen) == 1
        assert loop.get_exception_handler() is before
    finally:
        loop.set_exception_handler(None)


async def test_errors_of_threads_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def fails() -> None:
        raise LookupError("in a thread")

    async with reading() as found:
        thread = threading.Thread(target=fails)
        thread.start()
        assert (await found.get())["message"] == "in a thread"
        thread.join()
    assert len(seen) == 1, "the hook that was there before is called, too"


MAIN_THREAD = """
import asyncio, os, sys, threading
from fairlead.streams import process_errors

listening, read = threading.Event(), threading.Event()

def say(line):
    os.write(1, (line + "\\n").encode())  # in one piece: the other thread speaks, too

def before(kind, error, traceback):
    say(f"the hook before: {kind.__name__} {error} {traceback is not None}")
    assert read.wait(10)

sys.excepthook = before

async def reader():
    first = asyncio.ensure_future(anext(process_errors()))
    await asyncio.sleep(0)
    listening.set()
    error = await first
    say(f"read: {error['type']} {error['message']}")
    read.set()

threading.Thread(target=asyncio.run, args=(reader(),)).start()
listening.wait(10)
raise LookupError("nobody catches this")
"""


def test_what_ends_a_program_is_read_and_its_hook_is_called() -> None:
    """`sys.excepthook`: Python calls it in the main thread alone, so this takes a program."""
    ran = subprocess.run(
        [sys.executable, "-c", MAIN_THREAD], capture_output=True, text=True, timeout=60
    )
    assert sorted(ran.stdout.splitlines()) == [
        "read: LookupError nobody catches this",
        "the hook before: LookupError nobody catches this True",
    ], ran.stderr
    assert (ran.returncode, ran.stderr) == (1, "")


async def test_the_hooks_come_back_when_nobody_reads_any_more() -> None:
    before = sys.excepthook, threading.excepthook
    async with reading(), reading():
        assert sys.excepthook is not before[0]
    assert (sys.excepthook, threading.excepthook) == before


async def test_a_hook_that_somebody_put_over_ours_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    async with reading():

        def theirs(*_: object) -> None: ...

        sys.excepthook = theirs
    assert sys.excepthook is theirs


async def test_what_a_reader_breaks_is_not_fed_to_other_readers_either() -> None:
    """Two of them would feed each other."""

    async def reader() -> None:
        async for _ in process_errors():
            errorfeed.report(RuntimeError("broken by the reader"))
            return

    async with reading() as found:
        task = asyncio.create_task(reader())
        await asyncio.sleep(0)
        errorfeed.report(ValueError("first"))
        await task
        errorfeed.report(ValueError("second"))
        assert (await found.get())["message"] == "first"
        assert (await found.get())["message"] == "second"


def _singly(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The items of a buffer one by one."""
    return streams.map(streams.buffer(stream, 1), lambda items: items[0])


def _pushed(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Through a Subject, by a task of its own, as one feed for many readers."""
    subject: streams.Subject[Any] = streams.Subject()

    async def push() -> None:
        async for item in stream:
            subject.push(item)

    async def read() -> AsyncIterator[Any]:
        items = aiter(subject)
        pushing = asyncio.create_task(push())
        try:
            async for item in items:
                yield item
        finally:
            pushing.cancel()
            await asyncio.wait([pushing])

    return read()


WAYS: dict[str, Callable[[AsyncIterator[Any]], AsyncIterator[Any]]] = {
    "plain": lambda errors: errors,
    "timeout": lambda errors: streams.timeout(errors, 60),
    "map": lambda errors: streams.map(errors, lambda error: error),
    "merge": lambda errors: streams.merge(errors, streams.interval(60)),
    "merge of merge": lambda errors: streams.merge(streams.merge(errors), streams.interval(60)),
    "buffer": _singly,
    "debounce": lambda errors: streams.debounce(errors, 0),
    "subject": _pushed,
    "merge of subject": lambda errors: streams.merge(_pushed(errors), streams.interval(60)),
}

each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@contextlib.asynccontextmanager
async def unretrieved() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler hears, in a list; and nothing in the log."""
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, found: heard.append(found))
    try:
        yield heard
    finally:
        loop.set_exception_handler(None)


async def until(condition: Callable[[], Any]) -> None:
    """A reader that feeds itself would have gone round many times in the meantime."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)


def _report() -> None:
    errorfeed.report(RuntimeError("broken by the reader"))


def _fail_in_a_task() -> None:
    async def fails() -> None:
        raise RuntimeError("broken by a task of the reader")

    asyncio.get_running_loop().create_task(fails())


def _fail_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


each_break = pytest.mark.parametrize("broken", [_report, _fail_in_a_task, _fail_in_a_callback])


@each_way
@each_break
@pytest.mark.parametrize("where", ["reader", "tap"])
async def test_a_feed_never_feeds_on_itself(way: Any, broken: Any, where: str) -> None:
    """Whatever stands between the feed and its reader, and whichever of the two is broken."""
    read: list[str] = []

    async def reader() -> None:
        errors: AsyncIterator[Any] = process_errors()
        if where == "tap":
            errors = streams.tap(errors, lambda _: broken())
        async for item in way(errors):
            if "message" in (item if isinstance(item, dict) else ()):
                read.append(item["message"])
                if where == "reader" and len(read) < 50:
                    broken()

    async with unretrieved() as heard:
        task = asyncio.create_task(reader())
        await until(lambda: errorfeed._feed._listeners)
        errorfeed.report(ValueError("first"))
        await until(lambda: read and (heard or broken is _report))
        errorfeed.report(ValueError("second"))
        await until(lambda: "second" in read)
        task.cancel()
        await asyncio.wait([task])
    assert read == ["first", "second"]


async def test_errors_of_others_are_fed_to_a_reader_that_finds_them() -> None:
    """Python 3.11 says that an error was not retrieved in the context of whoever collects it."""
    read: list[str] = []

    async def reader() -> None:
        async for error in process_errors():
            read.append(error["message"])
            gc.collect()  # here it finds the task of another
            await asyncio.sleep(0)

    async def fails() -> None:
        raise LookupError("of another")

    async with unretrieved():
        reading = asyncio.create_task(reader())
        await asyncio.sleep(0)
        failed = asyncio.create_task(fails())
        await asyncio.wait([failed])
        cycle: list[Any] = [failed]
        cycle.append(cycle)
        del failed, cycle
        errorfeed.report(ValueError("first"))
        await until(lambda: len(read) > 1)
        reading.cancel()
        await asyncio.wait([reading])
    assert read == ["first", "of another"]


async def test_who_asks_for_an_item_reads_also_where_another_task_waits_for_it() -> None:
    """`asyncio.wait_for` of Python 3.11 awaits in a task of its own."""
    errors = process_errors()
    first = asyncio.ensure_future(anext(errors))
    await asyncio.sleep(0)
    errorfeed.report(RuntimeError("broken by the reader"))
    other = contextvars.Context()
    other.run(errorfeed.report, ValueError("first"))
    assert (await first)["message"] == "first"
    await errors.aclose()


async def test_a_cancellation_is_no_error() -> None:
    async with reading() as found:
        errorfeed.report(asyncio.CancelledError())
        errorfeed.report(ValueError("x"))
        assert (await found.get())["type"] == "ValueError"


async def test_the_fleet_needs_a_worker() -> None:
    with pytest.raises(FairleadError, match="needs a worker"):
        await anext(process_errors("fleet"))
    with pytest.raises(ValueError, match="expected 'process' or 'fleet'"):
        process_errors("planet")  # type: ignore[arg-type]
