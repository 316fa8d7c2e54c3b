from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any

import pytest
import structlog

from fairlead import logs
from support.system import until

SECRET = "s3cret"


class Written:
    """What went to stderr since it was last asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().err

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def line(self) -> dict[str, Any]:
        (only,) = self.lines()
        return only


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Generator[Written]:
    """What went to stderr; what `configure` changes is as before at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    yield Written(capsys)
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.getLogger("uvicorn.access").disabled = False
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).filters.clear()


def test_json_one_object_a_line(written: Written) -> None:
    logs.configure(dev=False, process="edge")
    log = logs.get("fairlead.sample")
    log.info("took some", connection="c1", count=3)
    log.debug("not shown")
    record = written.line()
    assert datetime.fromisoformat(record.pop("ts")).utcoffset() is not None
    assert record == {
        "level": "info",
        "logger": "fairlead.sample",
        "msg": "took some",
        "process": "edge",
        "connection": "c1",
        "count": 3,
    }


def test_the_standard_library_s_loggers_and_structlog_s_write_alike(written: Written) -> None:
    logs.configure(dev=False, process="worker")
    logs.identify("w1")
    logging.getLogger("shop").info("took %d", 3, extra={"colour": "blue"})
    structlog.get_logger("shop").info("took %d", 3, colour="blue")
    structlog.get_logger().info("by module")
    first, second, third = written.lines()
    del first["ts"], second["ts"]
    assert first == second
    assert (first["msg"], first["instance"]) == ("took 3", "w1")
    assert third["logger"] == __name__


@pytest.mark.parametrize("log", [logging.getLogger("shop"), structlog.get_logger("shop")])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_below_the_level_nothing_is_written(written: Written, log: Any, level: logs.Level) -> None:
    logs.configure(dev=False, process="worker", level=level)
    for each in ("debug", "info", "warning", "error"):
        getattr(log, each)("said")
    found = [line["level"] for line in written.lines()]
    order = ["debug", "info", "warning", "error"]
    assert found == order[order.index(level) :]


async def test_a_line_has_what_its_task_is_about_and_so_have_its_threads(written: Written) -> None:
    logs.configure(dev=False, process="worker")
    log, other = logging.getLogger("shop"), structlog.get_logger("shop")

    async def run(name: str) -> None:
        logs.about(lambda: {"run": name, "trace_id": "t"})
        structlog.contextvars.bind_contextvars(user="u")
        log.info("stdlib")
        other.info("structlog")
        await asyncio.to_thread(log.info, "in a thread")
        await asyncio.create_task(_say(other))

    async def _say(log: Any) -> None:
        log.info("in a task of its own", run="mine")

    await asyncio.gather(run("r1"), run("r2"))
    log.info("outside")
    lines = written.lines()
    for name in ("r1", "r2"):
        of_run = [line["msg"] for line in lines if line.get("run") == name]
        assert of_run == ["stdlib", "structlog", "in a thread"]
    assert all(line["user"] == "u" and line["trace_id"] == "t" for line in lines[:-1])
    assert [line["msg"] for line in lines if line.get("run") == "mine"] == [
        "in a task of its own"
    ] * 2
    assert not {"run", "user", "trace_id"} & lines[-1].keys()


def test_an_end_of_tls_that_is_in_order_is_no_warning(written: Written) -> None:
    """What CPython's sslproto.py says when NATS closes a connection, beside what matters."""
    logs.configure(dev=False, process="worker")
    loop = logging.getLogger("asyncio")
    loop.warning("returning true from eof_received() has no effect when using ssl")
    loop.warning("Executing %s took %.3f seconds", "f", 1.0)
    assert "took 1.000 seconds" in written.line()["msg"]


def test_what_a_task_is_about_is_asked_for_only_when_a_line_is_written(written: Written) -> None:
    logs.configure(dev=False, process="worker")
    asked: list[int] = []

    def fields() -> dict[str, int]:
        asked.append(1)
        return {"asked": len(asked)}

    async def run() -> None:
        logs.about(fields)
        logging.getLogger("shop").debug("not shown")
        structlog.get_logger("shop").debug("not shown")
        assert not asked
        structlog.get_logger("shop").info("shown")

    asyncio.run(run())
    assert asked == [1]


@pytest.mark.parametrize("messages", [False, True])
@pytest.mark.parametrize("log", [logging.getLogger("x"), structlog.get_logger("x")])
def test_what_an_exception_says_is_written_where_it_is_asked_for(
    written: Written, log: Any, messages: bool
) -> None:
    logs.configure(dev=False, process="worker", exception_messages=messages)
    try:
        raise LookupError(SECRET)
    except LookupError:
        log.exception("failed", stack_info=True)
    line = written.line()
    assert line["exception"].endswith(f"LookupError: {SECRET}" if messages else "LookupError")
    assert "Stack" in line["stack"]


def test_in_dev_lines_are_readable_and_exceptions_whole(written: Written) -> None:
    logs.configure(dev=True, process="edge")
    log = logs.get("fairlead.edge")
    log.warning("slow", members=3)
    try:
        raise LookupError(SECRET)
    except LookupError as error:
        log.error("failed", error=error, exc_info=error)
    first, second, *trace = written.text().splitlines()
    assert first.partition(" ")[2] == "edge    WARNING slow members=3"
    assert second.partition(" ")[2] == f"edge    ERROR failed error=LookupError: {SECRET}"
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", f"LookupError: {SECRET}")


def test_uvicorn_s_lines_of_requests_are_not_written_at_any_level(written: Written) -> None:
    logging.getLogger("uvicorn").handlers = [logging.NullHandler()]
    logging.getLogger("uvicorn").propagate = False
    logs.configure(dev=False, process="edge", level="debug")
    for name in ("uvicorn.error", "websockets.server", "httpx", "urllib3.connectionpool"):
        logging.getLogger(name).info('"WebSocket /chat?token=secret" [accepted]')
        logging.getLogger(name).debug("< Authorization: secret")
    logging.getLogger("uvicorn.access").info("GET /")
    assert written.text() == ""
    logging.getLogger("uvicorn.error").warning("odd", extra={"color_message": "noise"})
    line = written.line()
    assert (line["logger"], line["msg"]) == ("uvicorn.error", "odd")
    assert "color_message" not in line


def test_what_a_client_makes_uvicorn_say_is_counted(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "EVERY", 0.05)
    logs.configure(dev=False, process="edge")
    for _ in range(10):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert "more" not in written.line()
    deadline = threading.Event()
    while not (lines := written.lines()):
        deadline.wait(0.01)
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert lines[0]["more"] >= 9


def test_a_warning_tells_where_it_is_and_in_production_not_what_it_says(written: Written) -> None:
    for dev in (False, True):
        logs.configure(dev=dev, process="edge")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # `catch_warnings` of the test runner has put its own in this place.
            warnings.showwarning(UserWarning(SECRET), UserWarning, "shop.py", 7)
        text = written.text()
        assert "UserWarning" in text and "shop.py:7" in text
        assert (SECRET in text) is dev


def test_what_nobody_caught_is_a_line(written: Written) -> None:
    logs.configure(dev=False, process="worker")

    def boom() -> None:
        raise ValueError(SECRET)

    class Unraisable:
        def __del__(self) -> None:
            boom()

    thread = threading.Thread(target=boom, name="mine")
    thread.start()
    thread.join()
    del thread
    it: Unraisable | None = Unraisable()
    del it
    gc.collect()
    try:
        boom()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    text = written.text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["msg"] for line in lines] == [
        "an exception in a thread was not caught",
        "an exception could not be raised",
        "an exception was not caught",
    ]
    assert lines[0]["thread"] == "mine"
    assert all(line["exception"].endswith("ValueError") for line in lines)
    assert SECRET not in text


def test_a_line_that_cannot_be_made_says_where_and_not_with_what(written: Written) -> None:
    logs.configure(dev=False, process="worker")
    logging.getLogger("shop").info("%d", SECRET)
    line = written.line()
    assert (line["msg"], line["error"]) == ("a log line cannot be written", "TypeError")
    assert line["at"].startswith(__file__)
    assert SECRET not in str(line)


def test_in_somebody_s_application_our_lines_go_where_its_own_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise LookupError("nobody")
    except LookupError:
        logs.get("fairlead.sample").exception("failed", members=3)
    (record,) = caplog.records
    assert record.getMessage() == "failed members=3"
    assert record.exc_info is not None and record.exc_info[0] is LookupError


# What can be caused at will


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def say(said: list[dict[str, Any]]) -> Callable[..., None]:
    return lambda event, **fields: said.append({"event": event, **fields})


async def test_a_flood_is_one_line_and_one_that_counts(
    said: list[dict[str, Any]], say: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "EVERY", 0.2)
    seldom = logs.Seldom(say, "slow")
    for number in range(100):
        seldom(number=number)
    assert said == [{"event": "slow", "number": 0}]
    await until(lambda: len(said) == 2, "the window is over")
    assert said[1] == {"event": "slow", "number": 99, "more": 99}
    seldom(number=100)
    assert said[2] == {"event": "slow", "number": 100}


async def test_kinds_are_counted_apart_and_each_has_its_burst(
    said: list[dict[str, Any]], say: Callable[..., None]
) -> None:
    seldom = logs.Seldom(say, "failed", ["workflow"], burst=2)
    for _ in range(5):
        seldom(workflow="a")
        seldom(workflow="b")
    assert [line["workflow"] for line in said] == ["a", "b", "a", "b"]


def test_without_a_loop_the_next_line_tells_the_count(
    said: list[dict[str, Any]], say: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    seldom = logs.Seldom(say, "slow")
    for number in range(3):
        seldom(number=number)
    now = logs.EVERY
    seldom(number=3)
    assert said == [
        {"event": "slow", "number": 0},
        {"event": "slow", "number": 2, "more": 2},
        {"event": "slow", "number": 3},
    ]


async def test_a_message_that_is_dropped_shows_neither_itself_nor_its_subject(
    written: Written,
) -> None:
    logs.configure(dev=False, process="edge")
    for _ in range(50):
        logs.dropped(f"fl.shop.edge.{SECRET}.x", SECRET.encode(), ValueError(SECRET))
    line = written.line()
    del line["ts"]
    assert line == {
        "level": "warning", "logger": "fairlead.bus", "msg": "a malformed message is dropped",
        "process": "edge", "kind": "edge", "bytes": 6, "error": "ValueError",
    }  # fmt: skip
