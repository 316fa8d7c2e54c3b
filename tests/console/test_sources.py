"""Each source over real HTTP: Jaeger's recorded answers, Tempo's documented ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from fairlead.settings import CannotStart
from fairlead_console.asking import Asked, Http
from fairlead_console.parts import PARTS
from fairlead_console.sources import Order, Source, connect, kind_of
from fairlead_console.spans import Span
from fairlead_console.waterfall import waterfall
from support.spans import EDGE_1, TRACE, chat, span
from support.tracestores import (
    HTML,
    JSON,
    TEXT,
    Answer,
    Query,
    Tempo,
    TraceStore,
    answering,
    jaeger,
)

LOST = "0af7651916cd43dd8448eb211c80319c"
LATER = "00000000000000000000000000000abc"
GONE = "f" * 32


TEMPO = Tempo(
    {
        TRACE: chat(),
        LATER: [span("d1", "receive t", 5000, 5008, EDGE_1)],
        "c" * 32: [span("d1", "connect /x", 9000, 9900, EDGE_1)],
        "d" * 32: [span("d1", "receive t", 8000, 8000.1, EDGE_1)],
    }
)


def console(path: str, query: Query) -> Answer:
    """As collector.py answers."""
    if path == "/api/traces":
        whole: dict[str, Any] = dict(waterfall(TRACE, chat()))
        del whole["rows"], whole["notes"]
        return 200, JSON, {"traces": [whole], "held": 1}
    match path.rpartition("/")[2]:
        case "several":
            return 409, JSON, {"detail": "several traces begin with 4", "traces": ["4a", "4b"]}
        case id if TRACE.startswith(id):
            return 200, JSON, waterfall(TRACE, chat())
        case id:
            return 404, JSON, {"detail": f"no trace begins with {id}"}


@contextmanager
def source(
    answer: Callable[[str, Query], Answer], **asked: Any
) -> Iterator[tuple[TraceStore, Source]]:
    with answering(answer) as it:
        http, made = connect(Asked(it.url, **asked))
        try:
            yield it, made
        finally:
            http.close()


def ids(found: Sequence[Any]) -> list[str]:
    return [each["trace"] for each in found]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (console, "console"),
        (jaeger, "jaeger"),
        (TEMPO, "tempo"),
        (Tempo({}, echo=False), "tempo"),  # behind a proxy that lets only some paths through
    ],
)
def test_what_answers_is_found_out(answer: Callable[[str, Query], Answer], kind: str) -> None:
    with answering(answer) as it:
        http = Http(Asked(it.url))
        assert kind_of(http) == kind
        http.close()


@pytest.mark.parametrize(
    "answer", [(200, HTML, "<html>"), (404, TEXT, "no"), (200, JSON, []), (200, JSON, {"a": 1})]
)
def test_something_else_is_told(answer: Answer) -> None:
    with (
        answering(lambda path, query: answer) as it,
        pytest.raises(CannotStart, match=r"is no console, Jaeger or Tempo; .* --kind"),
    ):
        connect(Asked(it.url))


def test_what_is_told_is_not_asked_for() -> None:
    with source(TEMPO, kind="tempo") as (it, _):
        assert it.asked == []


# One trace


@pytest.mark.parametrize("answer", [console, TEMPO])
@pytest.mark.parametrize("id", [TRACE, TRACE[:6]])
def test_a_trace_by_its_id_or_the_first_digits_of_it(
    answer: Callable[[str, Query], Answer], id: str
) -> None:
    with source(answer) as (_, it):
        made = it.one(id)
    expected = waterfall(TRACE, [_whole(each) for each in chat()])
    assert made["parts"] == expected["parts"]
    assert [row["name"] for row in made["rows"]] == [row["name"] for row in expected["rows"]]
    assert [row["service"] for row in made["rows"]] == [row["service"] for row in expected["rows"]]


def _whole(each: Span) -> Span:
    return replace(
        each, id=each.id.rjust(16, "0"), parent=each.parent and each.parent.rjust(16, "0")
    )


@pytest.mark.parametrize("id", [TRACE, TRACE[:6]])
def test_a_trace_of_jaegers(id: str) -> None:
    with source(jaeger) as (it, made):
        trace = made.one(id)
    assert it.asked[-1][1]["raw"] == "true", "its own correction of clocks would hide ours"
    assert trace["parts"] == pytest.approx(waterfall(TRACE, chat())["parts"])
    assert trace["parts"].keys() == set(PARTS)


@pytest.mark.parametrize(
    ("answer", "id", "line"),
    [
        (console, "fff", "no trace begins with fff; it may be too old"),
        (console, "several", "several traces begin with 4: 4a, 4b"),
        (jaeger, GONE, f"URL has no trace {GONE}; it may be too old, or not sampled"),
        (TEMPO, GONE, f"URL has no trace {GONE}; it may be too old, or not sampled"),
        (jaeger, "fff", "none of the last 200 traces of fairlead-edge at URL begins with fff"),
        (TEMPO, "fff", "none of the last 200 traces of fairlead-edge at URL begins with fff"),
        (Tempo({"a" * 32: chat(), "a" * 31 + "b": chat()}), "aaa", "several traces begin with aaa"),
    ],
)
def test_one_that_is_not_there_is_a_line(
    answer: Callable[[str, Query], Answer], id: str, line: str
) -> None:
    with source(answer) as (it, made), pytest.raises(CannotStart) as said:
        made.one(id)
    assert str(said.value).replace(it.url, "URL").startswith(line)


# Several


@pytest.mark.parametrize(
    ("order", "count", "expected"),
    [
        ("last", 9, ["d" * 32, LATER, TRACE]),  # none of a connection
        ("last", 1, ["d" * 32]),
        ("slow", 9, [TRACE, LATER, "d" * 32]),
    ],
)
def test_the_newest_and_the_slowest_of_tempos(
    order: Order, count: int, expected: list[str]
) -> None:
    with source(TEMPO, since=600, service="fairlead-edge") as (it, made):
        found = made.best(order, count)
    assert ids(found) == expected
    (query,) = [query for path, query, _ in it.asked if path == "/api/search"]
    assert query["q"] == '{ resource.service.name = "fairlead-edge" }'
    assert int(query["end"]) - int(query["start"]) == 600


@pytest.mark.parametrize(("order", "expected"), [("last", [TRACE, LOST]), ("slow", [LOST, TRACE])])
def test_the_newest_and_the_slowest_of_jaegers(order: Order, expected: list[str]) -> None:
    """Recorded with a connection besides, which is none of them."""
    with source(jaeger, since=600) as (it, made):
        assert ids(made.best(order, 9)) == expected
        assert ids(made.best(order, 1)) == expected[:1]
    query = it.asked[1][1]
    assert query["service"] == "fairlead-edge"
    assert int(query["end"]) - int(query["start"]) == 600_000_000


def test_of_the_consoles_no_rows_are_needed() -> None:
    with source(console) as (it, made):
        assert ids(made.best("slow", 5)) == [TRACE]
    assert it.asked[-1][1] == {"order": "slow", "limit": "5"}


@pytest.mark.parametrize("answer", [jaeger, TEMPO])
def test_no_message_of_a_service_is_a_line(answer: Callable[[str, Query], Answer]) -> None:
    with (
        source(answer, service="nix") as (_, made),
        pytest.raises(CannotStart, match=r"has no message of nix in the last 3600 s; .*--since"),
    ):
        made.best("last", 1)


def test_a_console_without_traces_says_how_to_get_some() -> None:
    def empty(path: str, query: Query) -> Answer:
        return 200, JSON, {"traces": [], "held": 0}

    with source(empty) as (_, made), pytest.raises(CannotStart, match="send a message first"):
        made.best("last", 1)


@pytest.mark.parametrize("kind", ["console", "jaeger", "tempo"])
@pytest.mark.parametrize("body", [[1], {"data": [1]}, {"traces": [{}]}, {"batches": 1}, "x"])
def test_nonsense_is_a_line(kind: Any, body: Any) -> None:
    with source(lambda path, query: (200, JSON, body), kind=kind) as (_, made):
        with pytest.raises(CannotStart):
            made.one(TRACE)
        with pytest.raises(CannotStart):
            made.best("last", 1)
