"""Uncaught errors as a stream: where they come from, and that the hooks before stay in place."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairlead import errorfeed
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


async def test_what_the_reader_breaks_is_not_fed_to_it() -> None:
    stream = process_errors()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    errorfeed.report(ValueError("first"))
    await first

    async def reader() -> None:
        async for _ in process_errors():
            errorfeed.report(RuntimeError("broken by the reader"))
            return

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    errorfeed.report(ValueError("second"))
    await task
    assert (await anext(stream))["message"] == "second"
    errorfeed.report(ValueError("third"))
    assert (await anext(stream))["message"] == "third"
    await stream.aclose()


async def test_a_cancellation_is_no_error() -> None:
    async with reading() as found:
        errorfeed.report(asyncio.CancelledError())
        errorfeed.report(ValueError("x"))
        assert (await found.get())["type"] == "ValueError"


async def test_the_fleet_needs_a_worker() -> None:
    with pytest.raises(FairleadError, match="needs a worker"):
        await anext(process_errors("fleet"))
    with pytest.raises(ValueError, match="expected 'process' or 'fleet'"):
        await anext(process_errors("planet"))  # type: ignore[arg-type]
