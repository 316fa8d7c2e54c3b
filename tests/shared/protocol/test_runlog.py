from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import envelope, runlog
from fairlead.protocol.envelope import Answer, DataType
from fairlead.protocol.runlog import Entry, Opening, Start, Viewing

START = Start("w1", 0, 1000.0).encode()

U32 = st.integers(0, 2**32 - 1)
SAID = st.lists(st.binary(min_size=1), min_size=1, max_size=4)
ENTRIES = st.builds(Entry, U32, U32, SAID)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OPENINGS = st.builds(Opening, TEXT, TEXT, TEXT, st.floats(1, 86400), st.binary())


def test_an_entry_as_it_is_stored() -> None:
    """Runs outlive our updates: other bytes need another stream."""
    item = envelope.item(Answer.ITEM, DataType.TEXT, b"hi")
    entry = Entry(2, 1, [item, bytes([Answer.DONE])])
    stored = b"\0\0\0\2\0\0\0\1" + b"\0\0\0\4Ithi" + b"\0\0\0\1D"
    assert runlog.encode_entry(entry) == stored
    assert runlog.decode_entry(stored) == entry


@given(ENTRIES)
def test_an_entry_round_trip(entry: Entry) -> None:
    assert runlog.decode_entry(runlog.encode_entry(entry)) == entry


@given(ENTRIES, st.integers(1, 30))
def test_an_entry_that_is_cut_short_is_malformed_or_a_shorter_one(entry: Entry, cut: int) -> None:
    with contextlib.suppress(Malformed):
        found = runlog.decode_entry(runlog.encode_entry(entry)[:-cut])
        assert list(found.said) == list(entry.said)[: len(found.said)] != list(entry.said)


@given(st.binary())
def test_no_bytes_are_anything_but_theirs_or_malformed(payload: bytes) -> None:
    for decode in (
        runlog.decode_entry, runlog.decode_opening, runlog.decode_control, runlog.decode_end,
        runlog.decode_start,
    ):  # fmt: skip
        with contextlib.suppress(Malformed):
            decode(payload)


@given(OPENINGS)
def test_an_opening_round_trip(opening: Opening) -> None:
    assert runlog.decode_opening(runlog.encode_opening(opening)) == opening


@pytest.mark.parametrize(
    ("said", "begins", "ends"),
    [
        ([START], True, False),
        ([START, b"It1", b"D"], True, True),
        ([b"It1", b"Rt2"], False, True),
        ([b'E{"status":500}'], False, True),
        ([b"It1", b"L"], False, False),
    ],
)
def test_what_begins_an_attempt_and_what_ends_a_run(
    said: list[bytes], begins: bool, ends: bool
) -> None:
    entry = Entry(1, 1, said)
    assert (entry.begins, entry.ends) == (begins, ends)


def test_words_to_whoever_has_a_run() -> None:
    viewing = Viewing("e1", 3, 42)
    assert runlog.encode_viewing(viewing) == b'V["e1",3,42]'
    assert runlog.decode_control(b'V["e1",3,42]') == viewing
    assert runlog.decode_control(runlog.CANCEL) is None


def test_an_ended_run_is_kept_for_so_long() -> None:
    assert runlog.decode_end(runlog.encode_end(1000.0, 300.0)) == 1300.0


def test_a_proof_is_not_the_key() -> None:
    assert len(runlog.proof("key")) == 8
    assert runlog.proof("key") == runlog.proof("key") != runlog.proof("kez")
    assert b"key" not in runlog.proof("key")


def test_the_start_of_an_attempt_as_it_is_stored() -> None:
    start = Start("w1", 2, 1000.5)
    assert start.encode() == b'S["w1",2,1000.5]'
    assert runlog.decode_start(start.encode()) == start


def test_a_run_that_kills_its_workers_is_given_up() -> None:
    start = Start("w0", 0, 1000.0)
    for number in range(1, 11):
        assert not start.deadly
        start = start.next(f"w{number}", left=False, at=1000.0 + number)
        assert start.losses == number
    assert start.deadly


def test_who_had_it_for_a_minute_did_not_die_of_it_and_who_left_did_not_die() -> None:
    start = Start("w1", 9, 1000.0)
    assert start.next("w2", left=False, at=1061.0).losses == 1
    assert start.next("w2", left=True, at=1001.0).losses == 9


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_attempt_that_is_sampled_says_so_to_the_next_one() -> None:
    start = Start("w1", 0, 1000.0, TRACE)
    assert start.encode() == b'S["w1",0,1000.0,"%b"]' % TRACE.encode()
    assert runlog.decode_start(start.encode()) == start
    for left in (True, False):
        assert start.next("w2", left, 2000.0).trace == TRACE


def test_an_attempt_that_is_not_sampled_is_stored_as_ever() -> None:
    assert START == b'S["w1",0,1000.0]'
    assert runlog.decode_start(START).trace == ""
