"""`fairlead top`'s picture, as a whole (files in tests/console/pictures), and what of it has its place."""

from __future__ import annotations

import io
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from fairlead.protocol.report import EdgeReport, Room, Run, Slow, Viewed, WorkerReport
from fairlead_console.board import draw, share
from fairlead_console.fleet import GONE_AFTER, Fleet
from support import golden

PICTURES = Path(__file__).with_name("pictures")

NOON = 1_750_000_000.0
"""Seconds since the epoch."""


def busy() -> dict[str, Any]:
    """Two edges and two workers at work, a third of each that has gone, and one that reads slowly."""
    fleet = Fleet()
    fleet.told(EdgeReport(id="e3", host="node-c"), 0.0)
    fleet.told(WorkerReport(id="w3", host="node-c", draining=True), 0.0)
    for now in (GONE_AFTER, GONE_AFTER + 1):
        grown = round(now * 100)
        rooms = [
            Room(topic="chat", channel=f"room-{n}", members=40 - n, messages=grown // (n + 1))
            for n in range(14)
        ]
        fleet.told(
            EdgeReport(
                id="0b1c2d3e", host="node-a", started=NOON - 7300, ready=True, lag=0.0012, rtt=0.0004,
                memory=183_000_000, websockets=1204, streams=33, rooms=tuple(rooms), rooms_in_all=512,
                counters={"received": grown, "deliveries": 40 * grown, "sent": grown // 2},
                slow=(Slow(connection="0b1c2d3e-42", workflow="Shop/Prices", bytes=700_000),),
                slow_in_all=1, buffered=700_000,
                viewed=(Viewed(run="0b1c2d3e-7-1", viewers=2),),
            ),
            now,
        )  # fmt: skip
        fleet.told(
            EdgeReport(
                id="1a2b3c4d", host="node-b", started=NOON - 30, draining=True, lag=0.25, rtt=0.31,
                reasons=("draining",), memory=90_000_000,
            ),
            now,
        )  # fmt: skip
        runs = (
            Run(run="0b1c2d3e-7-1", kind="kept", workflow="Shop/Tokens", age=61.0, attempt=2),
            Run(run="0b1c2d3e-9-3", workflow="Shop/Chat\x1b[2J", age=0.2),
        )
        fleet.told(
            WorkerReport(
                id="5e6f7a8b", host="node-a", started=NOON - 7300, ready=True, limits=(1000, 10_000),
                in_hand=(1000, 1), runs=runs, runs_in_all=2, lag=0.004, rtt=0.0005,
                memory=140_000_000,
                counters={"done": grown, "failed": grown // 50, "again": 0},
            ),
            now,
        )  # fmt: skip
        fleet.told(
            WorkerReport(
                id="6a7b8c9d", host="node-b", started=NOON - 5, limits=(1000, 10_000),
                reasons=("NATS has been away for 12 s",),
            ),
            now,
        )  # fmt: skip
    fleet.looked(GONE_AFTER + 1, NOON - 3)
    nats = {"connected": True, "server": "nats-0:4222"}
    picture = fleet.picture(GONE_AFTER + 1, ())
    return {"at": NOON, "app": "shop", "nats": nats, **picture}


def quiet() -> dict[str, Any]:
    nats = {"connected": False, "server": "nats-0:4222"}
    return {"at": NOON, "app": "shop", "nats": nats, **Fleet().picture(0.0, ())}


def shown(
    picture: dict[str, Any], width: int, height: int | None, encoding: str = "utf-8", **how: Any
) -> str:
    """What a terminal of that size is sent."""
    sent = io.BytesIO()
    file = io.TextIOWrapper(sent, encoding)
    console = Console(width=width, height=height or 25, file=file, highlight=False, **how)
    console.print(draw(picture, console, height, UTC))
    file.flush()
    return sent.getvalue().decode(encoding)


@pytest.mark.parametrize(("width", "height"), [(140, None), (100, 48), (60, 30)])
def test_all_of_it(width: int, height: int | None) -> None:
    name = f"top-{width}x{height or 'any'}.txt"
    golden.same(PICTURES / name, shown(busy(), width, height))


def test_in_colours_what_is_wrong_stands_out() -> None:
    golden.same(
        PICTURES / "top-colours.txt",
        shown(
            busy(), 140, None, force_terminal=True, color_system="standard", legacy_windows=False
        ),
    )


def test_in_ascii() -> None:
    golden.same(PICTURES / "top-ascii.txt", shown(busy(), 60, 48, "ascii"))


def test_nobody_there() -> None:
    golden.same(PICTURES / "top-nobody.txt", shown(quiet(), 100, 25))


@pytest.mark.parametrize("width", [140, 100, 60, 30])
@pytest.mark.parametrize("height", [60, 48, 30, 26])
def test_it_has_its_place_in_the_terminal(width: int, height: int) -> None:
    lines = shown(busy(), width, height).splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_nothing_that_a_process_tells_moves_the_cursor() -> None:
    made = shown(busy(), 140, None)
    assert "\x1b" not in made and "Chat?[2J" in made


@given(st.integers(-5, 100), st.lists(st.integers(0, 50), max_size=6))
def test_lines_are_given_to_who_wants_few_first(lines: int, wanted: list[int]) -> None:
    given_out = share(lines, wanted)
    assert sum(given_out) == min(max(0, lines), sum(wanted))
    assert all(0 <= had <= want for had, want in zip(given_out, wanted, strict=True))
    short = [had for had, want in zip(given_out, wanted, strict=True) if had < want]
    assert not short or max(given_out, default=0) - min(short) <= 1


def test_the_docs_show_what_is_shown() -> None:
    shown_there = [line.rstrip() for line in shown(busy(), 140, None).rstrip().splitlines()]
    page = Path(__file__).parents[2] / "docs" / "console.md"
    assert "\n".join(shown_there) in page.read_text()
