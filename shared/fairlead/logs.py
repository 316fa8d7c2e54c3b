"""Logs on stderr: JSON, one object a line; in dev one readable line.

Log ids, counts and names. Never a payload: it is the user's, and may be anything.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime

import orjson

# What every record has; anything else came by `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# The message once more with colours, of uvicorn.
_NOISE = frozenset({"color_message"})


def configure(dev: bool, process: str) -> None:
    """Send all logs of this process to stderr, those of uvicorn and of warnings included.

    Replaces what was configured before. uvicorn must be told `log_config=None`, or it
    configures its own once more.

    Args:
        dev: readable lines instead of JSON.
        process: what this process is, `edge` or `worker`; stands on each line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableFormatter(process) if dev else JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # Its lines about each handshake hold the query, where tokens may stand.
        logger.setLevel(logging.WARNING)
    # One line per request is a cost at our rates, and tells less than the metrics.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.disabled = True


class JsonFormatter(logging.Formatter):
    """`{"ts","level","logger","msg","process", extra fields, "exception"?}`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        # Ours last: an extra field cannot pass for the level or the process.
        fields: dict[str, object] = _extra(record) | {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "process": self._process,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return _encode(fields)


class ReadableFormatter(logging.Formatter):
    """`12:00:01.123 worker  INFO  text key=value`, in local time; a traceback below."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = (
            f"{clock}.{int(record.msecs):03d} {self._process:<7} "
            f"{record.levelname:<5} {record.getMessage()}{extra}"
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            line += "\n" + self.formatStack(record.stack_info)
        return line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {
        key: value
        for key, value in vars(record).items()
        if key not in _STANDARD and key not in _NOISE
    }


def _encode(fields: dict[str, object]) -> str:
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        # Lone surrogates and integers over 64 bits, which the standard library writes.
        return json.dumps(fields, default=str, skipkeys=True)
