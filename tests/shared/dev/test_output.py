from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fairlead.dev import output
from fairlead.dev.output import Listening, Output, Overview
from fairlead.dev.routes import Route

CHAT = Route(
    workflow="Chat",
    feature="Support",
    transport="websocket",
    methods=("GET",),
    endpoint="/support/realtime/rooms/{room}",
    topic="rooms.{room}",
    history="1000, 5m",
    deliver="topic",
)
OVERVIEW = Overview(8001, "secret", traces=False)
TICKS = Route("Ticks", "Support", "sse", ("GET", "POST"), "/support/realtime/ticks")


def written(colour: bool = False) -> tuple[Output, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, width=120, force_terminal=colour, color_system="standard" if colour else None
    )
    return Output(console, width=6), stream


def test_lines_begin_in_one_column() -> None:
    out, stream = written()
    out.line("edge", "up [not markup]")
    out.line("worker", "x" * 200)
    assert stream.getvalue() == f"edge   │ up [not markup]\nworker │ {'x' * 200}\n"


def test_each_kind_has_its_colour_and_a_child_keeps_its_own() -> None:
    out, stream = written(colour=True)
    out.line("edge-2", "\x1b[31mred\x1b[0m")
    assert stream.getvalue().startswith("\x1b[36medge-2 │ ")
    assert "\x1b[31mred" in stream.getvalue()


def test_the_table_says_what_is_where() -> None:
    out, stream = written()
    out.table([CHAT, TICKS], [Listening("edge", 8000, 8011)], OVERVIEW, "nats://127.0.0.1:4333")
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert "endpoint serves workflow topic deliver history" in lines
    assert (
        "/support/realtime/rooms/{room} WebSocket Support / Chat rooms.{room} topic 1000, 5m"
        in lines
    )
    assert "/support/realtime/ticks SSE GET POST Support / Ticks" in lines
    assert "edge: http://127.0.0.1:8000, admin port 8011" in lines
    assert "console: http://127.0.0.1:8001/#token=secret" in lines
    assert "nats: nats://127.0.0.1:4333" in lines
    assert f"{output.python()} -m websockets ws://127.0.0.1:8000/support/realtime/rooms/1" in lines
    assert "curl -N 'http://127.0.0.1:8000/support/realtime/ticks?channel=blue'" in lines


def test_a_page_is_named_at_every_edge() -> None:
    out, stream = written()
    edges = [Listening("edge-1", 8000, 8011), Listening("edge-2", 8002, 8012)]
    out.table([TICKS], edges, OVERVIEW, "nats://127.0.0.1:4333", page=True)
    line = "Open in two windows: http://127.0.0.1:8000/ http://127.0.0.1:8002/"
    assert line in stream.getvalue().splitlines()
    out, stream = written()
    out.table([TICKS], edges, OVERVIEW, "nats://127.0.0.1:4333")
    assert "windows" not in stream.getvalue()


def test_a_line_that_may_be_refused_says_so() -> None:
    out, stream = written()
    guarded = Route("Ticks", "Support", "sse", ("GET",), "/support/realtime/ticks", checks=True)
    out.table([TICKS, guarded], [Listening("edge", 8000, 8011)], OVERVIEW, "nats://127.0.0.1:4333")
    assert stream.getvalue().count(f"({output.CHECKED})") == 1
    assert stream.getvalue().rstrip().endswith(f"({output.CHECKED})")


def test_where_the_last_message_can_be_looked_at() -> None:
    """Only where the console has its spans; and only the port that nobody would guess is said."""
    for overview, line in [
        (Overview(8001, "secret", True), "  fairlead trace --last\n"),
        (Overview(9, "secret", True), "  fairlead trace --last --from http://127.0.0.1:9\n"),
        (Overview(8001, "secret", False), ""),
    ]:
        out, stream = written()
        out.table([TICKS], [Listening("edge", 8000, 8011)], overview, "nats://127.0.0.1:4333")
        assert line in stream.getvalue()
        assert stream.getvalue().count("fairlead trace") == (line != "")


def test_lines_to_try() -> None:
    assert output.lines_to_try(TICKS, 1) == [
        "curl -N 'http://127.0.0.1:1/support/realtime/ticks?channel=blue'",
        "curl -N 'http://127.0.0.1:1/support/realtime/ticks?channel=blue' -d 'a text to POST'",
    ]


def test_python_is_the_one_that_has_websockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / ".venv" / "bin"
    ours.mkdir(parents=True)
    (ours / "python").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(ours / "python"))
    assert output.python({"PATH": str(ours)}) == "python"
    assert output.python({"PATH": "/nowhere"}) == ".venv/bin/python"
    monkeypatch.setattr(sys, "executable", "/elsewhere/python3")
    assert output.python({"PATH": str(ours)}) == "/elsewhere/python3"


def test_a_reader_that_leaves_does_not_end_us() -> None:
    """`fairlead dev | head`: rich alone would raise SystemExit in the middle of our tasks."""
    console = output.console()
    console.on_broken_pipe()
    console.print("into the void")
