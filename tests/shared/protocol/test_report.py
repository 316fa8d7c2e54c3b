from __future__ import annotations

import orjson
import pytest

from fairlead.errors import Malformed
from fairlead.protocol import report
from fairlead.protocol.report import MAX_SIZE, EdgeReport, Room, Run, WorkerReport


def test_an_edge_tells_what_it_is_told_to() -> None:
    told = EdgeReport(
        id="e1", address="127.0.0.1:8000", websockets=2, counters={"received": 7},
        rooms=(Room(topic="chat", channel="blue", members=2),), rooms_in_all=1,
    )  # fmt: skip
    assert report.decode(report.encode(told)) == told


def test_a_worker_tells_of_its_runs() -> None:
    told = WorkerReport(id="w1", limits=(1000, 10_000), runs=(Run(run="e1-1-1", kind="kept"),))
    assert report.decode(report.encode(told)) == told


def test_what_another_version_tells_beside_is_left_out_and_what_it_lacks_has_its_default() -> None:
    found = report.decode(b'{"role":"edge","id":"e1","moods":["calm"]}')
    assert found == EdgeReport(id="e1")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b'{"role":"edge"}', b'{"role":"worker","id":7}', b'"role":"edge"']
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        report.decode(data)


def test_lists_are_cut_until_a_report_is_small_enough() -> None:
    rooms = tuple(Room(topic=f"rooms.{'x' * 200}", channel=str(i)) for i in range(1000))
    encoded = report.encode(EdgeReport(id="e1", rooms=rooms, rooms_in_all=1000))
    assert len(encoded) <= MAX_SIZE
    told = orjson.loads(encoded)
    assert 100 < len(told["rooms"]) < 1000
    assert told["rooms_in_all"] == 1000, "how many there are is told all the same"
