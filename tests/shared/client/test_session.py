"""What frames mean: frames in, frames and events out; no socket and no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairlead.client import FairleadError
from fairlead.client.clock import Moment
from fairlead.client.errors import ours
from fairlead.client.frames import encoded
from fairlead.client.sent import Message, Sent
from fairlead.client.session import End, Gap, Presence, Restart, Session


class Played:
    """A session, and all that it decides."""

    def __init__(self, cursor: str | None = None) -> None:
        self.written: list[dict[str, Any]] = []
        self.delivered: list[Message] = []
        self.events: list[tuple[str, Any]] = []
        self.clock = 0.0
        self.asleep = 0.0
        self.session = Session(self, cursor)

    def write(self, frame: str) -> None:
        self.written.append(json.loads(frame))

    def deliver(self, message: Message) -> None:
        self.delivered.append(message)

    def discard(self, run: str) -> None:
        self.delivered = [message for message in self.delivered if message.run != run]

    def emit(self, name: str, detail: object) -> None:
        self.events.append((name, detail))

    def now(self) -> Moment:
        return Moment(self.clock, self.clock + self.asleep)

    def hears(self, type: str, **members: Any) -> None:
        self.session.received({"type": type, **members})

    def welcome(self, **members: Any) -> None:
        known = {"connection": "c", "cursor": None, "recovered": None, "window": 2}
        self.hears("welcome", **{**known, **members})

    def send(self, id: str) -> Sent:
        sent = Sent(id, encoded(id), 10, self.session.cancel)
        self.session.send(sent)
        return sent

    @property
    def said(self) -> list[str | None]:
        return [frame.get("id") for frame in self.written]


@pytest.fixture
async def it() -> Played:
    return Played()


async def replies(sent: Sent) -> list[Any]:
    return [reply.data async for reply in sent]


async def failure(sent: Sent) -> FairleadError:
    with pytest.raises(FairleadError) as caught:
        await sent
    return caught.value


async def test_nothing_is_sent_before_the_welcome_and_no_more_than_its_window(it: Played) -> None:
    a, _, c = it.send("a"), it.send("b"), it.send("c")
    assert it.written == []
    it.welcome()
    assert it.written == [
        {"type": "message", "ref": 1, "id": "a", "data": "a"},
        {"type": "message", "ref": 2, "id": "b", "data": "b"},
    ]
    assert (a.state, c.state) == ("sent", "queued")
    it.hears("ack", ref=1, trace="t")
    ack = await a
    assert (ack.id, ack.trace) == ("a", "t")
    assert it.written[2] == {"type": "message", "ref": 3, "id": "c", "data": "c"}


async def test_replies_belong_to_their_message_in_order_and_end_with_its_ack(it: Played) -> None:
    it.welcome()
    sent = it.send("a")
    it.hears("message", id=None, ref=1, data="one")
    it.hears("message", id=None, ref=1, data="AP8=", encoding="base64")
    it.hears("message", id="k1", data="of the room", **{"from": "ben"})
    it.hears("ack", ref=1)
    assert await replies(sent) == ["one", b"\x00\xff"]
    assert it.delivered == [Message("of the room", "k1", sender="ben")]


async def test_an_error_frame_fails_its_message_with_the_problem(it: Played) -> None:
    it.welcome()
    sent = it.send("a")
    read = aiter(sent)
    it.hears("error", ref=1, error={"status": 400, "detail": "no name", "errors": []})
    with pytest.raises(FairleadError, match="no name"):
        await anext(read)
    error = await failure(sent)
    assert (error.status, error.ref, error.id) == (400, 1, "a")
    assert it.events == []


async def test_a_failure_that_nobody_watches_is_an_event(it: Played) -> None:
    it.welcome()
    it.send("a")
    it.hears("error", ref=1, error={"status": 500})
    it.hears("error", error={"status": 400, "detail": "malformed"})
    assert [(name, error.status) for name, error in it.events] == [("error", 500), ("error", 400)]


async def test_what_is_unacknowledged_is_sent_again_in_order_with_the_same_ids(it: Played) -> None:
    it.welcome()
    a, b, c = it.send("a"), it.send("b"), it.send("c")
    it.hears("ack", ref=1)
    it.session.lost()
    assert (b.state, c.state) == ("queued", "queued")
    it.send("d")
    it.welcome()
    assert it.said == ["a", "b", "c", "b", "c"]
    assert [frame["ref"] for frame in it.written] == [1, 2, 3, 4, 5]
    it.hears("ack", ref=2)  # of the old connection: nobody's
    assert it.session.pending == 3
    it.hears("ack", ref=4)
    assert [(await a).id, (await b).id] == ["a", "b"]
    assert it.said[5:] == ["d"]


async def test_replies_that_were_not_read_are_forgotten_when_it_is_sent_again(it: Played) -> None:
    it.welcome()
    sent = it.send("a")
    it.hears("message", id=None, ref=1, data="one")
    it.session.lost()
    it.welcome()
    it.hears("message", id=None, ref=2, data="one")
    it.hears("ack", ref=2)
    assert [(reply.data, reply.attempt) async for reply in sent] == [("one", 2)]


async def test_after_two_minutes_nothing_is_repeated(it: Played) -> None:
    """The server would no longer know it as a repetition."""
    it.welcome()
    a, b = it.send("a"), it.send("b")
    it.clock = 60.0
    it.session.lost()
    late = it.send("late")
    it.welcome()
    assert it.said[2:] == ["a", "b"]
    it.session.lost()
    it.clock = 120.0
    it.welcome()
    assert it.said[4:] == ["late"]
    assert ["too long ago" in (await failure(sent)).detail for sent in (a, b)] == [True, True]
    assert late.state == "sent"


async def test_the_two_minutes_go_by_also_while_a_laptop_sleeps(it: Played) -> None:
    """Its monotonic clock may stand still meanwhile; the server's does not."""
    it.welcome()
    sent = it.send("a")
    it.session.lost()
    it.asleep = 3600.0
    it.welcome()
    assert it.said == ["a"]
    assert "too long ago" in (await failure(sent)).detail


async def test_cancel_asks_the_server_where_it_has_it_and_forgets_it_where_not(it: Played) -> None:
    it.welcome()
    a, _, c = it.send("a"), it.send("b"), it.send("c")
    c.cancel()
    assert (await failure(c)).status == 499
    a.cancel()
    assert it.written[2] == {"type": "cancel", "ref": 1}
    assert a.state == "sent"
    it.hears("error", ref=1, error={"status": 499})
    assert (await failure(a)).status == 499
    a.cancel()
    assert len(it.written) == 3


async def test_a_message_that_waits_for_a_worker_says_so(it: Played) -> None:
    it.welcome()
    sent = it.send("a")
    it.hears("waiting", ref=1)
    assert (sent.state, it.session.waiting) == ("waiting", True)
    assert it.events == [("waiting", sent)]
    it.hears("ack", ref=1)
    assert not it.session.waiting


async def test_the_cursor_is_that_of_the_newest_message_cursor_or_gap(it: Played) -> None:
    it.welcome(cursor="k0")
    assert it.session.cursor == "k0"
    it.hears("message", id="k1", data=1)
    it.hears("message", id=None, data=2)
    assert it.session.cursor == "k1"
    it.hears("cursor", cursor="k2")
    assert it.session.cursor == "k2"
    it.hears("gap", cursor="k3")
    assert it.session.cursor == "k3"
    assert it.events == [("gap", Gap("k3", "history"))]


async def test_a_recovered_connection_goes_on_from_where_it_was(it: Played) -> None:
    """The welcome's cursor is where the room stands: a loss in mid-replay must not skip to it."""
    it.welcome(cursor="k1")
    it.session.lost()
    it.welcome(cursor="k9", recovered=True)
    assert it.session.cursor == "k1"
    it.hears("message", id="k2", data="missed")
    assert it.session.cursor == "k2"
    assert it.events == []


async def test_what_was_not_recovered_is_a_gap_also_where_nothing_could_be_asked() -> None:
    refused = Played()
    refused.welcome(cursor="k1")
    refused.session.lost()
    refused.welcome(cursor="k9", recovered=False)
    assert refused.session.cursor == "k9"
    without_history = Played()
    without_history.welcome()
    without_history.session.lost()
    without_history.welcome()
    foreign = Played("foreign")
    foreign.welcome(recovered=False)
    assert refused.events == [("gap", Gap("k9", "reconnect"))]
    assert without_history.events == foreign.events == [("gap", Gap(None, "reconnect"))]


async def test_a_restart_discards_what_was_not_read_and_numbers_what_follows(it: Played) -> None:
    it.welcome()
    it.hears("message", id=None, run="r", data="old")
    it.hears("message", id="k1", data="of the room")
    it.hears("restart", run="r", attempt=2)
    it.hears("message", id=None, run="r", data="new")
    assert [(each.data, each.attempt) for each in it.delivered] == [("of the room", 1), ("new", 2)]
    sent = it.send("a")
    it.hears("message", id=None, ref=1, data="old")
    it.hears("restart", run="q", attempt=2, ref=1)
    it.hears("message", id=None, ref=1, data="new")
    it.hears("ack", ref=1)
    assert await replies(sent) == ["new"]
    assert it.events == [("restart", Restart("r", 2)), ("restart", Restart("q", 2, "a"))]


async def test_presence_the_end_of_a_run_and_an_unknown_frame(it: Played) -> None:
    it.welcome()
    it.hears("presence", join=["ann"], leave=[])
    it.hears("end", run="r")
    it.hears("of a later version")
    for type in ("message", "ack", "waiting"):
        it.hears(type, ref=7, data="for a message that is nobody's any more")
    assert it.events == [("presence", Presence(["ann"], [])), ("end", End("r"))]


async def test_a_server_that_is_drained_says_when_to_come_back(it: Played) -> None:
    it.welcome()
    it.hears("reconnect", within=1500)
    assert it.session.within == 1.5
    it.session.lost()
    it.welcome()
    assert it.session.within is None


async def test_what_is_on_its_way_when_it_ends_for_good_has_failed(it: Played) -> None:
    it.welcome()
    sent = it.send("a")
    it.session.ended(ours("expired", code=4500))
    error = await failure(sent)
    assert (error.code, error.id) == (4500, "a")


async def test_what_was_cancelled_is_not_sent_again(it: Played) -> None:
    """Nobody knows whether the server has heard it before the connection was lost."""
    it.welcome()
    a, b = it.send("a"), it.send("b")
    a.cancel()
    it.session.lost()
    assert (await failure(a)).status == 499
    it.welcome()
    assert it.said == ["a", "b", None, "b"]
    assert b.state == "sent"


async def test_a_listener_may_cancel_what_is_about_to_be_given_up(it: Played) -> None:
    it.welcome()
    a, b = it.send("a"), it.send("b")
    a.cancel()
    b.cancel()
    it.emit = lambda name, detail: b.cancel()  # type: ignore[method-assign]
    it.session.lost()
    assert it.session.pending == 0
    assert [a.state, b.state] == ["failed", "failed"]


async def test_a_listener_may_cancel_what_is_about_to_be_sent() -> None:
    played = Played()
    old, late = played.send("old"), played.send("late")
    played.welcome(window=1)
    played.session.lost()
    played.clock = 200.0
    played.emit = lambda name, detail: late.cancel()  # type: ignore[method-assign]
    played.welcome(window=1)
    assert (old.state, late.state) == ("failed", "failed")
    assert played.said == ["old"]


async def test_a_listener_may_send_again_what_is_given_up_without_overrunning_the_window() -> None:
    played = Played()
    played.welcome(window=2)
    played.send("a")
    played.send("b")
    played.session.lost()
    played.send("new")
    played.clock = 200.0
    again = map(str, range(2))

    def emit(name: str, detail: object) -> None:
        played.send(next(again))

    played.emit = emit  # type: ignore[method-assign]
    played.welcome(window=2, recovered=True)
    assert played.said[2:] == ["new", "0"], "the 17th of 16 would be a final 4501"
    played.hears("ack", ref=3)
    assert played.said[4:] == ["1"]
