from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from fairlead import values
from fairlead.protocol.envelope import DataType


class Order(BaseModel):
    id: int
    when: datetime.date
    price: decimal.Decimal = decimal.Decimal("1.50")
    note: str = Field(default="", exclude=True)


@dataclasses.dataclass
class Point:
    x: int
    order: Order | None = None


ORDER = Order(id=1, when=datetime.date(2026, 1, 2), note="internal")


@pytest.mark.parametrize(
    ("value", "data_type", "data"),
    [
        ("h\u00e9", DataType.TEXT, b"h\xc3\xa9"),
        ("", DataType.TEXT, b""),
        ('{"a":1}', DataType.TEXT, b'{"a":1}'),
        (b"\xff", DataType.BINARY, b"\xff"),
        (bytearray(b"ab"), DataType.BINARY, b"ab"),
        (memoryview(b"abcd")[::2], DataType.BINARY, b"ac"),
        ({"a": [1, 2.5, None, True]}, DataType.JSON, b'{"a":[1,2.5,null,true]}'),
        (5, DataType.JSON, b"5"),
        (True, DataType.JSON, b"true"),
        (None, DataType.JSON, b"null"),
        (("a", "b"), DataType.JSON, b'["a","b"]'),
        (uuid.UUID(int=1), DataType.JSON, b'"00000000-0000-0000-0000-000000000001"'),
        (ORDER, DataType.JSON, b'{"id":1,"when":"2026-01-02","price":"1.50"}'),
        (Point(1), DataType.JSON, b'{"x":1,"order":null}'),
        (
            [Point(1, ORDER)],
            DataType.JSON,
            b'[{"x":1,"order":{"id":1,"when":"2026-01-02","price":"1.50"}}]',
        ),
    ],
)
def test_str_is_text_bytes_is_binary_and_anything_else_is_json(
    value: Any, data_type: DataType, data: bytes
) -> None:
    encoded = values.encode(value)
    assert encoded == (data_type, data)
    assert type(encoded[1]) is bytes


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": object()}, {1: 2}, 2**70, ["\ud800"]])
def test_what_json_has_no_form_for_is_refused_with_advice(value: Any) -> None:
    with pytest.raises(TypeError) as refused:
        values.encode(value)
    text = str(refused.value)
    assert text.startswith(f"a {type(value).__name__} cannot be sent: ")
    assert text.endswith("; return str, bytes, a pydantic model, a dataclass or plain JSON data")


def test_a_text_that_utf_8_has_no_form_for_is_refused_likewise() -> None:
    with pytest.raises(TypeError, match="a str with half a surrogate pair cannot be sent"):
        values.encode("\ud800")


@pytest.mark.parametrize(
    ("data_type", "data", "value"),
    [
        (DataType.TEXT, b"h\xc3\xa9", "h\u00e9"),
        (DataType.BINARY, b"\xff", b"\xff"),
        (DataType.JSON, b'{"a": 1}', {"a": 1}),
    ],
)
def test_what_arrives_is_str_bytes_or_the_json_value(
    data_type: DataType, data: bytes, value: Any
) -> None:
    assert values.decode(data_type, data) == value


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.integers(-(2**53), 2**53),
        st.dictionaries(st.text(), st.lists(st.text() | st.booleans() | st.none())),
    )
)
def test_round_trip(value: Any) -> None:
    assert values.decode(*values.encode(value)) == value
