from __future__ import annotations

import asyncio
import json
import logging
import traceback

import pytest

from fairlead import loglines
from fairlead.errors import NotStored
from fairlead.loglines import Style

SECRET = "s3cret"


def line(style: Style, said: str = "x", **fields: object) -> str:
    return style.line(logging.makeLogRecord({"name": "shop", "levelname": "INFO"}), said, fields)


def in_production(said: str = "x", **fields: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(line(Style("edge", False, False), said, **fields))
    return found


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_a_time_stamp_has_milliseconds_and_is_utc() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.5, "msg": "x"})
    written = json.loads(Style("edge", False, False).line(record, "x", {}))
    assert written["ts"] == "2023-11-14T22:13:20.500Z"


def test_what_it_is_comes_first_and_no_field_can_pass_for_it() -> None:
    written = in_production("took one", members=3, level="forged", process="forged", msg="forged")
    assert list(written) == ["ts", "level", "logger", "msg", "process", "members"]
    assert (written["level"], written["msg"], written["process"]) == ("info", "took one", "edge")


def test_the_process_has_an_id_once_it_is_known() -> None:
    style = Style("edge", False, False)
    assert "instance" not in json.loads(line(style))
    style.instance = "e1"
    assert json.loads(line(style))["instance"] == "e1"


@pytest.mark.parametrize(
    "value", ["\ud800", 2**70, object(), {1: 2}, b"bytes", float("nan"), {"a": "\ud800"}]
)
def test_no_value_breaks_a_line(value: object) -> None:
    written = line(Style("edge", False, False), odd=value)
    assert "\n" not in written
    assert json.loads(written)["msg"] == "x"


def test_readable_is_one_line_with_what_tells_something() -> None:
    style = Style("worker", True, True)
    about = {"connection": "e-1", "run": "e-1-2", "attempt": 1}
    assert line(style, "slow", members=3, **about).endswith(
        " worker  INFO  slow members=3 run=e-1-2"
    )
    again = line(style, "slow", connection="e-1", attempt=2)
    assert again.endswith(" slow connection=e-1 attempt=2")


def test_an_exception_as_a_field_is_its_type_and_in_dev_what_it_says() -> None:
    error = ValueError(SECRET)
    assert in_production(error=error)["error"] == "ValueError"
    assert line(Style("edge", True, True), error=error).endswith(f"error=ValueError: {SECRET}")
    assert line(Style("edge", True, True), error=TimeoutError()).endswith("error=TimeoutError")


def test_what_nats_says_about_a_stream_is_told_without_names_that_clients_chose() -> None:
    error = NotStored(f"fl.shop.log.rooms.{SECRET}.-: no space left")
    told = "NotStored: fl.shop.log.…: no space left"
    assert in_production(error=error)["error"] == told
    assert loglines.without_messages(raised(error)).splitlines()[-1] == f"fairlead.errors.{told}"


class Odd(Exception):
    pass


def test_a_traceback_without_messages_is_python_s_without_them() -> None:
    error = raised(Odd("b"), raised(ValueError("a")))
    expected = "".join(traceback.format_exception(error))
    expected = expected.replace("ValueError: a", "ValueError").replace("Odd: b", "Odd")
    assert loglines.without_messages(error) + "\n" == expected


def test_no_exception_in_a_chain_or_a_group_says_anything() -> None:
    first = raised(ValueError(SECRET))
    first.add_note(SECRET)
    try:
        try:
            raise first
        except ValueError:
            raise KeyError(SECRET)  # noqa: B904 - the context is what is looked at
    except KeyError as caught:
        second = caught
    group = raised(ExceptionGroup(SECRET, [second, raised(Odd(SECRET), first)]))
    written = loglines.without_messages(group)
    source = (row for row in written.splitlines() if "raise" not in row)
    assert SECRET not in "\n".join(source)
    for kind in ("ExceptionGroup", "ValueError", "KeyError", "Odd", "1 of 2", "2 of 2"):
        assert kind in written


def test_a_chain_that_goes_in_circles_ends() -> None:
    one, two = raised(ValueError()), raised(KeyError())
    one.__cause__, two.__cause__ = two, one
    assert loglines.without_messages(one).count("KeyError") == 1


def test_a_context_that_is_suppressed_is_not_shown() -> None:
    try:
        try:
            raise ValueError
        except ValueError:
            raise KeyError from None
    except KeyError as error:
        assert "ValueError" not in loglines.without_messages(error).splitlines()


def test_asyncio_s_reprs_are_cut_off_in_production() -> None:
    async def boom() -> None:
        raise ValueError(SECRET)

    said: list[str] = []

    async def lose_a_task() -> None:
        task = asyncio.create_task(boom())
        await asyncio.wait({task})
        del task

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, found: said.append(f"{found['message']}\nfuture: {found.get('future')!r}")
        )
        await lose_a_task()

    asyncio.run(main())
    assert said and SECRET in said[0]
    record = logging.makeLogRecord({"name": "asyncio", "levelname": "ERROR"})
    written = json.loads(Style("worker", False, False).line(record, said[0], {}))
    assert written["msg"] == "Task exception was never retrieved"
    callback = Style("worker", False, False).line(
        record, f"Exception in callback f('{SECRET}')", {}
    )
    assert json.loads(callback)["msg"] == "Exception in callback f"
    assert SECRET in Style("worker", False, True).line(record, said[0], {})
