from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.protocol import cursor
from fairlead.protocol.cursor import Position
from fairlead.protocol.envelope import DataType
from fairlead.protocol.lease import Fences
from fairlead.protocol.manifest import History
from fairlead.protocol.problems import Close
from fairlead_edge import room as room_module
from fairlead_edge.outgoing import Batch
from fairlead_edge.ring import Budget
from fairlead_edge.room import (
    DIALECTS,
    RAW,
    SSE_JSON,
    SSE_TEXT,
    V1,
    WRITE,
    Room,
    RoomMessage,
    data_type,
    encode,
    milliseconds,
    sse_item,
    websocket_frame,
)
from fairlead_edge.tally import TopicTally
from fairlead_edge.watched import Watch

SUBJECT = "fl.shop.log.chat.blue"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Ear:
    """A member that keeps what it is sent."""

    def __init__(self, id: str, dialect: str = RAW, slow: bool = False) -> None:
        self.id = id
        self.dialect = dialect
        self.slow = slow
        self.writes: list[bytes] = []

    def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
        self.writes.append(data)
        return self.slow

    def close(self, code: Close, reason: str) -> None:
        raise AssertionError("a room closes nobody")


def new_room(*members: Ear, position: Position | None = None) -> Room:
    room = Room(SUBJECT, "chat", "chat", "blue", History(), Budget(), "FL_chat", TopicTally())
    room.stands(position)
    for member in members:
        room.join(member)
    return room


def stored(sequence: int, **more: str) -> dict[str, str]:
    """The headers of a message that came through the room's stream."""
    return {
        "Nats-Stream": "FL_shop_chat",
        "Nats-Sequence": str(sequence),
        "Nats-Time-Stamp": "2026-01-02T03:04:05.123456789Z",
        **more,
    }


STORED_AT = 1_767_323_045_123
"""The time of `stored`, in ms since the epoch."""

# How a room's bytes are read


@pytest.mark.parametrize(
    ("declared", "data", "read"),
    [
        ("", b"hello", DataType.TEXT),
        ("", b"", DataType.TEXT),
        ("", b"\xff", DataType.BINARY),
        ("", b'{"a":1}', DataType.TEXT),
        ("t", b"hello", DataType.TEXT),
        ("t", b"\xff", DataType.BINARY),  # wrongly declared
        ("b", b"hello", DataType.BINARY),
        ("b", b"\xff", DataType.BINARY),
        ("j", b'{"a":1}', DataType.JSON),
        ("j", b"{", DataType.TEXT),
        ("j", b"", DataType.TEXT),
        ("j", b"NaN", DataType.TEXT),
        ("j", b"\xff", DataType.BINARY),
        ("j", b'"\xff"', DataType.BINARY),
        ("x", b"hello", DataType.TEXT),
        ("json", b"{}", DataType.TEXT),
    ],
)
def test_what_is_not_as_declared_is_text_if_it_is_utf_8_else_binary(
    declared: str, data: bytes, read: DataType
) -> None:
    assert data_type(declared, data) is read


@given(
    st.sampled_from(["", "t", "b", "j", "x"]),
    st.one_of(st.binary(), st.text().map(str.encode)),
)
def test_whatever_is_published_a_v1_frame_is_valid_json(declared: str, data: bytes) -> None:
    message = RoomMessage(data_type(declared, data), data)
    frame = encode(message, V1)
    body = frame[2 if len(frame) < 128 else 4 :]
    assert orjson.loads(body)["type"] == "message"


# Frames and events, as literal bytes


@pytest.mark.parametrize(
    ("text", "data", "frame"),
    [
        (True, b"hi", b"\x81\x02hi"),
        (False, b"\xff", b"\x82\x01\xff"),
        (True, b"", b"\x81\x00"),
        (True, b"x" * 125, b"\x81\x7d" + b"x" * 125),
        (True, b"x" * 126, b"\x81\x7e\x00\x7e" + b"x" * 126),
        (False, bytes(65536), b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536)),
    ],
)
def test_a_servers_websocket_frame_is_whole_and_unmasked(
    text: bool, data: bytes, frame: bytes
) -> None:
    assert websocket_frame(text, data) == frame


TEXT = RoomMessage(DataType.TEXT, b"a\nb", id="AXB", sender="e1-7", trace=TRACE)
BINARY = RoomMessage(DataType.BINARY, b"\x00\xff")
JSON = RoomMessage(DataType.JSON, b'{"a":1}', id="AXB")


@pytest.mark.parametrize(
    ("message", "dialect", "wire"),
    [
        (TEXT, RAW, b"\x81\x03a\nb"),
        (BINARY, RAW, b"\x82\x02\x00\xff"),
        (JSON, RAW, b'\x81\x07{"a":1}'),
        (
            TEXT,
            V1,
            b'\x81\x7b{"type":"message","id":"AXB","data":"a\\nb","from":"e1-7",'
            b'"trace":"%b"}' % TRACE.encode(),
        ),
        (
            BINARY,
            V1,
            b'\x81\x3e{"type":"message","id":null,"data":"AP8=","encoding":"base64"}',
        ),
        (JSON, V1, b'\x81\x2c{"type":"message","id":"AXB","data":{"a":1}}'),
        (TEXT, SSE_JSON, b'id: AXB\ndata: "a\\nb"\n\n'),
        (BINARY, SSE_JSON, b"event: base64\ndata: AP8=\n\n"),
        (JSON, SSE_JSON, b'id: AXB\ndata: {"a":1}\n\n'),
        (TEXT, SSE_TEXT, b"id: AXB\ndata: a\ndata: b\n\n"),
        (BINARY, SSE_TEXT, b"event: base64\ndata: AP8=\n\n"),
        (JSON, SSE_TEXT, b'id: AXB\ndata: {"a":1}\n\n'),
    ],
)
def test_each_kind_of_message_in_each_dialect(
    message: RoomMessage, dialect: str, wire: bytes
) -> None:
    assert encode(message, dialect) == wire


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", b"data: \n\n"),
        (b"a\r\nb", b"data: a\ndata: b\n\n"),
        (b"a\rb", b"data: a\ndata: b\n\n"),
        (b"a\n\nb\n", b"data: a\ndata: \ndata: b\ndata: \n\n"),
        (b"\n\nid: forged", b"data: \ndata: \ndata: id: forged\n\n"),
        ("a\u2028b".encode(), "data: a\u2028b\n\n".encode()),
    ],
)
def test_a_text_is_split_into_data_lines(text: bytes, lines: bytes) -> None:
    assert sse_item(DataType.TEXT, text, text=True) == lines


def test_json_from_outside_that_is_spread_over_lines_stays_one_event() -> None:
    """`nats pub -H Fl-Type:j` may send it so; a line break in JSON is white space."""
    data = b'{"a": 1,\r\n\n"b": 2}'
    assert data_type("j", data) is DataType.JSON
    wire = sse_item(DataType.JSON, data, text=False)
    assert wire == b'data: {"a": 1,\ndata: \ndata: "b": 2}\n\n'
    assert orjson.loads(wire.replace(b"data: ", b"")) == {"a": 1, "b": 2}


def test_the_fields_of_an_event() -> None:
    assert sse_item(DataType.JSON, b"{}", text=False, id="E", event="end") == (
        b"event: end\nid: E\ndata: {}\n\n"
    )
    assert sse_item(DataType.BINARY, b"\xff", text=False, event="blob") == (
        b"event: blob\ndata: /w==\n\n"
    )


@given(
    st.binary(),
    st.sampled_from(["", "t", "b", "j"]),
    st.booleans(),
)
def test_whatever_is_published_an_event_is_one_event_of_known_fields(
    data: bytes, declared: str, text: bool
) -> None:
    wire = sse_item(data_type(declared, data), data, text=text, id="C")
    assert wire.endswith(b"\n\n")
    for line in wire[:-2].split(b"\n"):
        assert line.startswith((b"data: ", b"id: C", b"event: base64"))
        assert b"\r" not in line


# Members


def test_a_room_counts_its_members_of_each_dialect() -> None:
    raw, other, v1 = Ear("a"), Ear("b"), Ear("c", V1)
    room = new_room(raw, other, v1)
    assert room.size == 3
    assert (room.subject, room.template, room.topic, room.channel) == (
        *(SUBJECT, "chat", "chat", "blue"),
    )
    room.leave(raw)
    room.leave(raw)  # a connection may end twice over
    assert room.size == 2
    room.leave(other)
    room.leave(other)
    room.leave(v1)
    assert room.size == 0
    assert room.members == {}


def test_who_joined_twice_is_one_member() -> None:
    member = Ear("a")
    room = new_room(member, member)
    assert room.size == 1


def test_each_member_gets_each_message_in_its_dialect() -> None:
    members = [Ear(f"e1-{n}", dialect) for n, dialect in enumerate(DIALECTS)]
    room = new_room(*members)
    room.received({}, b"hi")
    assert room.flush() == 4
    assert [member.writes for member in members] == [
        [b"\x81\x02hi"],
        [b'\x81\x28{"type":"message","id":null,"data":"hi"}'],
        [b'data: "hi"\n\n'],
        [b"data: hi\n\n"],
    ]


def test_the_messages_of_one_turn_are_one_write_in_their_order() -> None:
    member = Ear("a")
    room = new_room(member)
    for data in (b"1", b"2", b"3"):
        room.received({}, data)
    assert room.flush() == 1
    assert member.writes == [b"\x81\x011\x81\x012\x81\x013"]


def test_a_flush_with_nothing_pending_writes_nothing() -> None:
    member = Ear("a")
    room = new_room(member)
    assert room.flush() == 0
    room.received({}, b"1")
    room.flush()
    assert room.flush() == 0
    assert member.writes == [b"\x81\x011"]


def test_a_message_is_encoded_once_for_all_members_of_a_dialect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And all of them get the same bytes object."""
    encoded: list[tuple[bytes, str]] = []

    def counting(message: RoomMessage, dialect: str) -> bytes:
        encoded.append((message.data, dialect))
        return encode(message, dialect)

    monkeypatch.setattr(room_module, "encode", counting)
    members = [Ear(f"{dialect}-{n}", dialect) for dialect in (RAW, V1) for n in range(100)]
    room = new_room(*members)
    room.received({}, b"1")
    room.received({"Fl-Exclude": "raw-7"}, b"2")
    assert room.flush() == 200
    assert encoded == list(itertools.product((b"1", b"2"), (RAW,))) + list(
        itertools.product((b"1", b"2"), (V1,))
    )
    assert len({id(member.writes[0]) for member in members}) == 3  # raw, v1, and who is excluded


def test_an_excluded_member_gets_all_but_that_message() -> None:
    out, other = Ear("e1-1"), Ear("e1-2")
    room = new_room(out, other)
    room.received({}, b"1")
    room.received({"Fl-Exclude": "e1-1"}, b"2")
    room.received({"Fl-Exclude": "elsewhere"}, b"3")
    assert room.flush() == 2
    assert out.writes == [b"\x81\x011\x81\x013"]
    assert other.writes == [b"\x81\x011\x81\x012\x81\x013"]


def test_a_member_that_is_excluded_from_all_is_not_written_to() -> None:
    out, other = Ear("e1-1"), Ear("e1-2")
    room = new_room(out, other)
    room.received({"Fl-Exclude": "e1-1"}, b"2")
    assert room.flush() == 1
    assert out.writes == []
    assert len(other.writes) == 1


def test_so_much_is_written_at_once_that_a_transport_can_say_it_is_enough() -> None:
    """Messages of one turn go out together, about 64 KiB at a time; one that is larger goes alone."""
    ear = Ear("a")
    room = new_room(ear)
    sizes = [30_000, 30_000, 30_000, WRITE, 10, WRITE + 1, 10]
    for size in sizes:
        room.received({}, b"x" * size)
    assert room.flush() == 1
    heads = [len(websocket_frame(True, b"x" * size)) for size in sizes]
    assert [len(write) for write in ear.writes] == [
        heads[0] + heads[1], heads[2], heads[3], heads[4], heads[5], heads[6],
    ]  # fmt: skip


def test_a_member_may_leave_while_it_is_written_to() -> None:
    room = new_room()

    class Leaver(Ear):
        def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
            room.leave(self)
            return super().room_bytes(data, batch)

    leaver, other = Leaver("a"), Ear("b")
    room.join(leaver)
    room.join(other)
    room.received({}, b"1")
    assert room.flush() == 2
    assert room.size == 1


def test_who_joins_gets_nothing_from_before() -> None:
    """So what is pending is written first, or the join is refused."""
    room = new_room()
    room.received({}, b"before")
    late = Ear("a")
    with pytest.raises(AssertionError, match="flushed before a member joins"):
        room.join(late)
    room.flush()
    room.join(late)
    room.received({}, b"after")
    room.flush()
    assert late.writes == [b"\x81\x05after"]


def test_the_headers_say_who_sent_it_and_how_it_is_read() -> None:
    room = new_room()
    room.received({"Fl-Type": "j", "Fl-From": "e1-7", "Fl-Exclude": "e1-8"}, b"[1]", TRACE)
    room.received({}, b"\xff")
    assert room.pending == [
        RoomMessage(DataType.JSON, b"[1]", None, "e1-7", "e1-8", TRACE),
        RoomMessage(DataType.BINARY, b"\xff"),
    ]


# Positions and cursors


def ids(room: Room) -> list[str | None]:
    return [message.id for message in room.pending]


def test_a_message_that_was_stored_has_a_cursor_and_moves_the_position() -> None:
    room = new_room(position=Position(created=5, sequence=40, time=1))
    room.received(stored(42), b"x")
    here = Position(created=5, sequence=42, time=STORED_AT)
    assert room.position == here
    assert ids(room) == [cursor.encode(here, SUBJECT)]
    assert room.cursor == cursor.encode(here, SUBJECT)


@pytest.mark.parametrize("sequence", [41, 42])
def test_the_position_never_moves_back(sequence: int) -> None:
    room = new_room(position=Position(5, 42, 1))
    room.received(stored(sequence), b"x")
    assert room.position == Position(5, 42, 1)
    assert ids(room) == [cursor.encode(Position(5, sequence, STORED_AT), SUBJECT)]


@pytest.mark.parametrize(
    ("position", "headers"),
    [
        (None, {}),
        (None, stored(1)),  # before the position is known, a cursor would be a guess
        (Position(5, 42, 1), {"Fl-From": "e1-7"}),  # it did not come through the stream
    ],
)
def test_without_a_stream_or_a_position_a_message_has_no_cursor(
    position: Position | None, headers: Mapping[str, str]
) -> None:
    room = new_room(position=position)
    room.received(headers, b"x")
    assert ids(room) == [None]
    assert room.position == position


@pytest.mark.parametrize(
    ("dialect", "written"),
    [
        (RAW, []),
        (V1, [b'\x81"{"type":"cursor","cursor":"@"}']),
        (SSE_JSON, [b'event: cursor\nid: @\ndata: {"cursor":"@"}\n\n']),
        (SSE_TEXT, [b'event: cursor\nid: @\ndata: {"cursor":"@"}\n\n']),
    ],
)
def test_members_are_told_where_a_quiet_room_stands(dialect: str, written: list[bytes]) -> None:
    ear = Ear("a", dialect)
    room = new_room(ear, position=Position(1, 7, 9))
    room.tell_position()
    at = (room.cursor or "").encode()
    # The frame's second byte is its length.
    shown = [each.replace(at, b"@") for each in ear.writes]
    assert [each[2:] if dialect == V1 else each for each in shown] == [
        each[2:] if dialect == V1 else each for each in written
    ]


def test_a_message_of_the_stream_is_kept_for_those_who_come_back() -> None:
    room = new_room(position=Position(1, 7, 9))
    room.received(stored(9), b"x", trace=TRACE)
    [kept] = room.ring.since(7)
    assert (kept.sequence, kept.data, kept.trace) == (9, b"x", "")
    assert room.pending == [kept._replace(trace=TRACE)]


def test_what_was_heard_before_is_kept_once() -> None:
    room = new_room(position=Position(1, 7, 9))
    for sequence in (9, 9, 8):
        room.received(stored(sequence), b"x")
    assert [kept.sequence for kept in room.ring.since(7)] == [9]


@pytest.mark.parametrize("then", [None, Position(2, 3, 9)], ids=["nowhere", "in another stream"])
def test_a_room_that_loses_its_place_forgets_what_it_kept(then: Position | None) -> None:
    room = new_room(position=Position(1, 7, 9))
    room.received(stored(9), b"x")
    room.stands(then)
    assert room.ring.since(0) == []
    assert room.ring.floor == (then.sequence if then else 0)


def test_a_room_without_a_position_has_no_cursor() -> None:
    assert new_room().cursor is None


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-02T03:04:05.123456789Z", STORED_AT),
        ("2026-01-02T03:04:05.1Z", STORED_AT - 23),
        ("2026-01-02T03:04:05.12Z", STORED_AT - 3),
        ("2026-01-02T05:04:05.123+02:00", STORED_AT),
    ],
)
def test_a_timestamp_of_nats_in_milliseconds(timestamp: str, expected: int) -> None:
    """Go leaves zeros at the end of the fraction out."""
    assert milliseconds(timestamp) == expected


@given(st.integers(0, 4_102_444_800_000))
def test_every_millisecond_until_2100_is_exact(ms: int) -> None:
    then = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert milliseconds(then.isoformat()) == ms


# Runs that all members share: what a runner says after it lost the room


def fenced(fence: int, late: int = 0) -> str:
    """The header of an item that was stored so many ms too late to be shown."""
    return f"support.ticks:{fence}:{STORED_AT - late}"


def test_what_a_runner_says_too_late_has_its_place_and_is_shown_to_nobody() -> None:
    ear, v1 = Ear("a"), Ear("b", V1)
    room = new_room(ear, v1, position=Position(1, 1, 1))
    room.received(stored(2, **{"Fl-Fence": fenced(7, late=1)}), b"late")
    assert room.flush() == 0
    assert room.position == Position(1, 2, STORED_AT)
    room.received(stored(3, **{"Fl-Fence": fenced(7)}), b"in time")
    room.received(stored(4, **{"Fl-Fence": fenced(6)}), b"an earlier runner's")
    room.received(stored(5), b"anybody's")
    room.flush()
    assert ear.writes == [websocket_frame(True, b"in time") + websocket_frame(True, b"anybody's")]
    back = Ear("c")
    room_module.deliver(back, room.ring.since(1))
    assert back.writes == ear.writes, "who comes back sees the same"


def test_what_is_read_from_the_stream_is_fenced_in_its_own_order() -> None:
    """What the room heard since is no reason to hide what was said before it."""
    room = new_room(position=Position(1, 9, 1))
    room.received(stored(10, **{"Fl-Fence": fenced(8)}), b"now")
    fences = Fences()
    read = [
        room.read(stored(n, **{"Fl-Fence": header}), b"", fences)
        for n, header in enumerate([fenced(6), fenced(7), fenced(6), fenced(7, late=1)], 3)
    ]
    assert [message.hidden for message in read] == [False, False, True, True]


def test_nobody_is_written_to_for_what_is_shown_to_nobody() -> None:
    back = Ear("c", slow=True)
    hidden = RoomMessage(DataType.TEXT, b"late", hidden=True)
    assert not room_module.deliver(back, [hidden])
    assert back.writes == []


# What is sampled


class Watcher:
    """A watch, and whether it is over."""

    def __init__(self) -> None:
        self.ended = False
        self.watch = Watch(self)

    def written(self) -> None:
        pass

    def over(self) -> None:
        self.ended = True

    @property
    def counted(self) -> tuple[int, int, int, int]:
        watch = self.watch
        return watch.members, watch.slow, watch.bytes, watch.coalesced


def test_a_sampled_message_knows_its_members_its_bytes_and_its_company() -> None:
    """Each of a turn by itself: whom it left out, and that it was written with others."""
    members = [Ear("e1-1"), Ear("e1-2"), Ear("e1-3", V1, slow=True)]
    room = new_room(*members)
    first, last = Watcher(), Watcher()
    room.received({}, b"1", TRACE, first.watch)
    room.received({}, b"not sampled")
    room.received({"Fl-Exclude": "e1-2"}, b"333", TRACE, last.watch)
    assert room.flush() == 3
    alone = encode(RoomMessage(DataType.TEXT, b"1", trace=TRACE), V1)
    with_less = encode(RoomMessage(DataType.TEXT, b"333", trace=TRACE), V1)
    assert first.counted == (3, 1, 2 * len(b"\x81\x011") + len(alone), 3)
    assert last.counted == (2, 1, len(b"\x81\x03333") + len(with_less), 3)
    assert first.ended and last.ended


def test_a_message_that_nobody_is_shown_is_over_at_once() -> None:
    room = new_room()
    watcher = Watcher()
    room.received({}, b"1", TRACE, watcher.watch)
    assert room.flush() == 0
    assert watcher.ended
    assert watcher.counted == (0, 0, 0, 1)


def test_members_are_given_watches_only_where_something_is_sampled() -> None:
    given: list[Batch | None] = []

    class Noting(Ear):
        def room_bytes(self, data: bytes, batch: Batch | None = None) -> bool:
            given.append(batch)
            return False

    room = new_room(Noting("a"))
    watcher = Watcher()
    room.received({}, b"1")
    room.flush()
    room.received({}, b"2")
    room.received({}, b"3", TRACE, watcher.watch)
    room.flush()
    room.received({}, b"4")
    room.flush()
    assert [batch and batch.watches for batch in given] == [(), [None, watcher.watch], ()]


def test_the_ring_keeps_where_a_message_came_from_and_not_whom_it_was_delivered_to() -> None:
    room = new_room(position=Position(7, 8, STORED_AT))
    origin = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    room.received(stored(9, traceparent=origin), b"x", TRACE, Watcher().watch)
    (pending,), (kept,) = room.pending, room.ring.since(8)
    assert (pending.trace, kept.trace) == (TRACE, "")
    assert pending.origin == kept.origin == origin
    assert pending.watch is not None and kept.watch is None
