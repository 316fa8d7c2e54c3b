from __future__ import annotations

import base64
import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import BadFrame
from fairlead.protocol import frames
from fairlead.protocol.envelope import DataType
from fairlead.protocol.frames import Cancel, ClientMessage, Refresh

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_the_protocol_in_numbers() -> None:
    assert frames.SUBPROTOCOL == "fairlead.v1"
    assert (frames.WINDOW, frames.MALFORMED_LIMIT) == (16, 10)


def test_a_frame_may_be_as_long_as_a_message_of_1_mib_can_make_it() -> None:
    """JSON may write each byte as six."""
    assert len(b'"%b"' % (rb"\u0000" * 1024 * 1024)) < frames.MAX_FRAME


# Frames that we send, as literal bytes


@pytest.mark.parametrize(
    ("sent", "wire"),
    [
        (
            frames.welcome("e1-7", None, None, 16),
            b'{"type":"welcome","connection":"e1-7","cursor":null,"recovered":null,"window":16}',
        ),
        (
            frames.welcome("e1-7", "AXB", False, 16),
            b'{"type":"welcome","connection":"e1-7","cursor":"AXB","recovered":false,"window":16}',
        ),
        (
            frames.message(DataType.TEXT, 'a "b" \u00e9'.encode()),
            b'{"type":"message","id":null,"data":"a \\"b\\" \xc3\xa9"}',
        ),
        (
            frames.message(DataType.JSON, b'{"n": 1.0}', id="AXB"),
            b'{"type":"message","id":"AXB","data":{"n": 1.0}}',
        ),
        (
            frames.message(DataType.BINARY, b"\x00\xff", sender='e"1'),
            b'{"type":"message","id":null,"data":"AP8=","from":"e\\"1","encoding":"base64"}',
        ),
        (
            frames.message(
                DataType.BINARY, b"", id="C", sender="e1-7", run="e1-7-3", ref=3, trace=TRACE
            ),
            b'{"type":"message","id":"C","data":"","from":"e1-7","run":"e1-7-3","ref":3,'
            b'"encoding":"base64","trace":"%b"}' % TRACE.encode(),
        ),
        (frames.ack(3), b'{"type":"ack","ref":3}'),
        (frames.ack(3, TRACE), b'{"type":"ack","ref":3,"trace":"%b"}' % TRACE.encode()),
        (frames.error({"status": 400}), b'{"type":"error","error":{"status":400}}'),
        (frames.error({"status": 400}, 3), b'{"type":"error","ref":3,"error":{"status":400}}'),
        (frames.waiting(3), b'{"type":"waiting","ref":3}'),
        (
            frames.restart("e1-7-3", 2, 3),
            b'{"type":"restart","run":"e1-7-3","attempt":2,"ref":3}',
        ),
        (
            frames.restart("e1-7-1", 2, None),
            b'{"type":"restart","run":"e1-7-1","attempt":2}',
        ),
        (
            frames.end("e1-7-1"),
            b'{"type":"end","run":"e1-7-1"}',
        ),
        (frames.cursor("AXB6"), b'{"type":"cursor","cursor":"AXB6"}'),
        (frames.reconnect(1500), b'{"type":"reconnect","within":1500}'),
    ],
)
def test_each_frame_that_we_send(sent: bytes, wire: bytes) -> None:
    assert sent == wire


@given(
    st.text(),
    st.text(),
    st.none() | st.integers(1, 2**53),
)
def test_a_text_arrives_as_it_was_whoever_sent_it(text: str, sender: str, ref: int | None) -> None:
    frame = orjson.loads(frames.message(DataType.TEXT, text.encode(), sender=sender, ref=ref))
    assert frame["data"] == text
    assert frame.get("from", "") == sender
    assert frame.get("ref") == ref


@given(st.binary())
def test_binary_arrives_in_base64(data: bytes) -> None:
    frame = orjson.loads(frames.message(DataType.BINARY, data))
    assert frame["encoding"] == "base64"
    assert base64.b64decode(frame["data"]) == data


# Frames of clients


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (
            '{"type":"message","ref":1,"data":"h\u00e9"}',
            ClientMessage(1, DataType.TEXT, b"h\xc3\xa9"),
        ),
        ('{"type":"message","ref":2,"data":""}', ClientMessage(2, DataType.TEXT, b"")),
        ('{"type":"message","ref":3,"data":null}', ClientMessage(3, DataType.JSON, b"null")),
        (
            '{"type":"message","ref":4,"data":{"a": [1, true, 1.5]}}',
            ClientMessage(4, DataType.JSON, b'{"a":[1,true,1.5]}'),
        ),
        (
            '{"type":"message","ref":5,"data":"AP8=","encoding":"base64"}',
            ClientMessage(5, DataType.BINARY, b"\x00\xff"),
        ),
        (
            '{"type":"message","ref":6,"data":"","encoding":"base64"}',
            ClientMessage(6, DataType.BINARY, b""),
        ),
        (
            '{"type":"message","ref":7,"data":"AP8=","encoding":null}',
            ClientMessage(7, DataType.TEXT, b"AP8="),
        ),
        (
            f'{{"type":"message","ref":8,"data":0,"id":"u1","traceparent":"{TRACE}","more":1}}',
            ClientMessage(8, DataType.JSON, b"0", "u1", TRACE),
        ),
        (
            '{"type":"message","ref":9,"data":"","id":"%s"}' % ("\u00e9" * 128),
            ClientMessage(9, DataType.TEXT, b"", "\u00e9" * 128),
        ),
        ('{"type":"cancel","ref":3}', Cancel(3, None)),
        ('{"type":"cancel","run":"e1-7-3"}', Cancel(None, "e1-7-3")),
        ('{"type":"cancel","run":"e1-7-3","key":"k"}', Cancel(None, "e1-7-3", "k")),
        ('{"type":"cancel","ref":3,"run":"e1-7-3"}', Cancel(3, None)),
        ('{"type":"refresh","token":"t"}', Refresh("t")),
    ],
)
def test_each_frame_of_a_client(text: str, frame: object) -> None:
    assert frames.parse(text) == frame
    assert frames.parse(text.encode()) == frame


DEEP = "[" * 255 + "]" * 255
DEEPER = "[" * 1020 + "]" * 1020

UNREADABLE = ["0", "-1", "true", "1.5", '"1"', "null", "[1]", "1.0", "18446744073709551616"]
"""What is no positive integer of 64 bits."""


@pytest.mark.parametrize(
    ("text", "ref", "detail"),
    [
        ("", None, "not JSON"),
        ("hello", None, "not JSON"),
        ('{"type":"message","ref":1,"data":1', None, "not JSON"),
        ('{"type":"message","ref":1,"data":NaN}', None, "not JSON"),
        ('{"type":"message","ref":1,"data":"\\ud800"}', None, "not JSON"),
        ("[]", None, "not a JSON object"),
        ('"message"', None, "not a JSON object"),
        ("null", None, "not a JSON object"),
        ("{}", None, "type 'None' is unknown; expected message, cancel or refresh"),
        ('{"type":"subscribe","ref":1}', 1, "type 'subscribe' is unknown"),
        ('{"type":"Message","ref":1,"data":1}', 1, "type 'Message' is unknown"),
        ('{"type":1,"ref":1}', 1, "type '1' is unknown"),
        ('{"type":["message"],"ref":1}', 1, "type 'list' is unknown"),
        ('{"type":"welcome"}', None, "type 'welcome' is unknown"),
        ('{"type":"message","ref":1}', 1, "message needs data"),
        ('{"type":"message","data":1}', None, "message needs a ref: a positive integer"),
        ('{"type":"message","ref":1,"data":1,"id":5}', 1, "id must be a string"),
        ('{"type":"message","ref":1,"data":1,"id":null}', 1, "id must be a string"),
        (
            '{"type":"message","ref":1,"data":1,"id":"%s"}' % ("x" * 129),
            1,
            "id must be a string of at most 128 characters",
        ),
        ('{"type":"message","ref":1,"data":1,"traceparent":5}', 1, "traceparent must be a string"),
        ('{"type":"message","ref":1,"data":"","encoding":"hex"}', 1, "encoding 'hex' is unknown"),
        ('{"type":"message","ref":1,"data":"","encoding":1}', 1, "encoding '1' is unknown"),
        ('{"type":"message","ref":1,"data":"","encoding":{}}', 1, "encoding 'dict' is unknown"),
        ('{"type":"message","ref":1,"data":1,"encoding":"base64"}', 1, "must be a string"),
        ('{"type":"message","ref":1,"data":"A","encoding":"base64"}', 1, "data is not base64"),
        ('{"type":"message","ref":1,"data":"AP8","encoding":"base64"}', 1, "data is not base64"),
        ('{"type":"message","ref":1,"data":"A_8=","encoding":"base64"}', 1, "data is not base64"),
        ('{"type":"message","ref":1,"data":"AP8=\\n","encoding":"base64"}', 1, "is not base64"),
        ('{"type":"message","ref":1,"data":"\u00e9","encoding":"base64"}', 1, "is not base64"),
        (f'{{"type":"message","ref":1,"data":{DEEP}}}', 1, "data cannot be passed on"),
        (f'{{"type":{DEEPER},"ref":1}}', 1, "type 'list' is unknown"),
        (f'{{"type":"message","ref":1,"data":"","encoding":{DEEPER}}}', 1, "encoding 'list'"),
        ('{"type":"cancel"}', None, "cancel needs a ref"),
        ('{"type":"cancel","run":5}', None, "cancel needs a ref"),
        ('{"type":"refresh","ref":1}', 1, "refresh needs a token"),
        ('{"type":"refresh","token":5}', None, "refresh needs a token"),
        *(
            (f'{{"type":"message","ref":{ref},"data":1}}', None, "message needs a ref")
            for ref in UNREADABLE
        ),
        *((f'{{"type":"cancel","ref":{ref}}}', None, "cancel needs a ref") for ref in UNREADABLE),
    ],
)
def test_a_malformed_frame_is_refused_with_its_ref_where_that_is_readable(
    text: str, ref: int | None, detail: str
) -> None:
    with pytest.raises(BadFrame) as refused:
        frames.parse(text)
    assert refused.value.ref == ref
    assert refused.value.status == 400
    assert detail in str(refused.value)


def test_invalid_utf_8_is_not_json() -> None:
    with pytest.raises(BadFrame, match="not JSON"):
        frames.parse(b'{"type":"message","ref":1,"data":"\xff"}')


def test_a_refusal_quotes_no_more_than_40_characters() -> None:
    with pytest.raises(BadFrame) as refused:
        frames.parse('{"type":"%s"}' % ("x" * 5000))
    assert "x" * 40 in str(refused.value)
    assert "x" * 41 not in str(refused.value)


@given(JSON)
def test_data_round_trip(value: Any) -> None:
    frame = frames.parse(orjson.dumps({"type": "message", "ref": 1, "data": value}))
    assert isinstance(frame, ClientMessage)
    assert (frame.type is DataType.TEXT) == isinstance(value, str)
    back = orjson.loads(frames.message(frame.type, frame.data))
    assert back["data"] == value


@given(st.binary())
def test_base64_round_trip(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    frame = frames.parse(
        orjson.dumps({"type": "message", "ref": 1, "data": encoded, "encoding": "base64"})
    )
    assert frame == ClientMessage(1, DataType.BINARY, data)


@given(
    st.one_of(
        st.binary(),
        st.dictionaries(
            st.sampled_from(["type", "ref", "data", "id", "encoding", "run", "token"]),
            st.one_of(JSON, st.sampled_from(["message", "cancel", "refresh", "base64", 1])),
        ).map(orjson.dumps),
    )
)
def test_no_bytes_are_anything_but_a_frame_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        frames.parse(data)


# User data as JSON


@pytest.mark.parametrize(
    ("data_type", "data", "value"),
    [
        (DataType.JSON, b'{"a": 1}', (b'{"a": 1}', False)),
        (DataType.TEXT, b'{"a": 1}', (b'"{\\"a\\": 1}"', False)),
        (DataType.BINARY, b"\xff", (b'"/w=="', True)),
    ],
)
def test_user_data_as_a_json_value(
    data_type: DataType, data: bytes, value: tuple[bytes, bool]
) -> None:
    assert frames.json_value(data_type, data) == value
