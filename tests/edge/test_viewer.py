"""What a reader of a run is shown, from each place that it may come back to."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from fairlead.protocol import cursor, envelope, runlog
from fairlead.protocol.cursor import Position, RunPlace
from fairlead.protocol.envelope import Answer, DataType
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import CANCELLED, Close, problem
from fairlead.protocol.runlog import Entry, Start
from fairlead_edge.hub import Hub
from fairlead_edge.room import Room, RoomMessage
from fairlead_edge.runs import Runs
from fairlead_edge.viewer import Viewer

ROUTE = Route("runs", "count", "Runs/count", "sse", "/runs/count", ("GET",), resume=60.0)
CREATED = 7


class Shown:
    """A stream that notes what it is to show: (what, id). Also the runs that it is told of."""

    id = "e1-1"
    route = ROUTE
    gone = False

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.taken_up: list[str] = []

    def show_item(
        self, data_type: DataType, data: bytes, meta: dict[str, Any] | None, id: str, sequence: int
    ) -> int:
        self.events.append((data.decode(), id))
        return 0

    def show_event(self, name: str, data: Any, id: str) -> None:
        self.events.append((f"{name} {data.get('attempt', '')}".strip(), id))

    def show_end(self, failure: dict[str, Any] | None) -> None:
        self.events.append(("end" if failure is None else f"error {failure['status']}", ""))

    def close(self, code: Close, reason: str) -> None:
        raise AssertionError("nothing is lost here")

    async def drained(self) -> None:
        raise AssertionError("nothing waits here")

    def leave(self, viewer: Viewer) -> None:
        """As `Runs`."""

    def take_up(self, run: str) -> None:
        """As `Runs`."""
        self.taken_up.append(run)


def said(text: str) -> bytes:
    return envelope.item(Answer.ITEM, DataType.TEXT, text.encode())


def started(attempt: int) -> bytes:
    return Start(f"w{attempt}", 0, 0.0).encode()


def shown(log: list[Entry], place: RunPlace | None = None) -> Shown:
    """What a viewer shows of the entries that are at or after a place; their sequences are 10, 20, …."""
    stream = Shown()
    after = Position(CREATED, 0, 0)
    viewer = Viewer(
        cast(Hub, None), cast(Runs, stream), stream, cast(Room, None), "e1-1-1", "key",
        "in", after, place,
    )  # fmt: skip
    first = place.sequence if place is not None else 0
    viewer.room_messages(
        [
            RoomMessage(DataType.BINARY, runlog.encode_entry(entry), sequence=10 * entry.number)
            for entry in log
            if 10 * entry.number >= first
        ]
    )
    return stream


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Attempts one after the other, each of some entries of some items; then an end."""
    log: list[Entry] = []
    item = 0
    for attempt in range(1, draw(st.integers(1, 3)) + 1):
        log.append(Entry(len(log) + 1, attempt, [started(attempt)]))
        for size in draw(st.lists(st.integers(1, 4), max_size=4)):
            log.append(
                Entry(len(log) + 1, attempt, [said(str(item + number)) for number in range(size)])
            )
            item += size
    log.append(Entry(len(log) + 1, log[-1].attempt, [bytes([Answer.DONE])]))
    return log


@given(logs())
def test_from_each_place_exactly_the_rest_is_shown(log: list[Entry]) -> None:
    whole = shown(log).events
    assert [what for what, _ in whole if what.isdigit()] == [
        str(number) for number in range(sum(what.isdigit() for what, _ in whole))
    ]
    assert whole[-1][0] == "end"
    for number, (_, id) in enumerate(whole[:-1]):
        place = cursor.decode(id, ROUTE.endpoint)
        assert isinstance(place, RunPlace) and place.proof == runlog.proof("key")
        assert shown(log, place).events == whole[number + 1 :]


@given(logs(), st.data())
def test_a_hole_is_told_where_it_is(log: list[Entry], data: st.DataObject) -> None:
    """Oldest entries are forgotten; an attempt that begins may follow anything."""
    places = [id for _, id in shown(log).events if id]
    if not places:
        return  # it said nothing
    place = cursor.decode(data.draw(st.sampled_from(places)), ROUTE.endpoint)
    assert isinstance(place, RunPlace)
    left = log[data.draw(st.integers(0, len(log) - 1)) :]
    rest = shown([entry for entry in left if entry.number >= place.number], place).events
    # Also where only the rest is gone of an entry that was seen in part.
    missing = left[0].number > place.number and not left[0].begins
    assert [what for what, _ in rest].count("gap") == missing
    if missing:
        assert rest[0][0] == "gap", "before anything that comes after it"


def test_a_restart_is_told_to_those_who_had_seen_the_run() -> None:
    first = [Entry(1, 1, [started(1)]), Entry(2, 1, [said("a")])]
    again = [Entry(3, 2, [started(2)]), Entry(4, 2, [said("b"), bytes([Answer.DONE])])]
    assert [what for what, _ in shown(first + again).events] == ["a", "restart 2", "b", "end"]
    assert [what for what, _ in shown(again).events] == ["b", "end"], "who saw nothing of it is not"


def test_how_a_run_ends() -> None:
    def ends(*answers: bytes) -> list[str]:
        return [what for what, _ in shown([Entry(1, 1, [started(1), *answers])]).events]

    result = envelope.item(Answer.RESULT, DataType.TEXT, b"all")
    assert ends(result) == ["all", "end"]
    assert ends(envelope.error(problem(500, "failed"))) == ["error 500"]
    assert ends(envelope.error(problem(CANCELLED, "cancelled"))) == ["end"]


def test_a_run_that_its_worker_hands_over_is_to_be_taken_up() -> None:
    stream = shown([Entry(1, 1, [started(1), said("a"), bytes([Answer.LEFT])])])
    assert stream.taken_up == ["e1-1-1"]
    assert [what for what, _ in stream.events] == ["a"]
