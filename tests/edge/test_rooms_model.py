"""Rooms on two edges against a plain list: whatever NATS does, no client has a hole it was not told of."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from support.roommodel import AGE, CHANNELS, SIZE, World

CHANNEL, EDGE = st.sampled_from(CHANNELS), st.integers(0, 1)


class Rooms(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    # The stream, and NATS

    @rule(channel=CHANNEL, number=st.integers(1, 4))
    def publish(self, channel: str, number: int) -> None:
        self.world.publish(channel, number)

    @rule(edge=EDGE, number=st.integers(1, 8), turns=st.integers(0, 3))
    def messages_arrive(self, edge: int, number: int, turns: int) -> None:
        self.world.arrive(edge, number, turns)

    @precondition(lambda self: any(self.world.late))
    @rule(edge=EDGE)
    def a_message_never_arrives(self, edge: int) -> None:
        self.world.lose_a_message(edge)

    @rule(seconds=st.sampled_from([1, 5, 10, 50, 70]))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule(channel=CHANNEL)
    def an_operator_purges(self, channel: str) -> None:
        self.world.purge(channel)

    @rule(size=st.sampled_from([3, SIZE, 10]), age=st.sampled_from([AGE / 2, AGE, 2 * AGE]))
    def a_deploy_changes_what_is_kept(self, size: int, age: float) -> None:
        self.world.deploy(size, age)

    @rule()
    def an_operator_makes_the_stream_anew(self) -> None:
        self.world.make_anew()

    @rule(edge=EDGE)
    def nats_is_away(self, edge: int) -> None:
        self.world.lose_nats(edge)

    @rule(edge=EDGE)
    def nats_is_back(self, edge: int) -> None:
        self.world.find_nats(edge)

    @rule(asked=st.booleans(), fresh=st.booleans())
    def the_replica(self, asked: bool, fresh: bool) -> None:
        self.world.use_replica(asked, fresh)

    @rule(turns=st.integers(1, 20))
    def the_loops_turn(self, turns: int) -> None:
        self.world.turn(turns)

    # Clients

    @precondition(lambda self: len(self.world.clients) < 5)
    @rule(channel=CHANNEL, edge=EDGE)
    def somebody_comes(self, channel: str, edge: int) -> None:
        self.world.come(channel, edge)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def somebody_is_cut_off(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(self.world.clients)))

    @precondition(lambda self: self.world.left)
    @rule(data=st.data(), edge=EDGE)
    def somebody_comes_back(self, data: st.DataObject, edge: int) -> None:
        self.world.come_back(data.draw(st.sampled_from(self.world.left)), edge)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data(), reads=st.booleans())
    def somebody_reads_or_does_not(self, data: st.DataObject, reads: bool) -> None:
        client = data.draw(st.sampled_from(self.world.clients))
        (client.reads.set if reads else client.reads.clear)()

    def teardown(self) -> None:
        self.world.end()


TestRooms = Rooms.TestCase
TestRooms.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
