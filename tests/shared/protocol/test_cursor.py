from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import cursor
from fairlead.protocol.cursor import End, Position, RunPlace, Several

ROOM = "fl.shop.log.chat.blue"
ENDPOINT = "/support/realtime/ask"

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
POSITIONS = st.builds(Position, U64, U64, U64)
ENDS = st.builds(End, st.text())
PLACES = st.builds(RunPlace, st.text(), U64, U64, U32, U32, st.binary(min_size=8, max_size=8))
SEVERAL = st.builds(Several, U64, U64, st.lists(U64, max_size=5).map(tuple))


def test_a_position_as_clients_see_it() -> None:
    """Clients keep cursors over our updates: other text needs another version."""
    position = Position(created=1_700_000_000_000_000_000, sequence=42, time=1_700_000_000_123)
    text = cursor.encode(position, ROOM)
    assert text == "AXCJtWe7F5ec_jYqAAAAAAAAAAAAKgAAAYvP5Wh7"
    assert cursor.decode(text, ROOM) == position


def test_an_end_as_clients_see_it() -> None:
    text = cursor.encode(End("e1-7-1"), ENDPOINT)
    assert text == "AWX7nFewZTEtNy0x"
    assert cursor.decode(text, ENDPOINT) == End("e1-7-1")


def test_positions_in_several_rooms_as_clients_see_them() -> None:
    several = Several(created=1_700_000_000_000_000_000, time=1_700_000_000_123, sequences=(42, 7))
    text = cursor.encode(several, ROOM)
    assert text == "AXOJtWe7F5ec_jYqAAAAAAGLz-VoewAAAAAAAAAqAAAAAAAAAAc"
    assert cursor.decode(text, ROOM) == several


def test_a_place_in_a_run_as_clients_see_it() -> None:
    place = RunPlace("e1-7-1", 1_700_000_000_000_000_000, 42, 5, 3, b"8 bytes!")
    text = cursor.encode(place, ENDPOINT)
    assert text == "AXL7nFewF5ec_jYqAAAAAAAAAAAAKgAAAAUAAAADOCBieXRlcyFlMS03LTE"
    assert cursor.decode(text, ENDPOINT) == place


@given(st.one_of(POSITIONS, SEVERAL, ENDS, PLACES), st.text())
def test_round_trip(place: cursor.Cursor, owner: str) -> None:
    text = cursor.encode(place, owner)
    assert cursor.decode(text, owner) == place
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), (
        "it goes into URLs and id: lines as it is"
    )


@pytest.mark.parametrize("place", [Position(1, 2, 3), End("r")])
def test_a_cursor_of_another_owner_is_foreign(place: Position | End) -> None:
    text = cursor.encode(place, ROOM)
    with pytest.raises(Malformed, match="from elsewhere"):
        cursor.decode(text, "fl.shop.log.chat.red")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


GOOD = base64.urlsafe_b64decode(cursor.encode(Position(1, 2, 3), ROOM) + "==")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "é",
        "not a cursor",
        "null",
        _text(b"\x02" + GOOD[1:]),  # a later version
        _text(b"\x01x" + GOOD[2:]),  # an unknown kind
        _text(GOOD[:-1]),
        _text(GOOD + b"\0"),
        _text(GOOD[:5]),
        _text(b"\x01s" + GOOD[2:-1]),
        _text(b"\x01s" + GOOD[2:14]),  # less than a stream and a time
        _text(b"\x01e" + GOOD[2:6] + b"\xff"),  # a run that is no UTF-8
        _text(GOOD) + "\n",
    ],
)
def test_what_is_no_cursor_of_ours_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="cursor"):
        cursor.decode(text, ROOM)


@given(st.one_of(st.text(), st.binary().map(_text), st.binary().map(lambda b: _text(GOOD[:6] + b))))
def test_no_text_is_anything_but_a_cursor_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(cursor.decode(text, ROOM), Position | End)
