"""A line of the log, as it is written: its form, and what may not stand in it."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from fairlead.errors import NotStored, Unusable
from fairlead.protocol.subjects import shortened

# What every record has; anything else came by `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# The message once more with colours, of uvicorn.
_NOISE = frozenset({"color_message"})

# Where asyncio's texts begin to show arguments, results and exceptions by their repr.
_REPR = re.compile(r"[\n<(]")


@dataclass(slots=True)
class Style:
    """How a process writes its lines.

    Attributes:
        process: what it is; instance: its id, where it has one.
        readable: for people; else JSON.
        whole: exceptions with what they say, which may quote what a client sent.
    """

    process: str
    readable: bool
    whole: bool
    instance: str = ""

    def line(self, record: logging.LogRecord, said: str, fields: Mapping[str, Any]) -> str:
        """One record, whatever it holds."""
        if record.name == "asyncio" and not self.whole:
            said = _REPR.split(said)[0].strip()
        shown = {name: self._shown(value) for name, value in fields.items()}
        below = self._below(record)
        if isinstance(shown.get("stack"), str):
            below["stack"] = shown.pop("stack")
        return (
            self._readable(record, said, shown, below)
            if self.readable
            else self._json(record, said, shown, below)
        )

    def _shown(self, value: Any) -> Any:
        if not isinstance(value, BaseException):
            return value
        says = str(value) if self.whole else _harmless(value)
        return f"{type(value).__name__}: {says}" if says else type(value).__name__

    def _below(self, record: logging.LogRecord) -> dict[str, str]:
        """What is too long for the line: a traceback, a stack."""
        found = {}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            found["exception"] = whole(error) if self.whole else without_messages(error)
        if record.stack_info:
            found["stack"] = record.stack_info
        return found

    def _json(
        self, record: logging.LogRecord, said: str, shown: dict[str, Any], below: dict[str, str]
    ) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": said,
            "process": self.process,
        }
        if self.instance:
            line["instance"] = self.instance
        # Once more: a field cannot pass for the level or the process.
        return _encode(line | shown | line | below)

    def _readable(
        self, record: logging.LogRecord, said: str, shown: dict[str, Any], below: dict[str, str]
    ) -> str:
        if str(shown.get("run", "")).startswith(f"{shown.get('connection')}-"):
            del shown["connection"]  # it can be seen from the run
        if shown.get("attempt") == 1:
            del shown["attempt"]
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = (
            f"{clock}.{int(record.msecs):03d} {self.process:<7} "
            f"{record.levelname:<5} {text(said, shown)}"
        )
        return "\n".join([line, *below.values()])


def text(said: str, fields: Mapping[str, Any]) -> str:
    """`text key=value`, on one line."""
    return said + "".join(f" {name}={value}" for name, value in fields.items())


def extra(record: logging.LogRecord) -> dict[str, Any]:
    """What a line of the standard library was given by `extra=`."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and name not in _NOISE
    }


def whole(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


def without_messages(error: BaseException) -> str:
    """A traceback without what the exceptions in it, or their notes, say.

    What is left is the author's: types, files, lines and code. Messages are made of values, and so
    of what a client sent.
    """
    return "\n".join(_told(error, set()))


def _told(error: BaseException, seen: set[int]) -> list[str]:
    seen.add(id(error))
    lines: list[str] = []
    cause, context = error.__cause__, error.__context__
    if cause is not None and id(cause) not in seen:
        lines += [*_told(cause, seen), "", _CAUSE, ""]
    elif context is not None and not error.__suppress_context__ and id(context) not in seen:
        lines += [*_told(context, seen), "", _CONTEXT, ""]
    lines.append("Traceback (most recent call last):")
    lines += "".join(traceback.format_tb(error.__traceback__)).splitlines()
    kind = type(error)
    inside = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    says = _harmless(error)
    lines.append(f"{inside}{kind.__qualname__}: {says}" if says else inside + kind.__qualname__)
    if isinstance(error, BaseExceptionGroup):
        for number, each in enumerate(error.exceptions, 1):
            if id(each) not in seen:
                lines.append(f"  +-- {number} of {len(error.exceptions)}")
                lines += (f"  | {line}" for line in _told(each, seen))
    return lines


def _harmless(error: BaseException) -> str:
    """What an exception says, where that is ours and of NATS alone."""
    return shortened(str(error)) if isinstance(error, NotStored | Unusable) else ""


_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def _encode(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        # Lone surrogates and integers over 64 bits, which the standard library writes.
        return json.dumps(line, default=str, skipkeys=True)
