"""`execute(ctx)`: one run for a connection, which outlives the workers that it runs on."""
# ruff: noqa: ASYNC110, ASYNC240 -- files are how a workflow in another process speaks with the test

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from fairlead.testing.program import DEADLINE, SLOWER
from support.system import V1, Edge, Process, System, Worker, until

COUNTER = "/support/realtime/counter"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the workflows of connections.py note; a worker gets the folder as NOTES."""
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


async def started(app: System, tmp_path: Path) -> tuple[Edge, Worker]:
    edge, worker = await asyncio.gather(
        app.edge(), app.worker("connections.py", env={"NOTES": str(tmp_path)})
    )
    await edge.serves("/support/realtime/echo")
    return edge, worker


async def noted(notes: Path, line: str, times: int = 1) -> None:
    await until(lambda: notes.read_text().count(line) >= times, f"{line!r} in the notes")


async def test_a_client_reads_its_own_messages(app: System, tmp_path: Path) -> None:
    """The seed's echo: `return ctx.channel`; text stays text, bytes stay bytes."""
    edge, _ = await started(app, tmp_path)
    async with edge.raw("/support/realtime/echo") as client:
        for said in ("one", b"\x00two", "", "x" * 100_000):
            await client.send(said)
            assert await client.recv() == said


async def test_messages_are_acknowledged_when_the_next_is_asked_for(
    app: System, tmp_path: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.v1("/support/realtime/slow") as client:
        refs = [await client.send(f"m{n}") for n in range(3)]
        (tmp_path / "go").touch()
        frames = [await client.next() for _ in range(6)]
    assert [f["data"] for f in frames if f["type"] == "message"] == ["1 m0", "1 m1", "1 m2"]
    assert [f["ref"] for f in frames if f["type"] == "ack"] == refs
    for ref, data in zip(refs, ("1 m0", "1 m1", "1 m2"), strict=True):
        said = next(i for i, f in enumerate(frames) if f.get("data") == data)
        assert frames[said + 1] == {"type": "ack", "ref": ref}, "the ack is the last for its ref"


async def test_an_end_closes_with_1000_and_a_v1_client_hears_it_before(
    app: System, tmp_path: Path, notes: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client:
        first = await client.until("message", data="open 1")
        ref = await client.send("end")
        assert await client.until("ack") == {"type": "ack", "ref": ref}
        assert await client.next() == {"type": "end", "run": first["run"]}
        await client.socket.wait_closed()
        assert client.socket.close_code == 1000
    async with edge.raw(COUNTER) as raw:
        await raw.send("end")
        assert await raw.recv() == "open 1"
        with pytest.raises(ConnectionClosed):
            await raw.recv()
        assert raw.close_code == 1000


async def test_a_run_that_ends_at_once_and_says_nothing_closes_its_client(
    app: System, tmp_path: Path
) -> None:
    """Its end may be here before the client has the 101."""
    edge, _ = await started(app, tmp_path)
    async with asyncio.timeout(DEADLINE):
        for _ in range(20):
            async with edge.raw("/support/realtime/brief") as client:
                await client.wait_closed()
                assert client.close_code == 1000


@pytest.mark.parametrize(
    ("said", "status", "detail"),
    [("raise", 500, "execute failed"), ("reject", 403, "go away"), ("nobody", 404, "'nobody'")],
)
async def test_what_execute_raises_is_an_error_frame_and_1011(
    app: System, tmp_path: Path, said: str, status: int, detail: str
) -> None:
    """A `Reject`, or a `NoSuchPeer` that it did not catch, with its own status; raw clients too."""
    edge, _ = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client, edge.raw(COUNTER) as raw:
        await client.send(said)
        await raw.send(said)
        assert await raw.recv() == "open 1"
        for socket, frame in (
            (client.socket, await client.until("error")),
            (raw, json.loads(await raw.recv())),
        ):
            assert frame.keys() == {"type", "error"}, "it is the run's end, not one message's"
            assert frame["error"]["status"] == status
            assert detail in frame["error"]["detail"]
            assert "secret" not in json.dumps(frame)
            await socket.wait_closed()
            assert socket.close_code == 1011
            assert frame["error"]["trace"] in (socket.close_reason or "")


async def test_messages_that_an_ended_run_did_not_read_are_said_to_be_unread(
    app: System, tmp_path: Path
) -> None:
    edge, worker = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client:
        worker.freeze()  # so that both are there when it reads the first
        await client.send("end")
        unread = await client.send("too late")
        await client.say(type="nothing")
        await client.until("error")
        worker.thaw()
        error = await client.until("error")
        assert (error["ref"], error["error"]["status"]) == (unread, 409)
        await client.until("end")


@pytest.mark.parametrize("path", ["silent", "counter", "endless", "tiny"])
async def test_a_client_that_leaves_ends_its_run_within_100_ms(
    app: System, tmp_path: Path, notes: Path, path: str
) -> None:
    """`finally` runs: also of a generator that never yields, and of one that never waits."""
    edge, _ = await started(app, tmp_path)
    took: dict[str, list[float]] = {"cut off": [], "closes": [], "closes v1": []}
    for number, how in enumerate(list(took) * 5, 1):
        connecting = edge.v1 if how == "closes v1" else edge.raw
        async with connecting(f"/support/realtime/{path}") as client:
            socket = client.socket if isinstance(client, V1) else client
            await noted(notes, "open", number)
            left = time.monotonic()
            closing: asyncio.Task[None] | None = None
            if how == "cut off":
                socket.transport.abort()
            else:
                closing = asyncio.create_task(socket.close())
            async with asyncio.timeout(DEADLINE):
                while notes.read_text().count("closed") < number:
                    await asyncio.sleep(0.001)
            took[how].append(time.monotonic() - left)
            if closing is not None:
                socket.transport.abort()  # who has not read all does not see the answering close
                await closing
    assert max(map(statistics.median, took.values())) < 0.1 * SLOWER, took


async def test_a_generator_that_never_waits_does_not_hold_the_others(
    app: System, tmp_path: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.raw("/support/realtime/tiny"), edge.raw("/support/realtime/echo") as client:
        for n in range(20):
            await client.send(str(n))
            assert await client.recv() == str(n)


async def test_one_that_swallows_its_cancellation_ends_at_its_next_item(
    app: System, tmp_path: Path, notes: Path
) -> None:
    edge, worker = await started(app, tmp_path)
    async with edge.raw("/support/realtime/stubborn") as client:
        await client.recv()
    await noted(notes, "stubborn swallowed")
    assert await worker.stop() == 0, "nothing is left that would hold it"


async def test_a_run_can_be_cancelled_by_its_client(
    app: System, tmp_path: Path, notes: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client:
        run = (await client.until("message"))["run"]
        await client.say(type="cancel", run="another")
        assert (await client.until("error"))["error"]["status"] == 404
        await client.say(type="cancel", run=run)
        assert await client.until("end") == {"type": "end", "run": run}
        await client.socket.wait_closed()
        assert client.socket.close_code == 1000
    await noted(notes, "closed")


async def test_a_message_that_was_not_read_yet_can_be_cancelled(
    app: System, tmp_path: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.v1("/support/realtime/slow") as client:
        await client.send("first")
        second = await client.send("second")
        await client.send("third")
        await client.say(type="cancel", ref=second)
        error = await client.until("error")
        assert (error["ref"], error["error"]["status"]) == (second, 499)
        (tmp_path / "go").touch()
        assert (await client.until("message"))["data"] == "1 first"
        assert (await client.until("message"))["data"] == "1 third"


async def test_a_room_hears_what_its_members_runs_say(app: System, tmp_path: Path) -> None:
    """Also a good-bye that is said in `finally`, when the client is gone."""
    edge, _ = await started(app, tmp_path)
    async with edge.v1("/support/realtime/rooms/blue") as ann:
        assert (await ann.until("message"))["data"] == {"joined": 1}
        async with edge.v1("/support/realtime/rooms/blue") as bob:
            assert (await ann.until("message"))["from"] == bob.id
            await bob.send("hi")
            heard = await ann.until("message", data="hi")
            assert heard["from"] == bob.id
            bob_id = bob.id
        assert (await ann.until("message"))["data"] == {"left": bob_id}


async def test_a_message_that_is_sent_again_with_its_id_is_in_the_room_once(
    app: System, tmp_path: Path
) -> None:
    """Also over another connection, and so in another run."""
    edge, _ = await started(app, tmp_path)
    path = "/support/realtime/rooms/blue"
    async with edge.v1(path) as listener:
        for said in ("first", "again"):
            async with edge.v1(path) as client:
                await client.send("hi", id="0123")
                await client.send(said)
                await client.until("message", data=said)
        heard: list[object] = []
        while not heard or heard[-1] != "again":
            heard.append((await listener.until("message"))["data"])
    assert heard.count("hi") == 1


async def test_a_slow_client_reads_all_that_its_run_said_before_the_end(
    app: System, tmp_path: Path, notes: Path
) -> None:
    """The close comes after the items, however long these take.

    Sizes grow until a run cannot end without a reader: with the one before, the last items
    waited on the edge when the run had ended.
    """
    edge, _ = await started(app, tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for size in range(180_000, 20_000_000, 180_000):
            client = await stack.enter_async_context(
                edge.raw("/support/realtime/large", max_queue=1)
            )
            client.transport.pause_reading()
            await client.send(str(size))
            if not await _noted_soon(notes, f"large {size} done"):
                client.transport.abort()
                break
            clients.append((size, client))
        for size, client in clients:
            client.transport.resume_reading()
            heard = 0
            with pytest.raises(ConnectionClosed):
                while True:
                    heard += len(await client.recv())
            assert (heard, client.close_code) == (size, 1000)
        assert clients


async def _noted_soon(notes: Path, line: str) -> bool:
    """Whether it is noted within a second."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while line not in notes.read_text():
                await asyncio.sleep(0.005)
            return True
    return False


class Talker:
    """Sends 0, 1, 2 … to a connection's echo and checks what comes back."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.stop = False
        self.acked: list[int] = []
        self.echoed: list[str] = []
        self.sent = 0
        self.restarts = 0

    async def run(self) -> None:
        async with self.edge.v1("/support/realtime/echo") as client:
            window = asyncio.Semaphore(16)

            async def listen() -> None:
                while True:
                    frame = await client.next()
                    if frame["type"] == "ack":
                        self.acked.append(frame["ref"])
                        window.release()
                    elif frame["type"] == "message":
                        self.echoed.append(frame["data"])
                    elif frame["type"] == "restart":
                        self.restarts += 1
                    else:
                        raise AssertionError(frame)

            listening = asyncio.create_task(listen())
            while not self.stop:
                await window.acquire()
                await client.send(str(self.sent))
                self.sent += 1
                await asyncio.sleep(0.002)
            await until(lambda: len(self.acked) == self.sent, "every message is acknowledged")
            listening.cancel()

    def check(self) -> None:
        """Each is acknowledged once and in order; each came back, and what is twice was said to be."""
        assert self.acked == list(range(1, self.sent + 1))
        assert set(self.echoed) == {str(n) for n in range(self.sent)}
        assert len(self.echoed) - self.sent <= 16 * self.restarts


async def drained(worker: Worker) -> Process:
    await worker.stop()
    return worker


@pytest.mark.parametrize("how", ["drained", "killed", "frozen"])
async def test_a_lost_worker_opens_the_run_elsewhere_and_the_socket_stays(
    app: System, tmp_path: Path, how: str
) -> None:
    """`attempt` grows, what was not acknowledged is replayed, v1 is told of the restart."""
    edge, first = await started(app, tmp_path)
    talkers = [Talker(edge) for _ in range(4)]
    async with edge.v1(COUNTER) as client, asyncio.TaskGroup() as tasks:
        opened = await client.until("message", data="open 1")
        for talker in talkers:
            tasks.create_task(talker.run())
        await until(lambda: all(len(t.acked) > 20 for t in talkers), "they talk")
        await app.worker("connections.py", env={"NOTES": str(tmp_path)})
        if how == "drained":
            await first.stop()
        elif how == "killed":
            first.kill()
        else:
            first.freeze()
        restart = await client.until("restart", run=opened["run"])
        # Attempts that meet the frozen one count, too.
        assert restart["attempt"] == 2 if how != "frozen" else restart["attempt"] >= 2
        await client.until("message", data=f"open {restart['attempt']}")
        # One that thaws before its runs are given up keeps them.
        await until(lambda: all(t.restarts for t in talkers), "all of them run elsewhere")
        if how == "frozen":
            first.thaw()
        seen = [len(t.acked) for t in talkers]
        await until(
            lambda: all(len(t.acked) > s + 20 for t, s in zip(talkers, seen, strict=True)),
            "they talk on",
        )
        for talker in talkers:
            talker.stop = True
        await client.send("hello")
        assert (await client.until("message"))["data"] == "1 hello"
    for talker in talkers:
        talker.check()
        assert talker.restarts == 1


async def test_a_raw_client_talks_on_when_its_worker_is_killed(app: System, tmp_path: Path) -> None:
    """It is told of no restart; what it says meanwhile is read by the next attempt."""
    edge, first = await started(app, tmp_path)
    async with edge.raw("/support/realtime/echo") as client:
        await client.send("before")
        assert await client.recv() == "before"
        await app.worker("connections.py", env={"NOTES": str(tmp_path)})
        first.kill()
        for said in ("meanwhile", "after"):
            await client.send(said)
            async with asyncio.timeout(DEADLINE):
                assert await client.recv() == said


async def test_a_frozen_worker_that_thaws_says_nothing_more_for_the_run(
    app: System, tmp_path: Path, notes: Path
) -> None:
    edge, first = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client:
        await client.until("message", data="open 1")
        first.freeze()
        await app.worker("connections.py", env={"NOTES": str(tmp_path)})
        attempt = (await client.until("restart"))["attempt"]
        await client.until("message", data=f"open {attempt}")
        first.thaw()
        await noted(notes, "closed")  # the first attempt's `finally`
        await client.send("x")
        assert (await client.until("message"))["data"] == "1 x"


async def test_without_any_worker_the_client_is_told_to_come_back_later(
    app: System, tmp_path: Path
) -> None:
    """503 before the accept; 1013 for a run that no worker takes over in time."""
    worker = await app.worker("connections.py", env={"NOTES": str(tmp_path)})
    edge = await app.edge("--worker-wait", "1s")
    await edge.serves("/support/realtime/echo")
    async with edge.v1(COUNTER) as client:
        await client.until("message")
        await worker.stop()
        assert (await client.until("error"))["error"]["status"] == 503
        await client.socket.wait_closed()
        assert client.socket.close_code == 1013
    with pytest.raises(Exception, match="503"):
        await edge.raw(COUNTER)


async def test_runs_end_when_their_edge_is_killed(app: System, tmp_path: Path, notes: Path) -> None:
    edge, _ = await started(app, tmp_path)
    async with (
        edge.raw("/support/realtime/silent"),
        edge.raw("/support/realtime/endless") as client,
    ):
        await client.recv()
        edge.kill()
        with pytest.raises(ConnectionClosed):
            while True:
                await client.recv()
    async with asyncio.timeout(20):  # two censuses, 5 s apart
        while not {"silent closed", "endless closed"} <= {
            line.rsplit(" after")[0] for line in notes.read_text().splitlines()
        }:
            await asyncio.sleep(0.05)


async def test_2000_connections_run_on_one_worker(app: System, tmp_path: Path) -> None:
    edge, _ = await started(app, tmp_path)

    async def one(number: int) -> None:
        async with slots:
            client = await edge.raw("/support/realtime/echo", open_timeout=DEADLINE)
        clients.append(client)

    slots, clients = asyncio.Semaphore(50), []  # type: ignore[var-annotated]
    await asyncio.gather(*(one(n) for n in range(2000)))
    try:
        await asyncio.gather(*(client.send(str(n)) for n, client in enumerate(clients)))
        heard = await asyncio.gather(*(client.recv() for client in clients))
        assert heard == [str(n) for n in range(2000)]
        async with edge.v1("/support/realtime/burst") as client:
            await client.send("3")
            await client.until("ack")  # messages are not held up by them
    finally:
        for client in clients:
            client.transport.abort()


async def test_an_edge_that_is_drained_ends_its_runs_and_its_clients_come_back(
    app: System, tmp_path: Path, notes: Path
) -> None:
    edge, _ = await started(app, tmp_path)
    async with edge.v1(COUNTER) as client:
        await client.until("message")
        stopped = asyncio.create_task(edge.stop())
        await client.until("reconnect")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012
        assert await stopped == 0
    await noted(notes, "closed")
