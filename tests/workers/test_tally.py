"""What a worker counts, and by what."""

from __future__ import annotations

import pytest

from fairlead.protocol.manifest import Route
from fairlead_worker.tally import WorkerTally, scope_of

CHAT = Route("support", "chat", "Support/Chat", "websocket", "/support/realtime/chat", topic="chat")
NEWS = Route("support", "news", "Support/News", "sse", "/support/realtime/news")


def test_each_workflow_has_numbers_of_its_own_and_all_have_a_sum() -> None:
    tally = WorkerTally()
    tally.of(CHAT).done += 2
    tally.of(NEWS).done += 3
    assert tally.of(CHAT).done == 2
    assert tally.total("done") == 5


@pytest.mark.parametrize("run", ["message", "connection", "topic"])
def test_a_run_of_a_websocket_is_for_what_its_trigger_says(run: str) -> None:
    route = Route("s", "w", "S/W", "websocket", "/s", run=run)  # type: ignore[arg-type]  # of the list above
    assert scope_of(route) == run


def test_a_run_of_an_event_stream_is_for_that() -> None:
    assert scope_of(NEWS) == "stream"
    assert WorkerTally().of(NEWS).scope == "stream"
