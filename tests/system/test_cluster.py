"""A cluster on one machine: hosts of their own for three NATS servers, edges, workers, a balancer and
the clients; they are scaled, replaced, cut off and hampered while people speak.

Each prints what was sent, delivered, lost, twice and how long the slowest message was on its way, which
is how long it took to recover. `make cluster` runs the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.hosts import NATS, Door, Hosts, hosts
from support.line import LongLine, served
from support.network import Host
from support.proof import Account, Times, Wanderer
from support.speakers import Speaker

STREAM = Subjects(Hosts.app).stream("large")

NEVER = 1e9
"""Seconds until a listener cuts itself off."""


@dataclass(frozen=True)
class Form:
    """How large it is.

    Attributes:
        rooms: each with one who speaks and others who listen. rate: words a second in each.
        calm: seconds before something happens, and after. away: for which a host is cut off.
        stalls: of a long line, each of 2 s.
    """

    rooms: int
    listeners: int
    rate: float
    calm: float
    away: float
    stalls: int


SHORT, LONG = Form(10, 2, 2, 1.0, 3.0, 1), Form(50, 4, 5, 5.0, 10.0, 5)

FAR = 0.05
"""Seconds that a byte takes over a long line: to another continent."""

STALL = 2.0

FORMS = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=pytest.mark.soak),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("cluster")) as made:
        made.call(lambda: made.start(2, 2))
        yield made


@dataclass
class Seen:
    """What came of it all."""

    sent: int
    delivered: int
    twice: int
    out_of_order: int
    refused: int
    reconnects: int
    said: int
    acknowledged: int
    failed: list[str]
    slowest: float
    acks: Times

    def show(self, name: str) -> None:
        lost = self.sent - self.delivered
        sys.stdout.write(
            f"\n{name}: sent {self.sent}, delivered {self.delivered}, lost {lost}, twice {self.twice}, "
            f"out of order {self.out_of_order}, reconnects {self.reconnects}, not recovered "
            f"{self.refused}; said {self.said}, acknowledged {self.acknowledged}; recovered within "
            f"{self.slowest:.1f} s, ack {self.acks}\n"
        )

    def assert_nothing_was_lost(self) -> None:
        assert self.delivered == self.sent > 0, self
        assert self.failed == [], self
        assert self.acknowledged == self.said > 0, self
        assert (self.twice, self.out_of_order, self.refused) == (0, 0, 0), self


async def spoken_while(
    form: Form, what: Callable[[], Coroutine[Any, Any, None]], front: Door
) -> Seen:
    """Have people speak and listen while something happens, and some calm around it.

    Args:
        front: where they connect: the balancer, what leads to it, or an edge.
    """
    dice = random.Random(form.rooms)
    rooms: list[tuple[Speaker, list[Wanderer], str]] = []
    for number in range(form.rooms):
        path = f"/logs/v1/large?channel={time.time_ns():x}-{number}"
        members = [listener(front, path, dice) for _ in range(form.listeners)]
        rooms.append((Speaker([member.account for member in members]), members, path))
    done = asyncio.Event()
    with contextlib.suppress(TimeoutError):  # what is missing then is shown as lost
        async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
            everybody = [member for _, members, _ in rooms for member in members]
            for member in everybody:
                group.create_task(member.run())
            for member in everybody:
                await member.joined.wait()
            speaking = [
                asyncio.create_task(speaker.go(front.http(path), 1 / form.rate, done))
                for speaker, _, path in rooms
            ]
            await asyncio.sleep(form.calm)
            await what()
            await asyncio.sleep(form.calm)
            done.set()
            deadline.reschedule(asyncio.get_running_loop().time() + 2 * DEADLINE)
            await asyncio.gather(*speaking)
            for member in everybody:
                member.finish()
    return account_of([(speaker, members) for speaker, members, _ in rooms])


def listener(front: Door, path: str, dice: random.Random) -> Wanderer:
    return Wanderer(lambda: front, path, dice, NEVER, 0.2)


def account_of(rooms: list[tuple[Speaker, list[Wanderer]]]) -> Seen:
    speakers = [speaker for speaker, _ in rooms]
    accounts: list[Account] = [speaker.account for speaker in speakers]
    accounts += [member.account for _, members in rooms for member in members]
    delivered = twice = disorder = 0
    for account in accounts:
        unique = list(dict.fromkeys(account.got))
        delivered += len(set(unique) & set(account.sent))
        twice += len(account.got) - len(unique)
        # In the order in which the room has them; a word that was said again is at its second place.
        times = [float(word.split()[0]) for word in unique]
        disorder += sum(b < a - 60 for a, b in itertools.pairwise(times))
    orders = [[m.account.got for m in members] for _, members in rooms]
    disorder += sum(got != room[0] for room in orders for got in room)
    return Seen(
        sum(len(account.sent) for account in accounts), delivered, twice, disorder,
        sum(account.refused for account in accounts),
        sum(account.cuts for account in accounts),
        sum(len(speaker.account.sent) for speaker in speakers),
        sum(len(speaker.acks) for speaker in speakers),
        [str(error) for speaker in speakers for error in speaker.failed],
        max(account.late for account in accounts),
        Times.of(seconds for speaker in speakers for seconds in speaker.acks),
    )  # fmt: skip


def proved(
    cluster: Hosts, form: Form, name: str, what: Callable[[], Coroutine[Any, Any, None]]
) -> Seen:
    seen = cluster.call(lambda: spoken_while(form, what, cluster.front))
    seen.show(name)
    seen.assert_nothing_was_lost()
    return seen


@pytest.mark.parametrize("form", FORMS)
def test_each_tier_is_scaled_on_its_own(cluster: Hosts, form: Form) -> None:
    """Edges from 2 to 4 and workers from 2 to 6 while people speak; those who come then are led to the new ones."""

    async def scale() -> None:
        await cluster.scale(4, 2)
        await cluster.scale(4, 6)

    proved(cluster, form, "edges 2 to 4, workers 2 to 6", scale)
    proved(cluster, form, "and with all of them", lambda: asyncio.sleep(form.calm))
    assert len(cluster.edges) == 4 and len(cluster.workers) == 6


@pytest.mark.parametrize("form", FORMS)
def test_edges_are_replaced_one_after_the_other(cluster: Hosts, form: Form) -> None:
    async def roll() -> None:
        for name, edge in list(cluster.edges.items()):
            assert await edge.stop() == 0
            await cluster.start_edge(name)

    seen = proved(cluster, form, "edges replaced", roll)
    assert seen.reconnects > 0, "somebody was on them"


@pytest.mark.parametrize("form", FORMS)
def test_workers_are_replaced_one_after_the_other(cluster: Hosts, form: Form) -> None:
    """No client notices."""

    async def roll() -> None:
        for name, worker in list(cluster.workers.items()):
            assert await worker.stop() == 0
            await cluster.start_worker(name)

    seen = proved(cluster, form, "workers replaced", roll)
    assert seen.reconnects == 0


@pytest.mark.parametrize("form", [pytest.param(LONG, id="long", marks=pytest.mark.soak)])
def test_nats_servers_are_replaced_one_after_the_other(cluster: Hosts, form: Form) -> None:
    """Each says first that it goes (lame duck), as Kubernetes has it do."""

    async def roll() -> None:
        for name in NATS:
            server = cluster.nats[name]
            server.program.send(signal.SIGUSR2)
            await server.ended()
            await cluster.start_nats(name)
            await asyncio.sleep(form.calm)

    proved(cluster, form, "nats-servers replaced", roll)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["edge-1", "worker-1", "leader"])
def test_a_host_that_is_cut_off_for_a_while(cluster: Hosts, form: Form, which: str) -> None:
    """A pulled cable: nobody is told, and what is under way hangs."""

    async def cut() -> None:
        name = await cluster.leader(STREAM) if which == "leader" else which
        host = cluster.net.hosts[name]
        host.cut()
        await asyncio.sleep(form.away)
        host.mend()

    proved(cluster, form, f"{which} cut off for {form.away:g} s", cut)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_network(cluster: Hosts, form: Form) -> None:
    """1 % of the packets is lost everywhere, and what the edges send is limited to 20 Mbit/s."""
    edges = [edge.host for edge in cluster.edges.values()]
    everywhere = list(cluster.net.hosts.values())

    async def hamper() -> None:
        await each(everywhere, lambda host: host.lose(0.01))
        await each(edges, lambda host: host.limit("20mbit"))
        await asyncio.sleep(form.away)
        await each(everywhere, lambda host: host.lose(0))
        await each(edges, lambda host: host.limit(None))

    proved(cluster, form, "1 % loss, 20 Mbit/s", hamper)


@pytest.mark.parametrize("form", FORMS)
def test_clients_that_are_far_away_behind_a_line_that_stalls(cluster: Hosts, form: Form) -> None:
    async def far() -> Seen:
        host = cluster.front.host.address
        async with served(LongLine(cluster.front, host, FAR)) as line:
            return await spoken_while(form, lambda: stalled(form, [line]), line)

    seen = cluster.call(far)
    seen.show(f"clients {FAR * 1000:g} ms away, stalled {form.stalls} times for {STALL:g} s")
    seen.assert_nothing_was_lost()


@pytest.mark.parametrize("form", FORMS)
def test_an_edge_that_is_far_from_nats_over_a_line_that_stalls(cluster: Hosts, form: Form) -> None:
    here = cluster.net.hosts["client"].address

    async def far() -> Seen:
        async with AsyncExitStack() as stack:
            lines = [
                await stack.enter_async_context(served(LongLine(At(4222), host, FAR), here))
                for host in (cluster.net.hosts[name].address for name in NATS)
            ]
            assert await cluster.edges["edge-1"].stop() == 0
            urls = ",".join(f"nats://{here}:{line.port}" for line in lines)
            edge = await cluster.start_edge("edge-1", urls)
            seen = await spoken_while(form, lambda: stalled(form, lines), edge)
            assert await cluster.edges["edge-1"].stop() == 0
        await cluster.start_edge("edge-1")
        return seen

    seen = cluster.call(far)
    seen.show(f"an edge {FAR * 1000:g} ms from NATS, stalled {form.stalls} times for {STALL:g} s")
    seen.assert_nothing_was_lost()


@dataclass(frozen=True)
class At:
    """Where a line leads to."""

    port: int


async def stalled(form: Form, lines: list[LongLine]) -> None:
    for _ in range(form.stalls):
        await asyncio.gather(*(line.stall(STALL) for line in lines))
        await asyncio.sleep(form.calm)


async def each(of: list[Host], what: Callable[[Host], None]) -> None:
    await asyncio.gather(*(asyncio.to_thread(what, host) for host in of))
