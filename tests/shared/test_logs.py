from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Generator
from datetime import datetime

import pytest

from fairlead import logs


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Generator[Callable[[], str]]:
    """What went to stderr; the configuration of logging is restored at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.getLogger("uvicorn.access").disabled = False


def test_json_one_object_a_line(written: Callable[[], str]) -> None:
    logs.configure(dev=False, process="edge")
    log = logging.getLogger("fairlead.sample")
    log.info("took %d", 3, extra={"connection": "c1", "level": "forged"})
    log.debug("not shown")
    (line,) = written().splitlines()
    record = json.loads(line)
    assert datetime.fromisoformat(record.pop("ts")).utcoffset() is not None
    assert record == {
        "level": "info",
        "logger": "fairlead.sample",
        "msg": "took 3",
        "process": "edge",
        "connection": "c1",
    }


def test_a_time_stamp_has_milliseconds_and_is_utc() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.5, "msg": "x"})
    line = json.loads(logs.JsonFormatter("edge").format(record))
    assert line["ts"] == "2023-11-14T22:13:20.500Z"


@pytest.mark.parametrize("dev", [False, True])
def test_an_exception_is_told_whole(written: Callable[[], str], dev: bool) -> None:
    logs.configure(dev=dev, process="worker")
    try:
        raise LookupError("nobody")
    except LookupError:
        logging.getLogger("x").exception("failed", stack_info=True)
    text = written()
    if not dev:
        (line,) = text.splitlines()
        assert "Stack" in json.loads(line)["stack"]
        text = json.loads(line)["exception"]
    assert "Traceback" in text
    assert text.rstrip().partition("LookupError: nobody")[1]


@pytest.mark.parametrize(
    "value", ["\ud800", 2**70, object(), {1: 2}, b"bytes", float("nan"), {"a": "\ud800"}]
)
def test_no_value_breaks_a_line(written: Callable[[], str], value: object) -> None:
    logs.configure(dev=False, process="edge")
    logging.getLogger("x").info("odd", extra={"odd": value})
    (line,) = written().splitlines()
    assert json.loads(line)["msg"] == "odd"


def test_readable_in_dev(written: Callable[[], str]) -> None:
    logs.configure(dev=True, process="edge")
    logging.getLogger("x").warning("slow", extra={"members": 3})
    _, _, line = written().partition(" ")
    assert line == "edge    WARNING slow members=3\n"


def test_uvicorn_and_warnings_go_the_same_way(written: Callable[[], str]) -> None:
    logging.getLogger("uvicorn").handlers = [logging.NullHandler()]
    logging.getLogger("uvicorn").propagate = False
    logs.configure(dev=False, process="edge")
    logging.getLogger("uvicorn.error").info('"WebSocket /chat?token=secret" [accepted]')
    logging.getLogger("uvicorn.error").warning("odd", extra={"color_message": "noise"})
    logging.getLogger("uvicorn.access").info("GET /")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", UserWarning, stacklevel=1)
    first, second = (json.loads(line) for line in written().splitlines())
    assert (first["logger"], first["msg"]) == ("uvicorn.error", "odd")
    assert "color_message" not in first
    assert second["logger"] == "py.warnings"
