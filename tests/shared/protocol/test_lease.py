from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import lease
from fairlead.protocol.lease import (
    EDGE_GONE_AFTER,
    LINGER,
    MARGIN,
    RENEW,
    TRUST,
    TTL,
    Entry,
    Fences,
    Lease,
    Standing,
    State,
    Wanted,
    Word,
)


def test_the_times_leave_no_gap_in_which_two_are_heard() -> None:
    """A runner is silent before what it says is hidden, and that before another may begin."""
    assert 2 * RENEW <= TRUST, "a renewal may be lost"
    assert lease.LATE + MARGIN / 2 <= TTL - MARGIN < TTL
    assert TTL < EDGE_GONE_AFTER


# What edges and runners say

STATES = st.builds(State, st.integers(0, 2**31), st.booleans())


@given(st.text(), st.booleans(), STATES)
def test_what_is_said_comes_back(name: str, flag: bool, state: State) -> None:
    assert lease.decode_word(Word(name, flag, state).encode()) == Word(name, flag, state)
    assert lease.decode_standing(Standing(flag, state).encode()) == Standing(flag, state)
    assert lease.decode_entry(Entry(name, state).encode()) == Entry(name, state)


def test_the_bytes() -> None:
    """Workers and edges of other builds speak them, too."""
    assert Word("e1", True, State(2)).encode() == b'["e1",true,2,false]'
    assert Standing(True, State(3, True)).encode() == b"[true,3,true]"
    assert Entry("", State(3)).encode() == b'["",3,false]'


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'["e1",1,2,false]', b'["e1",true,2]'])
@pytest.mark.parametrize("decode", [lease.decode_word, lease.decode_standing, lease.decode_entry])
def test_bytes_that_are_not_what_they_should_be(
    decode: Callable[[bytes], Any], payload: bytes
) -> None:
    with pytest.raises(Malformed):
        decode(payload)


def test_what_two_know_of_a_room_together() -> None:
    assert State(2).merged(State(1, True)) == State(2, True)


# Who wants a room


def test_a_room_is_empty_a_moment_after_the_last_good_bye() -> None:
    wanted = Wanted(0.0)
    wanted.word(Word("e1", True), 0.0)
    wanted.word(Word("e2", True), 0.0)
    wanted.word(Word("e1", False), 1.0)
    assert not wanted.nobody(2.0)
    wanted.word(Word("e2", False), 2.0)
    assert not wanted.nobody(2.0 + LINGER / 2)
    assert wanted.nobody(2.0 + LINGER)


def test_whoever_comes_back_in_that_moment_keeps_it() -> None:
    wanted = Wanted(0.0)
    wanted.word(Word("e1", True), 0.0)
    wanted.word(Word("e1", False), 1.0)
    wanted.word(Word("e1", True), 1.1)
    assert not wanted.nobody(1.0 + 2 * LINGER)


def test_an_edge_that_is_silent_has_no_members() -> None:
    wanted = Wanted(0.0)
    wanted.word(Word("e1", True), 0.0)
    assert not wanted.nobody(EDGE_GONE_AFTER - 0.1)
    assert wanted.nobody(EDGE_GONE_AFTER)


def test_while_nobody_could_be_heard_no_edge_is_gone() -> None:
    wanted = Wanted(0.0)
    wanted.word(Word("e1", True), 0.0)
    wanted.unheard(5.0)
    assert not wanted.nobody(EDGE_GONE_AFTER + 1)


# Failures


def test_the_pause_doubles_to_30_seconds() -> None:
    assert [lease.pause(n) for n in (1, 2, 3, 4, 5, 6, 7, 5000)] == [1, 2, 4, 8, 16, 30, 30, 30]


# The lease


def test_a_lease_is_trusted_for_less_than_it_lasts() -> None:
    held = Lease(fence=7, revision=7, sent=10.0, ahead=1000.0)
    assert held.good(12.9) and not held.good(13.0)
    assert not held.lost(14.9) and held.lost(15.0)
    held.renewed(8, 12.0)
    assert held.good(14.9) and (held.fence, held.revision) == (7, 8)


def test_the_stamp_names_the_servers_time_until_which_it_counts() -> None:
    held = Lease(fence=7, revision=9, sent=10.0, ahead=1000.0)
    assert lease.stamp("support.ticks", held) == "support.ticks:7:15000"


# Fences


def test_what_was_stored_after_the_lease_is_not_shown() -> None:
    assert Fences().passes("a.b:7:15000", 15000)
    assert not Fences().passes("a.b:7:15000", 15001)
    assert Fences().passes("a.b:7:15000", None), "a room without history has no times"


def test_an_earlier_runner_is_not_shown_after_a_later_one() -> None:
    fences = Fences()
    assert fences.passes("a.b:7:15000", None)
    assert fences.passes("a.b:8:15000", None)
    assert not fences.passes("a.b:7:15000", None)
    assert fences.passes("a.c:7:15000", None), "another workflow's"
    assert fences.passes("a.b:8:15000", None)


def test_what_was_hidden_fences_nothing() -> None:
    fences = Fences()
    assert not fences.passes("a.b:9:15000", 16000)
    assert fences.passes("a.b:8:15000", 15000)


@pytest.mark.parametrize(
    "stamped",
    [
        "",
        "x",
        "a.b:7",
        "a.b:x:1",
        "a.b:-1:1",
        "a.b:7:",
        "a.b:7:" + "9" * 5000,
        f"a.b:{'9' * 5000}:7",
    ],
)
def test_what_is_no_stamp_fences_nothing(stamped: str) -> None:
    """Whoever may publish to a room may write any header."""
    assert Fences().passes(stamped, 10**15)


def test_the_parameters_of_a_topic() -> None:
    assert lease.parameters(("rooms", "{room}", "{seat}"), "rooms.blue.7") == {
        "room": "blue",
        "seat": "7",
    }
    assert lease.parameters(("chat",), "chat") == {}


# All of it: several runners, some of which stand still at the worst of moments


class Server:
    """The lease's key as NATS keeps it, and the room's log: (header, time stored in ms)."""

    def __init__(self) -> None:
        self.revision = 0
        self.written = -TTL
        self.log: list[tuple[str, int]] = []

    def write(self, last: int, now: float) -> int | None:
        there = self.revision if now - self.written < TTL else 0
        if there != last:
            return None
        self.revision += 1
        self.written = now
        return self.revision


class Runner:
    """A worker: what it has decided to write is on its way until `arrives`, however long that takes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lease: Lease | None = None
        self.on_its_way: list[str] = []

    def step(self, what: str, now: float) -> None:
        if what == "arrives":
            self.server.log += [(stamped, int(now * 1000)) for stamped in self.on_its_way]
            self.on_its_way = []
            return
        if what == "work":
            self.hold(now)
        if self.lease is not None and self.lease.good(now):
            self.on_its_way.append(lease.stamp("a.b", self.lease))

    def hold(self, now: float) -> None:
        """Take the lease, or renew it."""
        revision = self.server.write(self.lease.revision if self.lease else 0, now)
        if revision is None:
            self.lease = None
        elif self.lease is None:
            self.lease = Lease(revision, revision, now, 0.0)
        else:
            self.lease.renewed(revision, now)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        # To speak without work is to have renewals lost.
        st.sampled_from(["work", "speak", "arrives", "arrives"]),
        st.sampled_from([0.0, 0.5, 1.5, 2.9, 5.0]),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS)
def test_at_most_one_runner_is_heard_at_a_time_wherever_one_begins_to_listen(
    steps: list[tuple[int, str, float]],
) -> None:
    server = Server()
    runners = [Runner(server) for _ in range(3)]
    now = 100.0
    for number, what, later in steps:
        now += later
        runners[number].step(what, now)

    def shown(log: list[tuple[str, int]], *, history: bool = True) -> list[int]:
        fences = Fences()
        passed = [s for s, stored in log if fences.passes(s, stored if history else None)]
        return [int(stamped.split(":")[1]) for stamped in passed]

    live = shown(server.log, history=False)
    assert live == sorted(live), "no earlier runner after a later one, also without history"
    everything = shown(server.log)
    assert everything == sorted(everything)
    for start in range(len(server.log)):
        rest = shown(server.log[start:])
        assert rest == everything[len(everything) - len(rest) :], "who comes later sees the same"
        before = shown(server.log[:start])
        assert before + rest == everything, "and no more of it"
