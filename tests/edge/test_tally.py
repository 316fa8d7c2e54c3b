"""What an edge counts, and by what."""

from __future__ import annotations

from fairlead.protocol.manifest import Route
from fairlead_edge.tally import EdgeTally

CHAT = Route("support", "chat", "Support/Chat", "websocket", "/support/realtime/chat", topic="chat")
NEWS = Route("support", "news", "Support/News", "sse", "/support/realtime/news")


def test_each_workflow_has_numbers_of_its_own_and_all_have_a_sum() -> None:
    tally = EdgeTally()
    tally.of(CHAT).received += 2
    tally.of(NEWS).received += 3
    assert tally.of(CHAT).received == 2
    assert tally.total("received") == 5


def test_topics_have_a_sum_too() -> None:
    tally = EdgeTally()
    tally.topics["chat"].deliveries += 10
    tally.topics["rooms.{room}"].deliveries += 1
    assert tally.total("deliveries") == 11


def test_what_is_not_over_is_outstanding() -> None:
    tally = EdgeTally()
    tally.of(CHAT).begun += 3
    tally.of(CHAT).ended += 1
    assert tally.of(CHAT).outstanding == 2
