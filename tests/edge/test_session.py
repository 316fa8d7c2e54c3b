from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.protocol.envelope import DataType
from fairlead.protocol.frames import Cancel, ClientMessage
from fairlead.protocol.problems import MAX_MESSAGE, Close
from fairlead_edge.session import MAX_REASON, Session, Violation


def say(session: Session, **members: Any) -> ClientMessage | Cancel | bytes:
    return session.frame_received(True, orjson.dumps(members))


def message(session: Session, ref: int, data: Any = "x") -> ClientMessage | Cancel | bytes:
    return say(session, type="message", ref=ref, data=data)


def refused(answer: object) -> dict[str, Any]:
    """The error frame that `answer` is."""
    assert isinstance(answer, bytes)
    frame: dict[str, Any] = orjson.loads(answer)
    assert frame["type"] == "error"
    return frame


def test_a_message_is_unacknowledged_until_its_answer() -> None:
    session = Session()
    assert message(session, 1) == ClientMessage(1, DataType.TEXT, b"x")
    assert message(session, 5) == ClientMessage(5, DataType.TEXT, b"x")
    assert session.unacknowledged == {1, 5}


def test_16_messages_may_be_unacknowledged_and_the_17th_closes_with_4501() -> None:
    session = Session()
    for ref in range(1, 17):
        assert isinstance(message(session, ref), ClientMessage)
    with pytest.raises(Violation, match="more than 16 messages are unacknowledged") as violation:
        message(session, 17)
    assert violation.value.code == 4501


def test_an_answer_makes_room_in_the_window() -> None:
    session = Session()
    for ref in range(1, 1000):
        message(session, ref)
        if ref >= 16:
            session.unacknowledged.remove(ref - 15)
    assert len(session.unacknowledged) == 15


@pytest.mark.parametrize("ref", [4, 5])
def test_a_ref_must_grow(ref: int) -> None:
    session = Session()
    message(session, 5)
    assert message(session, ref) == (
        b'{"type":"error","ref":%d,"error":{"type":"about:blank","title":"Bad Request",'
        b'"status":400,"detail":"ref %d does not grow: 5 was there"}}' % (ref, ref)
    )
    assert session.unacknowledged == {5}
    assert isinstance(message(session, 6), ClientMessage)


def test_a_refused_message_does_not_use_its_ref_up() -> None:
    session = Session()
    assert refused(say(session, type="message", ref=7))["ref"] == 7
    assert isinstance(message(session, 7), ClientMessage)


def test_a_malformed_frame_is_answered_and_the_connection_stays() -> None:
    session = Session()
    frame = refused(session.frame_received(True, b"{"))
    assert "ref" not in frame
    assert frame["error"]["status"] == 400
    assert isinstance(message(session, 1), ClientMessage)


def test_ten_malformed_frames_in_a_row_close_with_1008() -> None:
    session = Session()
    for _ in range(9):
        refused(session.frame_received(True, b"[]"))
    with pytest.raises(Violation) as violation:
        session.frame_received(True, b"[]")
    assert violation.value.code == 1008
    assert violation.value.reason == "10 malformed frames in a row; the last: not a JSON object"


@pytest.mark.parametrize(
    "good",
    [
        {"type": "message", "ref": 2, "data": 1},
        {"type": "cancel", "ref": 1},
        {"type": "cancel", "run": "unknown"},
        {"type": "refresh", "token": "t"},
    ],
)
def test_after_nine_malformed_frames_a_good_one_starts_the_count_anew(good: dict[str, Any]) -> None:
    """Good means well-formed: that a run is unknown is no fault of the frame."""
    session = Session()
    message(session, 1)
    for _ in range(3):
        for _ in range(9):
            refused(message(session, 1))
        session.frame_received(True, orjson.dumps(good))
        good = good | ({"ref": good["ref"] + 1} if "data" in good else {})


@given(st.text(min_size=100))
def test_the_reason_of_a_close_fits_its_frame(text: str) -> None:
    """RFC 6455, 5.5; the text of an error may hold what the client sent."""
    session = Session()
    frame = orjson.dumps({"type": "\U0001f600" * 40 + text})
    with pytest.raises(Violation) as violation:
        for _ in range(10):
            session.frame_received(True, frame)
    assert len(violation.value.reason.encode()) <= MAX_REASON == 123


def test_a_reason_is_cut_between_characters() -> None:
    assert Violation(Close.POLICY, "é" * 100).reason == "é" * 61


def test_a_binary_frame_closes_with_1003() -> None:
    with pytest.raises(Violation, match="takes text frames; send base64") as violation:
        Session().frame_received(False, b'{"type":"message","ref":1,"data":1}')
    assert violation.value.code == 1003


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (DataType.TEXT, lambda size: {"data": "x" * size}),
        (
            DataType.BINARY,
            lambda size: {"data": base64.b64encode(bytes(size)).decode(), "encoding": "base64"},
        ),
        (DataType.JSON, lambda size: {"data": ["x" * (size - 4)]}),
        (DataType.TEXT, lambda size: {"data": "é" * (size // 2) + "x" * (size % 2)}),
    ],
)
def test_exactly_1_mib_of_decoded_data_passes_and_a_byte_more_closes_with_1009(
    kind: DataType, members: Any
) -> None:
    passed = say(Session(), type="message", ref=1, **members(MAX_MESSAGE))
    assert isinstance(passed, ClientMessage)
    assert (passed.type, len(passed.data)) == (kind, 1024 * 1024)
    with pytest.raises(Violation, match="1048577 bytes of data; at most 1048576") as violation:
        say(Session(), type="message", ref=1, **members(MAX_MESSAGE + 1))
    assert violation.value.code == 1009


def test_a_cancel_names_a_message() -> None:
    assert say(Session(), type="cancel", ref=3) == Cancel(3, None)


def test_a_cancel_may_name_a_run_that_only_the_connection_knows() -> None:
    assert say(Session(), type="cancel", run="e1-7-3") == Cancel(None, "e1-7-3")


def test_a_refresh_is_answered_by_an_error_that_does_not_repeat_the_token() -> None:
    answer = say(Session(), type="refresh", token="secret")
    assert refused(answer)["error"]["status"] == 400
    assert b"secret" not in (answer if isinstance(answer, bytes) else b"secret")


@given(st.booleans(), st.lists(st.binary(), max_size=12))
def test_no_bytes_do_anything_but_what_is_written_here(text: bool, sent: list[bytes]) -> None:
    session = Session()
    try:
        for data in sent:
            assert isinstance(session.frame_received(text, data), ClientMessage | Cancel | bytes)
    except Violation as violation:
        assert violation.code in (Close.UNSUPPORTED, Close.POLICY)
