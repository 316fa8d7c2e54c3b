"""A client's frames, as bytes; the server's parser reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from fairlead.client import frames
from fairlead.client.frames import MAX_MESSAGE, encoded
from fairlead.errors import TooLarge
from fairlead.protocol import frames as server
from fairlead.protocol.envelope import DataType


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("data", "members"),
    [
        ("tëxt", '"data":"tëxt"'),
        ({"a": [1, None]}, '"data":{"a":[1,null]}'),
        (Point(3), '"data":{"x":3}'),
        (None, '"data":null'),
        (b"\x00\xff", '"data":"AP8=","encoding":"base64"'),
        (bytearray(b"\x00\xff"), '"data":"AP8=","encoding":"base64"'),
    ],
)
def test_data_of_every_kind_as_it_stands_in_a_frame(data: Any, members: str) -> None:
    assert encoded(data).decode() == members


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be sent"):
        encoded(object())


def test_sizes_are_counted_in_bytes() -> None:
    encoded("x" * MAX_MESSAGE)
    encoded("é" * (MAX_MESSAGE // 2))
    encoded(b"x" * MAX_MESSAGE)
    for large in ("é" * (MAX_MESSAGE // 2) + "x", b"x" * (MAX_MESSAGE + 1)):
        with pytest.raises(TooLarge, match="1048577 bytes; at most 1048576"):
            encoded(large)


def test_ids_are_128_random_bits() -> None:
    assert len(bytes.fromhex(frames.random_id())) == 16
    assert frames.random_id() != frames.random_id()


def test_the_server_reads_them() -> None:
    message = frames.message(3, 'my "id"', encoded(b"\x00") + b',"traceparent":"00"')
    assert server.parse(message) == server.ClientMessage(
        3, DataType.BINARY, b"\x00", 'my "id"', "00"
    )
    assert server.parse(frames.cancel(ref=3)) == server.Cancel(3, None)
    assert server.parse(frames.cancel(run="r", key=None)) == server.Cancel(None, "r")
    assert server.parse(frames.refresh("t")) == server.Refresh("t")
