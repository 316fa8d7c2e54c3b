"""Our own frames, taken apart again for servers that make frames themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead_edge.asgi import messages
from fairlead_edge.room import websocket_frame

SIZES = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000])


def test_nothing_holds_no_message() -> None:
    assert list(messages(b"")) == []


def test_literal_frames() -> None:
    """RFC 6455, 5.7: an unmasked text message, and a binary one of 256 bytes."""
    frames = bytes([0x81, 0x05]) + b"Hello" + bytes([0x82, 0x7E, 0x01, 0x00]) + bytes(256)
    assert list(messages(frames)) == [(True, b"Hello"), (False, bytes(256))]


@given(st.lists(st.tuples(st.booleans(), SIZES), max_size=5))
def test_what_was_joined_comes_apart(made: list[tuple[bool, int]]) -> None:
    joined = b"".join(websocket_frame(text, b"x" * size) for text, size in made)
    assert list(messages(joined)) == [(text, b"x" * size) for text, size in made]
