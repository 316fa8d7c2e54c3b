"""The command as its user has it, over a real HTTP server; from real processes: tests/system."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fairlead import cli
from fairlead_console.spans import Span
from fairlead_console.waterfall import waterfall
from support.spans import EDGE_1, TRACE, chat, span
from support.tracestores import JSON, Answer, Query, TraceStore, answering, jaeger

OTHER = "0af7651916cd43dd8448eb211c80319c"

Fairlead = Callable[..., tuple[int, str, str]]


class Console:
    """Answers as the console does, of spans that may change."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = {TRACE: chat(), OTHER: [span("a", "x", 0, 1, EDGE_1)]}

    def __call__(self, path: str, query: Query) -> Answer:
        pictures = [waterfall(trace, spans) for trace, spans in self.spans.items()]
        if path == "/api/traces":
            summaries = [
                {key: value for key, value in picture.items() if key not in ("rows", "notes")}
                for picture in pictures[: int(query["limit"])]
            ]
            return 200, JSON, {"traces": summaries, "held": 2}
        id = path.rpartition("/")[2]
        for picture in pictures:
            if picture["trace"].startswith(id):
                return 200, JSON, picture
        return 404, JSON, {"detail": f"no trace begins with {id}"}


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def store(console: Console) -> Iterator[TraceStore]:
    with answering(console) as it:
        yield it


@pytest.fixture
def trace(
    store: TraceStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Fairlead:
    """`fairlead trace …` of that console; gives exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*argv: str) -> tuple[int, str, str]:
        code = cli.main(["trace", *argv, "--from", store.url])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_trace_by_the_first_digits_of_its_id(trace: Fairlead) -> None:
    code, out, err = trace(TRACE[:8].upper())
    assert (code, err) == (0, "")
    first, second, *_ = out.splitlines()
    assert first.startswith("receive rooms.{room}  ")
    assert second == f"{TRACE}  6 spans"
    assert "\n10 ms in all · user code 5.2 ms (52%) · broker 2.6 ms (26%)" in out


@pytest.mark.parametrize("way", ["--last", "--slow"])
def test_one_is_drawn_and_several_are_listed(trace: Fairlead, store: TraceStore, way: str) -> None:
    assert "\n    look it up " in trace(way)[1]
    assert [query for _, query, _ in store.asked if "order" in query] == [
        {"order": way[2:], "limit": "1"}
    ]
    lines = trace(way, "5")[1].splitlines()
    assert [line[:8] for line in lines] == [TRACE[:8], OTHER[:8], "", "fairlead"]


def test_json(trace: Fairlead) -> None:
    assert json.loads(trace(TRACE, "--json")[1]) == waterfall(TRACE, chat())
    lines = trace("--last", "5", "--json")[1].splitlines()
    assert [json.loads(line)["trace"] for line in lines] == [TRACE, OTHER]
    assert all(json.loads(line)["rows"] for line in lines)


def test_the_variables(trace: Fairlead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_LAST", "1")
    monkeypatch.setenv("FAIRLEAD_JSON", "1")
    assert json.loads(trace()[1])["trace"] == TRACE


def test_a_jaeger_is_as_good(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with answering(jaeger) as it:
        monkeypatch.setenv("FAIRLEAD_FROM", it.url)
        assert cli.main(["trace", "--slow"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("✗ receive rooms.{room}  ")
    assert "\n    attempt 1 " in out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ((), "name a trace by its id or its first digits, or ask for --last or --slow"),
        (("abc", "--last"), "name a trace by its id or its first digits, or ask for"),
        (("--last", "--slow"), "name a trace by its id or its first digits, or ask for"),
        (("xyz",), "TRACE: found 'xyz'; a trace has an id of 32 hex digits"),
        (("a" * 33,), "TRACE: found 'aaa"),
        (("--last", "0"), "--last: found '0', but input should be greater than or equal to 1"),
        (("--last", "101"), "--last: found '101', but input should be less than or equal to 100"),
        (("--last", "--kind", "zipkin"), "--kind: found 'zipkin', but input should be 'auto', "),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    trace: Fairlead, argv: tuple[str, ...], line: str
) -> None:
    code, out, err = trace(*argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"fairlead: {line}")
    assert err.count("\n") == 1


def test_nothing_to_show_is_one_line_and_exit_code_1(trace: Fairlead, console: Console) -> None:
    code, out, err = trace("ffff")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("fairlead: no trace begins with ffff; it may be too old")
    console.spans.clear()
    code, out, err = trace("--last")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "send a message first" in err


def test_nobody_there_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "--last", "--from", "http://127.0.0.1:9"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "is `fairlead dev` running?" in err


def test_a_young_trace_is_read_again_when_all_have_told(
    trace: Fairlead, console: Console, store: TraceStore
) -> None:
    """An edge that has exported stands before a worker that has not."""
    began = time.time_ns() - chat()[0].start - 10_000_000
    whole = [replace(s, start=s.start + began, end=s.end + began) for s in chat()]
    console.spans = {TRACE: whole[:1]}
    reads: list[str] = []

    def growing(path: str, query: Query) -> Answer:
        answer = console(path, query)
        if path != "/api/traces":
            reads.append(path)
            console.spans = {TRACE: whole}
        return answer

    with answering(growing) as it:
        store.url = it.url
        assert f"{TRACE}  6 spans" in trace("--last")[1]
        assert len(reads) == 2
        assert f"{TRACE}  6 spans" in trace(TRACE)[1]
    assert len(reads) == 3, "it is old by now"


def test_without_its_extra_it_says_how_to_get_it(
    trace: Fairlead, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("fairlead_console")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    code, _, err = trace("--last")
    assert code == 1
    assert err == (
        "fairlead: httpx is not installed; it comes with Fairlead's extra console (in a clone: pip install '.[console]')\n"
    )
