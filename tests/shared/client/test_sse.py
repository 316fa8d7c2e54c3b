"""Events out of bytes."""

from __future__ import annotations

from fairlead.client.sse import EventParser, ServerEvent

STREAM = (
    b": note\r\n\r\nid: c1\r\ndata: one\r\ndata: two\r\n\r\nevent: named\ndata:{}\n\nretry: 250\n\n"
    b"id: lonely\n\rdata: \xc3\xa9\r\r"
)


def test_a_stream_in_any_pieces_is_the_same_events() -> None:
    for size in range(1, len(STREAM) + 1):
        parser = EventParser()
        pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
        fed = [each for piece in pieces for each in (piece, b"")]
        events = [event for piece in fed for event in parser.feed(piece)]
        assert events == [
            ServerEvent("message", "one\ntwo", "c1"),
            ServerEvent("named", "{}"),
            ServerEvent("message", "é"),
        ], f"in pieces of {size}"
        assert parser.retry == 0.25


def test_what_the_end_of_the_stream_cut_off_is_no_event() -> None:
    assert [*EventParser().feed(b"data: half")] == []


def test_a_separator_of_unicode_is_part_of_the_text() -> None:
    [event] = EventParser().feed("data: a\u2028b\x0bc\n\n".encode())
    assert event.data == "a\u2028b\x0bc"
