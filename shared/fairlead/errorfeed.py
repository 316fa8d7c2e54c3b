"""Uncaught errors, of this process or of all processes of the app, as a stream.

::

    hooks of Python, threads and the loop ─┐
    a run that failed ─────── report ──────┴─▶ listeners of this process
                                            └─▶ fl.<app>.errors ─▶ listeners of the fleet

The hooks that were there before are called as before, and come back when nobody listens any
more. What the reader of a feed breaks itself is not fed to it: a context variable marks who asks
for an item, and with it whatever task that one begins. What hands items from one task to another
carries the mark (`mark_of`, `take_mark`), as `fairlead.streams` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, Literal, TypedDict

import orjson

from fairlead.errors import FairleadError
from fairlead.protocol.problems import presentable

BEHIND = 1000
"""Errors that are held for one reader; the oldest ones are dropped for newer ones."""

PER_SECOND = 100
"""Errors that a process tells the fleet in one second; more are only its own."""

LONGEST = 2000
"""Characters of a message; more is cut."""


class ProcessError(TypedDict):
    """One uncaught error.

    `type` is the name of its class, `workflow` is `Feature/Workflow` where a run raised it,
    `process` the id of the process, `trace` a trace id of 32 hex digits.
    """

    type: str
    message: str
    workflow: str | None
    process: str
    trace: str | None


class _Listener:
    """One reader: what it has not read, and the loop that it reads on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._errors: deque[ProcessError] = deque(maxlen=BEHIND)
        self._news = asyncio.Event()

    def tell(self, error: ProcessError) -> None:
        """From any thread."""
        self._errors.append(error)
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._news.set)

    async def next(self) -> ProcessError:
        while not self._errors:
            self._news.clear()
            await self._news.wait()
        return self._errors.popleft()


class _Feed:
    """The errors of this process."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._bus: Any = None  # a Bus; not imported, since authors of workflows need no NATS client
        self._process = ""
        self._hooks: _Hooks | None = None
        self._second, self._told = 0, 0

    def attach(self, bus: Any, process: str) -> None:
        """Tell the fleet, too, from now on."""
        self._bus, self._process = bus, process
        self._hook()

    def detach(self) -> None:
        self._bus = None
        self._unhook()

    def _hook(self) -> None:
        if self._hooks is None:
            self._hooks = _Hooks(self.report)

    def _unhook(self) -> None:
        if self._hooks is not None and self._bus is None and not self._listeners:
            self._hooks.remove()
            self._hooks = None

    def report(
        self, error: BaseException, workflow: str | None = None, trace: str | None = None, *,
        context: contextvars.Context | None = None,
    ) -> None:  # fmt: skip
        """An error that nobody caught, from any thread.

        Args:
            context: where it was raised; None is where this is called.
        """
        if mark_of(context) or isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            return
        found = ProcessError(
            type=type(error).__name__,
            message=presentable(_text(error)[:LONGEST]),
            workflow=workflow,
            process=self._process,
            trace=trace,
        )
        for listener in list(self._listeners):
            listener.tell(found)
        self._tell_the_fleet(found)

    def _tell_the_fleet(self, error: ProcessError) -> None:
        bus = self._bus
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        if bus is not None and self._told <= PER_SECOND:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                bus.call_soon(bus.publish, bus.subjects.errors, orjson.dumps(error))

    @contextlib.contextmanager
    def listening(self, scope: Literal["process", "fleet"]) -> Iterator[_Listener]:
        listener = _Listener()
        if scope == "process":
            self._listeners.add(listener)
            self._hook()
            try:
                yield listener
            finally:
                self._listeners.discard(listener)
                self._unhook()
            return
        bus = self._bus
        if bus is None:
            raise FairleadError(
                'process_errors("fleet") needs a worker, which tells the others; '
                'elsewhere use process_errors("process")'
            )
        interest = bus.subscribe(
            bus.subjects.errors, lambda _s, _r, data, _h: listener.tell(orjson.loads(data))
        )
        try:
            yield listener
        finally:
            bus.unsubscribe(interest)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of the error's own __str__: what is told is the error, not this
        return ""


class _Hooks:
    """What Python calls when nobody catches an error, with what was called before."""

    def __init__(self, report: Any) -> None:
        self._report = report
        self._python = sys.excepthook
        self._threads = threading.excepthook
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        if self._loop is not None:
            self._handler = self._loop.get_exception_handler()
            self._loop.set_exception_handler(self._unretrieved)

    def remove(self) -> None:
        """Put back what was there, unless somebody has put something else in place since."""
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._python
        if threading.excepthook == self._uncaught_in_thread:
            threading.excepthook = self._threads
        if self._loop is not None and self._loop.get_exception_handler() == self._unretrieved:
            self._loop.set_exception_handler(self._handler)

    def _uncaught(self, kind: Any, error: BaseException, traceback: Any) -> None:
        self._report(error)
        self._python(kind, error, traceback)

    def _uncaught_in_thread(self, found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            self._report(found.exc_value)
        self._threads(found)

    def _unretrieved(self, loop: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
        error = found.get("exception")
        if isinstance(error, BaseException):
            self._report(error, context=_context_of(found))
        if self._handler is not None:
            self._handler(loop, found)
        else:
            loop.default_exception_handler(found)


def _context_of(found: dict[str, Any]) -> contextvars.Context | None:
    """The context of what failed: the loop's handler is called in that of whoever met the remains.

    Python 3.12 calls it in the right one, uvloop and 3.11 do not, and have no way to ask for it;
    but they tell the garbage collector.
    """
    for name in ("task", "future", "handle"):
        for each in gc.get_referents(found[name]) if name in found else ():
            if isinstance(each, contextvars.Context):
                return each
    return None


_feed = _Feed()
_reading: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "fairlead_reads_errors", default=False
)


def mark_of(context: contextvars.Context | None = None) -> bool:
    """Whether errors are read in a context; None is the current one."""
    return _reading.get() if context is None else context.get(_reading, False)


def take_mark(mark: bool) -> None:
    """Whoever calls this reads errors from now on, if the mark says so."""
    if mark:
        _reading.set(True)


attach = _feed.attach
detach = _feed.detach
report = _feed.report


def process_errors(
    scope: Literal["process", "fleet"] = "process",
) -> AsyncGenerator[ProcessError]:
    """Uncaught exceptions, unretrieved errors of tasks, and what `execute` raises, as they come.

    A reader that is more than 1,000 errors behind loses the oldest; a process tells the fleet of
    at most 100 a second. What the reading task breaks itself, once it reads, is not among them,
    nor what tasks break that it begins, or that read on through `fairlead.streams`. Of threads that
    it begins, and of tasks that it feeds through a queue of its own, nothing is known: have those
    catch what they break.

    Args:
        scope: of this process, or of all workers of the app.

    Raises:
        ValueError: another scope.
        FairleadError: the fleet is asked for outside of a worker; raised where it is iterated.
    """
    if scope not in ("process", "fleet"):
        raise ValueError(f"scope={scope!r}; expected 'process' or 'fleet'")
    return _Errors(scope)


class _Errors(AsyncGenerator[ProcessError, None]):
    """A feed. Who asks for its next item is a reader, whatever task that is then awaited in."""

    def __init__(self, scope: Literal["process", "fleet"]) -> None:
        self._items = _read(scope)

    def asend(self, value: None) -> Coroutine[Any, Any, ProcessError]:
        _reading.set(True)
        return self._items.asend(value)

    def __anext__(self) -> Coroutine[Any, Any, ProcessError]:
        return self.asend(None)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, ProcessError]:
        return self._items.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._items.aclose()


async def _read(scope: Literal["process", "fleet"]) -> AsyncGenerator[ProcessError]:
    with _feed.listening(scope) as listener:
        while True:
            yield await listener.next()
