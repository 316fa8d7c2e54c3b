from __future__ import annotations

import contextlib
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, Context, Control, DataType, Kind, Wanted, Wish, Work

TYPES = st.sampled_from(DataType)
TEXTS = st.text(max_size=100)
BYTES = st.binary(max_size=200)
FIELDS = st.dictionaries(TEXTS, TEXTS, max_size=4)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    TEXTS, st.one_of(TEXTS, st.none(), st.integers(-(2**53), 2**53)), max_size=4
)
WORK = st.builds(
    Work,
    kind=st.sampled_from(Kind),
    type=TYPES,
    data=BYTES,
    sent=st.floats(allow_nan=False),
    trace=TEXTS,
    id=TEXTS,
    context=BYTES,
)

DECODERS = [
    envelope.decode_work,
    envelope.decode_context,
    envelope.decode_item,
    envelope.decode_event,
    envelope.decode_direct,
    envelope.decode_error,
    envelope.decode_accepted,
    envelope.decode_counted,
    envelope.decode_census,
    envelope.decode_control,
    envelope.decode_run,
    envelope.decode_place,
]


# Literal bytes: a promise to processes that run already, in a rolling update.


def test_a_message_on_the_wire() -> None:
    work = Work(
        Kind.MESSAGE, DataType.TEXT, b"hello", sent=1.5, trace="00-1", id="u", context=b"[]"
    )
    assert envelope.encode_work(work) == (
        b"mt"
        b"\x3f\xf8\x00\x00\x00\x00\x00\x00"  # 1.5
        b"\x00\x04\x00\x01\x00\x00\x00\x02"
        b"00-1u[]hello"
    )


def test_an_open_on_the_wire() -> None:
    assert envelope.encode_work(Work(Kind.OPEN, DataType.BINARY, b"")) == b"ob" + bytes(16)


def test_a_context_on_the_wire() -> None:
    context = Context({"a": "1"}, {"host": "é"}, {"id": "7"})
    assert envelope.encode_context(context) == (b'[{"a":"1"},{"host":"\xc3\xa9"},{"id":"7"}]')


def test_an_empty_context_costs_no_byte() -> None:
    assert envelope.encode_context(Context({}, {}, {})) == b""
    assert envelope.decode_context(b"") == Context({}, {}, {})


@pytest.mark.parametrize(
    ("answer", "wire"),
    [
        (envelope.taken("w1"), b"Tw1"),
        (envelope.item(Answer.ITEM, DataType.TEXT, b"x"), b"Itx"),
        (envelope.item(Answer.ITEM, DataType.BINARY, b"\x00\xff"), b"Ib\x00\xff"),
        (envelope.item(Answer.RESULT, DataType.JSON, b"{}"), b"Rj{}"),
        (
            envelope.event({"event": "tick", "retry": 5}, DataType.TEXT, b"x"),
            b'V\x00\x1a{"event":"tick","retry":5}tx',
        ),
        (envelope.error({"status": 500}), b'E{"status":500}'),
        (
            envelope.direct("chat", "e1-7", DataType.TEXT, b"hi"),
            b"P\x00\x04\x00\x04chate1-7thi",
        ),
        (envelope.accepted("ann", {"id": "ann"}), b'A["ann",{"id":"ann"}]'),
        (envelope.accepted("", None), b'A["",null]'),
        (envelope.counted(Answer.READ, 7), b"N\x00\x00\x00\x07"),
        (envelope.counted(Answer.DROPPED, 7), b"X\x00\x00\x00\x07"),
        (envelope.census(["e1-7.3.1"]), b'C["e1-7.3.1"]'),
        (
            envelope.run(Wanted(1, Wish.CANCEL, ("support", "answers"), "k", "ann")),
            b'U[1,"cancel","support","answers","k","ann"]',
        ),
        (envelope.place("fl.a.in.f.w.-.-", {"id": "1"}), b'["fl.a.in.f.w.-.-",{"id":"1"}]'),
        (bytes([Answer.LEFT]), b"L"),
        (bytes([Answer.BUSY]), b"B"),
        (bytes([Answer.DONE]), b"D"),
        (bytes([Answer.ASK]), b"Q"),
    ],
)
def test_each_answer_on_the_wire(answer: bytes, wire: bytes) -> None:
    assert answer == wire


@pytest.mark.parametrize(
    ("control", "wire"),
    [
        (
            envelope.control(Control.CANCEL, "e1-7.3.1"),
            b"C\x00\x00\x00\x00\x00\x08e1-7.3.1",
        ),
        (
            envelope.control(Control.CREDIT, "e1-7.3.1", 65536),
            b"G\x00\x01\x00\x00\x00\x08e1-7.3.1",
        ),
        (
            envelope.control(Control.INPUT, "e1-7.3.1", 2, b"work"),
            b"I\x00\x00\x00\x02\x00\x08e1-7.3.1work",
        ),
        (
            envelope.control(Control.DROP, "e1-7.3.1", 2),
            b"X\x00\x00\x00\x02\x00\x08e1-7.3.1",
        ),
    ],
)
def test_each_control_message_on_the_wire(control: bytes, wire: bytes) -> None:
    assert control == wire


def test_the_key_of_an_attempt() -> None:
    assert envelope.key("e1-7", 3, 2) == "e1-7.3.2"


# Round trips


@given(WORK)
def test_work_round_trip(work: Work) -> None:
    assert envelope.decode_work(envelope.encode_work(work)) == work


@given(st.builds(Context, FIELDS, FIELDS, FIELDS))
def test_context_round_trip(context: Context) -> None:
    assert envelope.decode_context(envelope.encode_context(context)) == context


@given(st.sampled_from([Answer.ITEM, Answer.RESULT]), TYPES, BYTES)
def test_item_round_trip(kind: Answer, data_type: DataType, data: bytes) -> None:
    wire = envelope.item(kind, data_type, data)
    assert wire[0] == kind
    assert envelope.decode_item(wire) == (data_type, data)


@given(
    st.builds(
        Wanted, st.integers(0, 2**31), st.sampled_from(Wish), st.tuples(TEXTS, TEXTS), TEXTS, TEXTS
    )
)
def test_wish_round_trip(wanted: Wanted) -> None:
    wire = envelope.run(wanted)
    assert wire[0] == Answer.RUN
    assert envelope.decode_run(wire) == wanted


@given(TEXTS, FIELDS)
def test_place_round_trip(inbound: str, path: dict[str, str]) -> None:
    assert envelope.decode_place(envelope.place(inbound, path)) == (inbound, path)


@given(OBJECTS, TYPES, BYTES)
def test_event_round_trip(meta: dict[str, Any], data_type: DataType, data: bytes) -> None:
    wire = envelope.event(meta, data_type, data)
    assert wire[0] == Answer.EVENT
    assert envelope.decode_event(wire) == (meta, data_type, data)


@given(TEXTS, TEXTS, TYPES, BYTES)
def test_direct_round_trip(topic: str, sender: str, data_type: DataType, data: bytes) -> None:
    wire = envelope.direct(topic, sender, data_type, data)
    assert wire[0] == Answer.DIRECT
    assert envelope.decode_direct(wire) == (topic, sender, data_type, data)


@given(OBJECTS)
def test_error_round_trip(problem: dict[str, Any]) -> None:
    wire = envelope.error(problem)
    assert wire[0] == Answer.ERROR
    assert envelope.decode_error(wire) == problem


@given(st.sampled_from(Control), TEXTS, st.integers(0, 2**32 - 1), BYTES)
def test_control_round_trip(what: Control, key: str, number: int, data: bytes) -> None:
    wire = envelope.control(what, key, number, data)
    assert envelope.decode_control(wire) == (what, key, number, data)


@given(TEXTS, st.one_of(st.none(), TEXTS, OBJECTS))
def test_accepted_round_trip(who: str, subject: Any) -> None:
    assert envelope.decode_accepted(envelope.accepted(who, subject)) == (who, subject)


@given(st.lists(TEXTS))
def test_census_round_trip(keys: list[str]) -> None:
    assert envelope.decode_census(envelope.census(keys)) == keys


# What is not ours


@pytest.mark.parametrize("decode", DECODERS)
@given(payload=st.binary(max_size=300))
def test_random_bytes_are_decoded_or_malformed(decode: Any, payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(payload)


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.data())
def test_bytes_that_are_nearly_right_are_decoded_or_malformed(
    decode: Any, data: st.DataObject
) -> None:
    """Random bytes seldom get past the first check, so these start from a real message."""
    wire = data.draw(
        st.sampled_from(
            [
                envelope.encode_work(Work(Kind.OPEN, DataType.JSON, b"1", 1.0, "tr", "é", b"[]")),
                envelope.encode_context(Context({"é": "1"}, {}, {})),
                envelope.event({"event": "é"}, DataType.JSON, b"1"),
                envelope.direct("é", "é", DataType.JSON, b"1"),
                envelope.run(Wanted(1, Wish.COPY, ("f", "w"), "k", "é")),
                envelope.place("fl.app.in.f.w.-.-", {"id": "é"}),
                envelope.control(Control.CREDIT, "é", 7),
                envelope.accepted("é", {"id": "é"}),
                envelope.census(["é"]),
                b"E[1]",
            ]
        )
    )
    at = data.draw(st.integers(0, len(wire)))
    mutated = wire[:at] + data.draw(st.binary(max_size=3)) + wire[at + 1 :]
    with contextlib.suppress(Malformed):
        decode(mutated)


@given(WORK, st.data())
def test_work_that_is_cut_before_its_data_is_malformed(work: Work, data: st.DataObject) -> None:
    wire = envelope.encode_work(work)
    keep = data.draw(st.integers(0, len(wire) - len(work.data) - 1))
    with pytest.raises(Malformed):
        envelope.decode_work(wire[:keep])


@given(OBJECTS, TYPES, BYTES, st.data())
def test_an_event_that_is_cut_before_its_data_is_malformed(
    meta: dict[str, Any], data_type: DataType, payload: bytes, data: st.DataObject
) -> None:
    wire = envelope.event(meta, data_type, payload)
    keep = data.draw(st.integers(0, len(wire) - len(payload) - 1))
    with pytest.raises(Malformed):
        envelope.decode_event(wire[:keep])


@given(TEXTS, TEXTS, TYPES, BYTES, st.data())
def test_a_direct_message_that_is_cut_before_its_data_is_malformed(
    topic: str, sender: str, data_type: DataType, payload: bytes, data: st.DataObject
) -> None:
    wire = envelope.direct(topic, sender, data_type, payload)
    keep = data.draw(st.integers(0, len(wire) - len(payload) - 1))
    with pytest.raises(Malformed):
        envelope.decode_direct(wire[:keep])


HEAD = b"mt" + bytes(16)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        HEAD[:-1],
        b"x" + HEAD[1:],  # an unknown kind
        b"mx" + HEAD[2:],  # an unknown type
        struct.pack("!BcdHHI", Kind.MESSAGE, b"t", 0.0, 1, 0, 0),  # more announced than there is
        struct.pack("!BcdHHI", Kind.MESSAGE, b"t", 0.0, 1, 0, 0) + b"\xff",  # no UTF-8
    ],
)
def test_malformed_work(payload: bytes) -> None:
    with pytest.raises(Malformed):
        envelope.decode_work(payload)


@pytest.mark.parametrize(
    "payload", [b"{", b"\xff", b"[]", b"[1,2,3]", b'"abc"', b"7", b"[{},{},1]"]
)
def test_a_malformed_context(payload: bytes) -> None:
    with pytest.raises(Malformed, match="not a context"):
        envelope.decode_context(payload)


@pytest.mark.parametrize("payload", [b"", b"I", b"Ix", b"I\x00data"])
def test_an_item_of_unknown_type_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed, match="an item of unknown type"):
        envelope.decode_item(payload)


@pytest.mark.parametrize("meta", [b"[]", b"null", b"{", b""])
def test_the_fields_of_an_event_are_an_object(meta: bytes) -> None:
    with pytest.raises(Malformed, match="event"):
        envelope.decode_event(b"V\x00" + bytes([len(meta)]) + meta + b"tx")


@pytest.mark.parametrize("problem", [b"", b"{", b"[]", b"5", b"null"])
def test_a_problem_is_an_object(problem: bytes) -> None:
    with pytest.raises(Malformed, match="problem"):
        envelope.decode_error(b"E" + problem)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"xkey",
        b"C\x00\x00\x00\x00\x00",  # cut in its head
        b"?\x00\x00\x00\x00\x00\x00",  # of unknown kind
        b"C\x00\x00\x00\x00\x00\x01\xff",  # a key that is no UTF-8
        b"C\x00\x00\x00\x00\x00\x05key",  # more announced than there is
    ],
)
def test_a_malformed_control_message(payload: bytes) -> None:
    with pytest.raises(Malformed, match="control message"):
        envelope.decode_control(payload)


@pytest.mark.parametrize("payload", [b"A", b"A{", b'A["x"]', b"A5"])
def test_a_malformed_acceptance(payload: bytes) -> None:
    with pytest.raises(Malformed, match="acceptance"):
        envelope.decode_accepted(payload)


@pytest.mark.parametrize("payload", [b"C", b"C{}", b"C[1]", b'C"x"'])
def test_a_census_is_a_list_of_keys(payload: bytes) -> None:
    with pytest.raises(Malformed, match="census"):
        envelope.decode_census(payload)


def test_the_largest_lengths_fit() -> None:
    """The client's id is at most 128 characters (frames), but the prefix bears more."""
    work = Work(Kind.MESSAGE, DataType.JSON, orjson.dumps("x"), trace="t" * 65535, id="i" * 65535)
    assert envelope.decode_work(envelope.encode_work(work)) == work
