"""What `fairlead.bus` and `fairlead.interest` use of nats-py's inside, and what it promises with it, on a real server.

The first part pins names and bytes that nats-py promises to nobody: when an upgrade
changes one, the test that names it fails. The second part is the bus itself, and
storing with it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import orjson
import pytest
import pytest_asyncio
import uvloop
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport, Transport
from nats.protocol import command
from nats.protocol.parser import Parser

from fairlead import roomlog, roomstreams, storing
from fairlead.bus import Bus, BusOptions, NoResponders
from fairlead.errors import NotStored, TooLarge, Unusable
from fairlead.interest import DirectClient, Interest
from fairlead.protocol.manifest import History
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.system import NatsServer, nats_server, until

# What is used of nats-py's inside


def test_process_msg_is_a_coroutine_that_takes_what_it_took() -> None:
    assert list(inspect.signature(Client._process_msg).parameters) == [
        "self", "sid", "subject", "reply", "data", "headers"
    ]  # fmt: skip
    assert inspect.iscoroutinefunction(Client._process_msg)


def test_the_parser_calls_process_msg_for_each_message() -> None:
    assert "self.nc._process_msg(" in inspect.getsource(Parser.parse)


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [("_subs", dict), ("_sid", int), ("_pending", list), ("_pending_data_size", int)],
)
def test_a_client_has_the_attribute(attribute: str, kind: type) -> None:
    assert isinstance(getattr(Client(), attribute), kind)


def test_no_name_of_ours_in_the_client_is_one_of_nats_pys() -> None:
    ours = {name for name in vars(DirectClient) if not name.startswith("__")}
    assert ours == {"_process_msg"}


def test_an_interest_has_all_that_nats_py_asks_of_a_subscription() -> None:
    """At a reconnect and at the close it walks over `_subs`; a subscription's own calls are none."""
    interest = Interest(7, "a.b", "group", lambda *_: None)
    subscription = Subscription(Client(), 7, "a.b", "group")
    for name in Interest.__slots__:
        if name != "handler":
            assert hasattr(subscription, name), f"{name} is none of nats-py's any more"
    walks = "".join(
        inspect.getsource(function) for function in (Client._attempt_reconnect, Client._close)
    )
    used = set(re.findall(r"\bsub\.(\w+)", walks))
    assert {"_subject", "_queue", "_max_msgs"} <= used
    assert {name for name in used if not hasattr(interest, name)} == set()


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (command.pub_cmd("a.b", "", b"xy"), b"PUB a.b  2\r\nxy\r\n"),
        (command.pub_cmd("a.b", "r", b""), b"PUB a.b r 0\r\n\r\n"),
        (
            command.hpub_cmd("a", "r", b"NATS/1.0\r\nA: b\r\n\r\n", b"xy"),
            b"HPUB a r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nxy\r\n",
        ),
        (command.sub_cmd("a.*", "", 3), b"SUB a.*  3\r\n"),
        (command.sub_cmd("a.*", "group", 3), b"SUB a.* group 3\r\n"),
        (command.unsub_cmd(3, 0), b"UNSUB 3 \r\n"),
    ],
)
def test_commands_are_these_bytes(made: bytes, expected: bytes) -> None:
    assert made == expected


def test_a_transport_takes_lines_at_once_and_knows_its_socket() -> None:
    assert list(inspect.signature(Transport.writelines).parameters) == ["self", "payload"]
    assert not inspect.iscoroutinefunction(TcpTransport.writelines)
    assert inspect.iscoroutinefunction(TcpTransport.drain)
    assert "self._io_writer" in inspect.getsource(TcpTransport), "`cut` takes the socket from there"


async def test_a_server_tells_of_itself_and_answers_a_ping(bus: Bus) -> None:
    info = bus.server_info
    assert info["max_payload"] == 2097152 and info["version"].split(".")[0] == "2"
    assert 0 < await bus.ping(5) < 5


async def test_a_server_is_looked_at_once_and_why_not_is_told(server: NatsServer) -> None:
    told: list[str] = []
    options = BusOptions(["nats://127.0.0.1:9"], Subjects("shop"), "worker", "p1")
    with pytest.raises(Unusable, match=r"127\.0\.0\.1"):
        await Bus.once(options, 5, told.append)
    assert told
    # A port that takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = BusOptions(
            [f"nats://127.0.0.1:{silent.getsockname()[1]}"], Subjects("shop"), "worker", "p1"
        )
        with pytest.raises(Unusable, match=r"no answer within 0\.2 s"):
            await Bus.once(options, 0.2, lambda _: None)


# The bus


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: object) -> AsyncIterator[NatsServer]:
    folder: Path = tmp_path_factory.mktemp("bus")  # type: ignore[attr-defined]  # pytest's own
    async with nats_server(folder) as made:
        yield made


async def connected(server: NatsServer, subjects: Subjects) -> Bus:
    options = BusOptions([server.url], subjects, "publisher", secrets.token_hex(4))
    return await Bus.connect(options)


@pytest_asyncio.fixture
async def subjects() -> Subjects:
    return Subjects(f"bus-{secrets.token_hex(4)}")


@pytest_asyncio.fixture
async def bus(server: NatsServer, subjects: Subjects) -> AsyncIterator[Bus]:
    made = await connected(server, subjects)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def other(server: NatsServer, subjects: Subjects) -> AsyncIterator[Bus]:
    """Another process of the same app."""
    made = await connected(server, subjects)
    yield made
    await made.close()


class Ear:
    """A handler that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes, bytes]] = []

    def __call__(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        self.heard.append((subject, reply, data, headers))

    @property
    def data(self) -> list[bytes]:
        return [data for _, _, data, _ in self.heard]


REFUSING = """
listen: 127.0.0.1:{port}
authorization {{ users: [{{ user: u, password: p, permissions: {{ publish: {{ deny: ["no"] }} }} }}] }}
"""


async def test_an_error_callback_that_raises_ends_the_read_loop(tmp_path: Path) -> None:
    """Why `Bus._error` must never raise: the client hears nothing more, and does not know.

    If this fails, nats-py has mended it, and the care is no longer needed.
    """

    async def raises(error: Exception) -> None:
        raise RuntimeError("in the callback")

    async with nats_server(tmp_path / "nats", REFUSING) as server:
        url = server.url.replace("//", "//u:p@")
        client = await nats.connect(url, error_cb=raises, allow_reconnect=False)
        logging.getLogger("nats.aio.client").disabled = True  # it tells what we provoke
        try:
            await client.publish("no", b"")  # a permissions violation goes to the callback
            await client._flush_pending()
            assert client._reading_task is not None
            async with asyncio.timeout(DEADLINE):
                await asyncio.wait([client._reading_task])
            assert client.is_connected, "it thinks so"
        finally:
            logging.getLogger("nats.aio.client").disabled = False
            await client.close()


async def test_messages_arrive_in_the_order_in_which_they_were_published(
    bus: Bus, other: Bus
) -> None:
    ear = Ear()
    bus.subscribe("t.order.*", ear)
    await bus.round_trip()
    for number in range(500):
        other.publish(f"t.order.{number % 3}", b"%d" % number)
    await until(lambda: len(ear.heard) == 500, "all are heard")
    assert ear.data == [b"%d" % number for number in range(500)]


async def test_a_handler_gets_subject_reply_data_and_raw_headers(bus: Bus) -> None:
    ear = Ear()
    bus.subscribe("t.parts.>", ear)
    bus.publish("t.parts.a", b"plain")
    bus.publish("t.parts.b", b"\xff\x00\r\n", "reply.to", {"A": "b", "C": "grüß"})
    await bus.round_trip()
    assert ear.heard == [
        ("t.parts.a", "", b"plain", b""),
        ("t.parts.b", "reply.to", b"\xff\x00\r\n", "NATS/1.0\r\nA: b\r\nC: grüß\r\n\r\n".encode()),
    ]


async def test_a_subscription_is_in_force_for_what_is_published_after_it(bus: Bus) -> None:
    """On the same connection, without waiting."""
    ear = Ear()
    bus.subscribe("t.now", ear)
    bus.publish("t.now", b"heard")
    await bus.round_trip()
    assert ear.data == [b"heard"]


async def test_a_handler_that_raises_harms_nobody(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("a handler's own")

    ear = Ear()
    bus.subscribe("t.bad", raises)
    bus.subscribe("t.good", ear)
    bus.publish("t.bad", b"")
    bus.publish("t.good", b"still here")
    await bus.round_trip()
    assert ear.data == [b"still here"]
    assert "a handler of NATS messages failed" in caplog.text


async def test_a_header_with_a_line_break_is_refused(bus: Bus) -> None:
    with pytest.raises(ValueError, match="line break"):
        bus.publish("t.forged", b"", headers={"A": "b\r\nC: d"})


async def test_a_queue_group_shares_the_work(bus: Bus, other: Bus) -> None:
    ears = Ear(), Ear()
    bus.subscribe("t.work", ears[0], "group")
    other.subscribe("t.work", ears[1], "group")
    await asyncio.gather(bus.round_trip(), other.round_trip())
    for number in range(100):
        bus.publish("t.work", b"%d" % number)
    await until(lambda: len(ears[0].heard) + len(ears[1].heard) == 100, "all are taken")
    assert sorted(map(int, ears[0].data + ears[1].data)) == list(range(100))
    assert ears[0].heard and ears[1].heard


async def test_a_request_is_answered(bus: Bus, other: Bus) -> None:
    bus.subscribe("t.ask", lambda subject, reply, data, _: bus.publish(reply, data.upper()))
    await bus.round_trip()
    answers = await asyncio.gather(
        *(other.request("t.ask", b"a%d" % n, within=5) for n in range(9))
    )
    assert answers == [b"A%d" % n for n in range(9)]


async def test_a_request_that_nobody_hears_fails_at_once(bus: Bus) -> None:
    started = time.monotonic()
    with pytest.raises(NoResponders):
        await bus.request("t.nobody", b"?", within=30)
    assert time.monotonic() - started < 5


async def test_a_request_that_nobody_answers_times_out(bus: Bus) -> None:
    bus.subscribe("t.silent", Ear())
    with pytest.raises(TimeoutError):
        await bus.request("t.silent", b"?", within=0.05)
    assert bus._replies == {}, "nothing of it is kept"


async def test_a_round_trip_means_that_the_server_has_read_everything(bus: Bus, other: Bus) -> None:
    ear = Ear()
    bus.subscribe("t.trip", ear)
    await bus.round_trip()
    other.publish("t.trip", b"x")
    await other.round_trip()
    await bus.round_trip()
    assert ear.data == [b"x"]


async def test_store_returns_when_the_stream_has_it_and_knows_an_id_again(bus: Bus) -> None:
    await roomstreams.ensure(bus, "chat", History(10, 300), 1, False)
    subject = bus.subjects.log("chat", "-")
    first = await storing.store(bus, subject, b"one", {"Nats-Msg-Id": "a"})
    again = await storing.store(bus, subject, b"other bytes", {"Nats-Msg-Id": "a"})
    second = await storing.store(bus, subject, b"two", {"Nats-Msg-Id": "b"})
    assert (first.sequence, first.duplicate) == (1, False)
    assert (again.sequence, again.duplicate) == (1, True)
    assert (second.sequence, second.duplicate) == (2, False)
    assert (await roomlog.state(bus, bus.subjects.stream("chat"))).sequence == 2


async def test_what_is_stored_comes_back_on_the_live_subject(bus: Bus) -> None:
    await roomstreams.ensure(bus, "rooms.{room}", History(10, 300), 1, False)
    ear = Ear()
    bus.subscribe(bus.subjects.live("rooms.a", "b"), ear)
    await storing.store(
        bus, bus.subjects.log("rooms.a", "b"), b"x", {"Nats-Msg-Id": "a", "Fl-Type": "t"}
    )
    await until(lambda: ear.heard, "it is live")
    ((_, _, data, headers),) = ear.heard
    assert data == b"x"
    for header in (
        b"Fl-Type: t",
        b"Nats-Sequence: 1",
        b"Nats-Last-Sequence: 0",
        b"Nats-Time-Stamp",
    ):
        assert header in headers


async def test_a_room_without_a_stream_stores_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.storing.STORE_PATIENCE", 0.2)
    with pytest.raises(NotStored, match="no stream keeps it"):
        await storing.store(bus, bus.subjects.log("nowhere", "-"), b"x", {"Nats-Msg-Id": "a"})
    with pytest.raises(NotStored, match="does not answer"):
        await roomlog.state(bus, bus.subjects.stream("nowhere"))


async def test_leave_handles_what_is_on_its_way(bus: Bus, other: Bus) -> None:
    """What the group has given to one who leaves is handled there; the rest goes to the other."""
    leaving, staying = Ear(), Ear()
    interest = bus.subscribe("t.leave", leaving, "group")
    other.subscribe("t.leave", staying, "group")
    await asyncio.gather(bus.round_trip(), other.round_trip())
    for number in range(200):
        other.publish("t.leave", b"%d" % number)
    other._flush()
    await bus.leave([interest])
    taken = len(leaving.heard)
    await until(lambda: taken + len(staying.heard) == 200, "none is lost")
    assert sorted(map(int, leaving.data + staying.data)) == list(range(200))
    other.publish("t.leave", b"after")
    await until(lambda: staying.data[-1] == b"after", "the other takes what comes after")
    await bus.round_trip()
    assert len(leaving.heard) == taken


async def test_what_is_unsubscribed_is_not_heard(bus: Bus) -> None:
    ear = Ear()
    interest = bus.subscribe("t.off", ear)
    await bus.round_trip()
    bus.publish("t.off", b"on its way")
    bus.unsubscribe(interest)
    bus.unsubscribe(interest)  # twice does no harm
    await bus.round_trip()
    assert ear.heard == [] and interest._id not in bus._client._subs


async def test_the_last_words_go_out_before_the_close(
    server: NatsServer, subjects: Subjects, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """... and an end that was meant is not told as an outage."""
    ear = Ear()
    bus.subscribe("t.last", ear)
    await bus.round_trip()
    leaving = await connected(server, subjects)
    fell: list[str] = []
    leaving.on_down.append(lambda: fell.append("down"))
    leaving.publish("t.last", b"bye")
    await leaving.close()
    await until(lambda: ear.data == [b"bye"], "the last word is heard")
    assert fell == [] and "is away" not in caplog.text


def test_an_end_while_nats_is_away_is_an_end(tmp_path: Path) -> None:
    """On the loop of edges and workers: it raises where a socket that is closed is written to.

    What is still to be said then is said to nobody.
    """

    async def end() -> None:
        async with nats_server(tmp_path / "nats") as server:
            leaving = await connected(server, Subjects("leaving"))
            await server.stop()
            await until(lambda: not leaving.connected, "it knows that NATS is away")
            leaving.publish("t.last", b"bye")
            await leaving.close()

    uvloop.run(end())


async def test_cut_makes_the_server_forget_us_and_we_come_back(bus: Bus, other: Bus) -> None:
    """From any thread: the watchdog's has no loop."""
    ear = Ear()
    bus.subscribe("t.cut", ear)
    await bus.round_trip()
    happened: list[str] = []
    bus.on_down.append(lambda: happened.append("down"))
    bus.on_up.append(lambda: happened.append("up"))
    await asyncio.to_thread(bus.cut)
    await until(lambda: happened == ["down", "up"], "it is back")
    assert bus.connected and bus.down_since is None
    await bus.round_trip()
    other.publish("t.cut", b"again")
    await until(lambda: ear.data == [b"again"], "the subscription is back, too")


async def test_a_server_that_restarts_finds_everything_as_it_was(tmp_path: Path) -> None:
    """Subscriptions are repeated, what was published meanwhile goes out, in order, and once."""
    async with nats_server(tmp_path / "nats") as server:
        subjects = Subjects("restart")
        bus, other = [await connected(server, subjects) for _ in range(2)]
        ear, worker = Ear(), Ear()
        bus.subscribe("t.again", ear)
        bus.subscribe("t.work", worker, "group")
        await roomstreams.ensure(bus, "chat", History(10, 300), 1, False)
        assert bus.connected and bus.down_since is None
        await server.stop()
        await until(lambda: not (bus.connected or other.connected), "both know that it is away")
        assert bus.down_since is not None
        for number in range(3):
            bus.publish("t.again", b"%d" % number)
        stored = asyncio.create_task(
            storing.store(bus, subjects.log("chat", "-"), b"x", {"Nats-Msg-Id": "a"})
        )
        late = bus.subscribe("t.late", ear)
        await server.start()
        await until(lambda: bus.connected and other.connected, "both are back")
        assert (await stored).sequence == 1
        await bus.round_trip()
        other.publish("t.again", b"3")
        other.publish("t.late", b"4")
        other.publish("t.work", b"w")
        await until(lambda: len(ear.heard) >= 5 and worker.heard, "all are heard")
        await bus.round_trip()
        assert ear.data == [b"0", b"1", b"2", b"3", b"4"], (
            "a subscription repeated twice counts once"
        )
        assert worker.data == [b"w"]
        assert late._id in bus._client._subs
        info = orjson.loads(
            await bus.request(f"$JS.API.STREAM.INFO.{subjects.stream('chat')}", b"", within=5)
        )
        assert info["state"]["messages"] == 1
        await bus.close()
        await other.close()


async def test_an_error_that_ends_nats_py_for_good_does_not_end_the_bus(
    bus: Bus, subjects: Subjects
) -> None:
    """nats-py closes on any -ERR that it doesn't know; we connect anew, and hear again."""
    heard = asyncio.Queue[bytes]()
    subject = subjects.beat("w")
    bus.subscribe(subject, lambda _, __, data, ___: heard.put_nowait(data))
    up = asyncio.Event()
    bus.on_up.append(up.set)
    bus._send(b"NONSENSE\r\n")
    async with asyncio.timeout(DEADLINE):
        await up.wait()
        bus.publish(subject, b"again")
        assert await heard.get() == b"again"


# More than NATS takes


async def test_a_message_that_nats_would_end_the_connection_for_is_not_sent(bus: Bus) -> None:
    with pytest.raises(TooLarge, match="3145728 bytes; NATS takes 2097152"):
        bus.publish("t.large", bytes(3 * 1024 * 1024))
    await bus.round_trip()
    assert bus.reconnects == 0


async def test_who_subscribes_while_a_connection_is_made_anew_takes_nobodys_place(
    tmp_path: Path,
) -> None:
    """The answers to all requests come on the first subscription."""
    async with nats_server(tmp_path) as server:
        bus = await Bus.connect(BusOptions([server.url], Subjects("t"), "edge", "e1"))
        try:
            # nats-py does not know this error, and gives up.
            bus._send(command.pub_cmd("t.large", "", bytes(3 * 1024 * 1024)))
            await until(lambda: bus._starting_over is not None, "NATS has ended the connection")
            old = bus._client
            await server.stop()
            await until(lambda: bus._client is not old, "it is made anew, and NATS is away")
            heard: list[bytes] = []
            bus.subscribe("t.meanwhile", lambda subject, reply, data, headers: heard.append(data))
            await server.start()
            async with asyncio.timeout(DEADLINE):
                await bus.ready()
            await bus.round_trip()
            bus.publish("t.meanwhile", b"here")
            await until(lambda: heard == [b"here"], "the new one hears, too")
        finally:
            await bus.close()
