"""The terminal's picture of a trace, as a whole: the files are in tests/console/pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from fairlead_console.spans import Event, Link, Span
from fairlead_console.terminal import draw, draw_list
from fairlead_console.waterfall import Waterfall, waterfall
from support import golden
from support.spans import CLIENT, EDGE_1, EDGE_2, NOON, TRACE, USERS, WORKER, chat, ms, span

PICTURES = Path(__file__).with_name("pictures")


def shown(
    draw_it: Callable[[Console], None], width: int, encoding: str = "utf-8", **options: Any
) -> str:
    """What a terminal of that width is sent."""
    sent = io.BytesIO()
    file = io.TextIOWrapper(sent, encoding)
    draw_it(Console(width=width, file=file, highlight=False, **options))
    file.flush()
    return sent.getvalue().decode(encoding)


def picture(trace: Waterfall, width: int, encoding: str = "utf-8", **options: Any) -> str:
    return shown(lambda to: draw(to, trace, UTC), width, encoding, **options)


def troubled() -> list[Span]:
    """A message whose first worker was killed, the second of which failed; seen by its client."""
    return [
        span("c0ffee", "send", -2, 31, CLIENT),
        span("a1", "receive rooms.{room}", 0, 30, EDGE_1, "c0ffee", attempt=2, error=True),
        span("e2", "look it up", 2, 3, USERS, "e1"),
        span(
            "b1", "process rooms.{room}", 20, 29.5, WORKER, "a1", attempt=2, queue_wait=0.004,
            error=True, links=(Link("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),),
        ),
        span("b3", "publish rooms.{room}", 21, 21.2, WORKER, "b1"),
        span("d1", "deliver rooms.{room}", -27, -20, EDGE_2, "b3", members=3, slow=1, written=0.001),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [120, 80, 44, 28])
def test_a_chat_message(width: int) -> None:
    """Wide, usual, narrow; and where there is no room for a bar."""
    made = picture(waterfall(TRACE, chat()), width)
    golden.same(PICTURES / f"chat-{width}.txt", made)


def test_a_chat_message_in_ascii() -> None:
    """Where the terminal cannot show more."""
    golden.same(PICTURES / "chat-ascii.txt", picture(waterfall(TRACE, chat()), 100, "ascii"))


def test_a_chat_message_in_colours() -> None:
    made = picture(
        waterfall(TRACE, chat()), 100, force_terminal=True, color_system="standard", no_color=False
    )
    golden.same(PICTURES / "chat-colours.ansi", made)


def test_a_message_in_trouble() -> None:
    """A lost attempt with what it left, an error, a link, a clock that is off, a client."""
    golden.same(PICTURES / "trouble-120.txt", picture(waterfall(TRACE, troubled()), 120))


@pytest.mark.parametrize("width", [120, 60])
def test_a_list(width: int) -> None:
    traces = [
        waterfall(TRACE, chat()),
        waterfall("0af7651916cd43dd8448eb211c80319c", troubled()),
        waterfall("f" * 32, [span("a", "x", 0, 0, CLIENT)]),
    ]
    made = shown(lambda to: draw_list(to, traces, UTC), width)
    golden.same(PICTURES / f"list-{width}.txt", made)


def test_a_terminal_without_colours_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    made = picture(waterfall(TRACE, chat()), 100, force_terminal=True)
    assert "\x1b[3" not in made, "bold and dim are no colours"


def test_today_is_not_said() -> None:
    now = datetime.now(UTC).replace(hour=1, minute=2, second=3, microsecond=4000)
    start = int(now.timestamp() * 1000) * 1_000_000
    made = picture(waterfall(TRACE, [replace(chat()[0], start=start, end=start + ms(1))]), 100)
    assert made.splitlines()[0] == "receive rooms.{room}  01:02:03.004"


def details(span: Span) -> str:
    """What stands behind the bar of a row."""
    row = picture(waterfall(TRACE, [span]), 130).splitlines()[3]
    return row.partition(" ms")[2].strip()


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (span("a", "receive t", 0, 1, EDGE_1, events=(Event("no worker", NOON),)), "no worker"),
        (span("a", "process t", 0, 1, WORKER, attempt=3), "attempt 3"),
        (span("a", "process t", 0, 1, WORKER, attempt=1), ""),
        (span("a", "process t", 0, 1, WORKER, error=True), "error"),
        (span("a", "deliver t", 0, 1, EDGE_1, members=5, slow=2, dropped=1), "5 members, 2 slow, 1 dropped"),
        (span("a", "deliver t", 0, 1, EDGE_1, members=5, slow=2, late=2), "5 members, 2 slow, 2 late"),
        (span("a", "receive t", 0, 1, EDGE_1, links=(Link("ab" * 16, "1"),)), "see abababab"),
    ],
)  # fmt: skip
def test_what_is_out_of_the_ordinary_stands_behind_the_bar(shown: Span, text: str) -> None:
    assert details(shown) == text


def test_a_type_of_error_is_told() -> None:
    failed = replace(span("a", "process t", 0, 1, WORKER), attributes={"error.type": "KeyError"})
    assert details(failed) == "error KeyError"


def test_a_lost_attempt_says_why_and_whose_it_was() -> None:
    why = {"fairlead.attempt": 1, "fairlead.reason": "no beat", "fairlead.worker": "77aa01cd"}
    receive = span(
        "a",
        "receive t",
        0,
        9,
        EDGE_1,
        attempt=2,
        events=(Event("attempt lost", NOON + ms(5), why),),
    )
    row = picture(waterfall(TRACE, [receive]), 130).splitlines()[4]
    assert row.split()[:5] == ["attempt", "1", "worker", "77aa01cd", "other"]
    assert row.endswith("5 ms  no beat")


def test_a_time_that_no_calendar_has_is_not_shown() -> None:
    distant = replace(chat()[0], start=0, end=10)
    made = {**waterfall(TRACE, [distant]), "start": 10**30}
    assert picture(made, 100).startswith("receive rooms.{room}  ?\n")  # type: ignore[arg-type]


def test_many_rows_are_not_all_shown() -> None:
    many = [span(f"{i:x}", "publish t", i, i + 1, WORKER) for i in range(1, 301)]
    made = picture(waterfall(TRACE, many), 100)
    assert made.count("publish t  ") == 200 + 1, "and the title"
    assert "100 more rows; --json has them all" in made


def test_what_others_named_cannot_move_the_cursor() -> None:
    evil = replace(chat()[0], name="\x1b[2J\rreceive\n", attributes={"error.type": "\x1b]0;x\x07"})
    made = picture(waterfall(TRACE, [replace(evil, error=True)]), 100)
    assert "\x1b" not in made and "\r" not in made and "\x07" not in made
    assert "?[2J?receive?" in made


@given(
    st.lists(st.sampled_from([*chat(), *troubled()]), min_size=1, unique_by=lambda each: each.id),
    st.integers(1, 130),
    st.sampled_from(["utf-8", "ascii"]),
)
def test_no_line_is_longer_than_the_terminal(spans: list[Span], width: int, encoding: str) -> None:
    spans = [replace(each, name=each.name + " 消息" * 5) for each in spans]
    for line in picture(waterfall(TRACE, spans), width, encoding).splitlines():
        assert cell_len(line) <= width
