"""Logs on stderr: JSON, one object a line; in dev one readable line. Through structlog.

Log ids that we made, names that a project declares, counts. Never what a client sent, and no
address that it chose: docs/logging.md has the rule and the names of the fields.

Our own modules log by `get`, which needs no configuration: in somebody's application (a mounted
edge) the lines go where its own do. `configure` is for processes of ours.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, Processor, WrappedLogger

from fairlead import loglines
from fairlead.loglines import Style
from fairlead.protocol.subjects import kind_of

Level = Literal["debug", "info", "warning", "error"]

EVERY = 5.0
"""Seconds between two lines of a kind that clients, or peers, can cause at will."""

# They write the query, headers, payloads or addresses of what they carry at their lower levels.
_TALKATIVE = ("uvicorn", "websockets", "httpx", "httpcore", "urllib3", "nats", "opentelemetry")

_about: ContextVar[Callable[[], Mapping[str, Any]] | None] = ContextVar("fairlead_about")


def get(name: str) -> BoundLogger:
    """A logger of one of our modules; each line is an event with fields.

    The text is short and always the same, what differs is in the fields. An exception as the value
    of a field is written as its type, and in dev with what it says.
    """
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_CHAIN,
        wrapper_class=BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def about(fields: Callable[[], Mapping[str, Any]]) -> None:
    """Give all lines of the current task, and of what it starts, these fields.

    They are asked for when a line is written, so that a task that writes none pays nothing. Threads
    have them if they run in a copy of the task's context, as those of `asyncio.to_thread` do.
    """
    _about.set(fields)


def configure(
    dev: bool, process: str, level: Level = "info", exception_messages: bool = False
) -> None:
    """Send all logs of this process to stderr: structlog's, the standard library's, warnings, and
    what nobody caught.

    Replaces what was configured before. uvicorn must be told `log_config=None`, or it
    configures its own once more.

    Args:
        dev: readable lines instead of JSON, and exceptions whole.
        process: what this process is, `edge` or `worker`; stands on each line.
        level: below it nothing is written.
        exception_messages: write what exceptions say; they may quote what a client sent.
    """
    style = Style(process, readable=dev, whole=dev or exception_messages)
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _quieten(level)
    structlog.configure(
        processors=_CHAIN,
        wrapper_class=BoundLogger,
        context_class=dict,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _hook(style)


def identify(instance: str) -> None:
    """Put the id of this process on each line from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.style.instance = instance


def _quieten(level: Level) -> None:
    for name in ("uvicorn.error", "uvicorn.asgi", *_TALKATIVE):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    # A client can have a line of it with each request.
    logging.getLogger("uvicorn.error").filters[:] = [_SeldomTheSame()]
    # One line per request is a cost at our rates, and tells less than the metrics.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.disabled = True
    # Its debug mode writes the arguments of callbacks.
    loop = logging.getLogger("asyncio")
    loop.setLevel(max(logging.INFO, logging.getLogger().level))
    # Of each TLS connection that NATS closes it says that "eof_received() has no effect": so it should.
    loop.filters[:] = [lambda record: "eof_received" not in str(record.msg)]


# From a call to a record


def _with_what_it_is_about(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    fields = _about.get(None)
    if fields is not None:
        for name, value in fields().items():
            event.setdefault(name, value)
    return event


class _Line(dict[str, Any]):
    """An event as the message of a record; others than our formatter see it as one readable line."""

    def __str__(self) -> str:
        fields = {name: value for name, value in self.items() if name != "event"}
        return loglines.text(str(self.get("event", "")), fields)


def _as_record(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[_Line], dict[str, Any]]:
    beside = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    return (_Line(event),), beside


_CHAIN: Sequence[Processor] = (
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    _with_what_it_is_about,
    structlog.stdlib.PositionalArgumentsFormatter(),
    _as_record,
)

# From a record to a line


class _Formatter(logging.Formatter):
    def __init__(self, style: Style) -> None:
        super().__init__()
        self.style = style

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, _Line):
            fields = dict(record.msg)
            said = str(fields.pop("event", ""))
        else:
            found = structlog.contextvars.merge_contextvars(None, "", loglines.extra(record))
            fields = dict(_with_what_it_is_about(None, "", found))
            said = record.getMessage()
        return self.style.line(record, said, fields)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be made; the standard library would write its arguments instead."""
        told = {"at": f"{record.pathname}:{record.lineno}", "error": sys.exception()}
        instead = logging.makeLogRecord(
            {"name": record.name, "levelno": logging.ERROR, "levelname": "ERROR"}
        )
        instead.msg = _Line(event="a log line cannot be written", **told)
        try:
            self.stream.write(self.format(instead) + self.terminator)
            self.flush()
        except Exception:  # stderr is gone: there is nobody to tell
            return


# What nobody caught, and warnings


def _hook(style: Style) -> None:
    log = get("fairlead.process")

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.error("an exception was not caught", exc_info=error)

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread is not None else None
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            log.error(
                "an exception in a thread was not caught", thread=name, exc_info=found.exc_value
            )

    def unraisable(found: Any) -> None:
        log.error("an exception could not be raised", exc_info=found.exc_value)

    def warned(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        # Some quote values: pydantic's, about what cannot be serialized as it is declared.
        says = {"says": str(message)} if style.whole else {}
        log.warning("a warning", category=category.__name__, at=f"{filename}:{lineno}", **says)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
    warnings.showwarning = warned


# Not too many of them


@dataclass(slots=True)
class _Window:
    ends: float
    left: int
    more: int = 0
    fields: dict[str, Any] = field(default_factory=dict)


class Seldom:
    """An event that clients, or peers, can cause at will: written at once, then counted.

    After `burst` lines within 5 s the rest is one line, at the end of these, with what the last one
    had, and `more`: how many there were. Call it on the loop's thread.

    Args:
        say: such as `log.warning`.
        per: fields that tell its kinds apart; of each there must be few.
    """

    def __init__(
        self, say: Callable[..., Any], event: str, per: Sequence[str] = (), burst: int = 1
    ) -> None:
        self._say = say
        self._event = event
        self._per = per
        self._burst = burst
        self._windows: dict[tuple[Any, ...], _Window] = {}

    def __call__(self, **fields: Any) -> None:
        kind = tuple(fields.get(name) for name in self._per)
        now = time.monotonic()
        window = self._windows.get(kind)
        if window is not None and now >= window.ends:
            self._close(kind)
            window = None
        if window is None:
            window = self._windows[kind] = _Window(now + EVERY, self._burst)
        if window.left:
            window.left -= 1
            self._say(self._event, **fields)
            return
        if not window.more:
            self._close_at_the_end(kind, window.ends - now)
        window.more += 1
        window.fields = fields

    def _close_at_the_end(self, kind: tuple[Any, ...], pause: float) -> None:
        try:
            asyncio.get_running_loop().call_later(pause, self._close, kind)
        except RuntimeError:
            return  # no loop: the next line after the window tells

    def _close(self, kind: tuple[Any, ...]) -> None:
        window = self._windows.get(kind)
        if window is None or time.monotonic() < window.ends - 0.1:
            return  # it was closed by a later line, and another one is open
        del self._windows[kind]
        if window.more:
            self._say(self._event, **window.fields, more=window.more)


def dropped(subject: str, data: bytes, error: Exception) -> None:
    """Say that a message of NATS is no use, and dropped; whoever may publish can send any number."""
    _dropped(kind=kind_of(subject), bytes=len(data), error=error)


class _SeldomTheSame(logging.Filter):
    """Lets a text pass once in 5 s, with `more`: how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[object, object], float] = {}
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        self._passed = {text: at for text, at in self._passed.items() if now - at < EVERY}
        kind = record.msg, record.exc_info and record.exc_info[0]
        if kind in self._passed:
            self._held += 1
            return False
        self._passed[kind] = now
        if self._held:
            record.more, self._held = self._held, 0
        return True


_dropped = Seldom(get("fairlead.bus").warning, "a malformed message is dropped", per=["kind"])
