"""How many clients leave within a grace, and when they are told to come back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead_edge.drain import BATCH, COME_BACK, PAUSE, RATE, Pace, drain
from fairlead_edge.host import Host
from support.clock import OwnClock


@given(st.integers(0, 200_000), st.floats(0.05, 60))
@example(50_000, 20.0)
@example(100, 20.0)
def test_all_are_closed_in_time_and_no_more_come_back_in_a_second_than_may(
    clients: int, seconds: float
) -> None:
    pace = Pace.of(clients, seconds)
    takes = clients / pace.rate
    assert takes <= seconds * 1.0001
    # Who is closed at t comes back between t and t + within.
    assert takes + pace.within == pytest.approx(clients / RATE + COME_BACK)
    assert pace.within >= COME_BACK
    for _ in range(10):
        assert pace.within * 500 - 1 <= pace.draw() <= pace.within * 1000


def test_where_the_grace_is_enough_the_closing_is_the_spread() -> None:
    assert Pace.of(40_000, 20.0) == Pace(2000, 1.0)
    assert Pace.of(50_000, 20.0) == Pace(2500, 6.0)


class Client:
    """One of very many.

    Args:
        costs: seconds of work that closing it is.
    """

    def __init__(self, id: int, order: list[int], costs: float = 0.0) -> None:
        self.id = id
        self.busy = False
        self.stopped = False
        self.within: int | None = None
        self.closed: float | None = None
        self._order = order
        self._costs = costs

    def stop_taking(self) -> None:
        self.stopped = True

    def announce_drain(self, within: int) -> None:
        assert self.stopped and self.closed is None
        self.within = within

    def close(self, code: int, reason: str) -> None:
        assert code == 1012 and self.within is not None
        loop = asyncio.get_running_loop()
        assert isinstance(loop, OwnClock)
        loop.work(self._costs)
        self.closed = loop.time()
        self._order.append(self.id)


def host_of(clients: list[Client], busy: bool = False, slow: int = -1) -> Host:
    """As much of an edge as a drain sees."""

    async def quiet() -> None:
        if busy:
            await asyncio.Event().wait()

    return cast(
        Host,
        SimpleNamespace(
            clients={client.id: client for client in clients},
            quiet=quiet,
            relay=SimpleNamespace(outstanding=1),
            tally=SimpleNamespace(drained=0, unacknowledged=0),
            buffers=SimpleNamespace(waiting=lambda client: int(client.id == slow)),
        ),
    )


def drained(host: Host, grace: float) -> float:
    """Returns: seconds that it takes, on a clock of its own."""

    async def main() -> float:
        await drain(host, grace)
        return asyncio.get_running_loop().time()

    return OwnClock.run(main())


@pytest.mark.parametrize("costs", [0.0, 15e-6], ids=["at once", "with work"])
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "an ack does not come"])
def test_fifty_thousand_leave_within_a_grace_that_is_short_for_so_many(
    busy: bool, costs: float
) -> None:
    clients = [Client(number, [], costs) for number in range(50_000)]
    grace = 3.0
    took = drained(host_of(clients, busy), grace)
    # A third is left for the peers; an ack is waited for in the first.
    assert grace * 2 / 3 - 2 * PAUSE <= took <= grace * 2 / 3
    closed: list[Any] = [client.closed for client in clients]
    assert None not in closed
    # Not all at once: in each fifth of the time about a fifth of them.
    first, last = min(closed), max(closed)
    assert first == pytest.approx(grace / 3 if busy else 0, abs=PAUSE)
    in_time = [0] * 5
    for at in closed:
        in_time[min(4, int((at - first) / (last - first) * 5))] += 1
    assert min(in_time) > len(clients) / 7 and max(in_time) < len(clients) / 3, in_time
    withins = [client.within or 0 for client in clients]
    assert min(withins) >= 1000 * (len(clients) / RATE - grace) / 2
    assert max(withins) <= 1000 * (len(clients) / RATE + COME_BACK)


def test_who_reads_slowly_has_the_longest_to_read_what_waits() -> None:
    order: list[int] = []
    drained(host_of([Client(number, order) for number in range(3 * BATCH)], slow=0), 30.0)
    assert order[-1] == 0 and order[:2] == [1, 2]


def test_few_are_closed_at_once() -> None:
    order: list[int] = []
    assert drained(host_of([Client(number, order) for number in range(BATCH)]), 30.0) == 0
    assert len(order) == BATCH
