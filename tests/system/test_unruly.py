"""What user code does and should not: each message has one answer, and what a worker hands over goes on."""
# ruff: noqa: ASYNC240 -- files are how a workflow in another process speaks with the test

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from nats import connect

from fairlead.protocol import envelope
from fairlead.protocol.envelope import Control
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.system import Edge, NatsServer, System, Worker, nats_server, system, until

PATH = "/unruly/v1/"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the workflows of unruly.py note."""
    monkeypatch.setenv("NOTES", str(tmp_path))
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


async def started(app: System, *flags: str) -> tuple[Edge, Worker]:
    edge, worker = await asyncio.gather(app.edge(), app.worker("unruly.py", *flags))
    await edge.serves(PATH + "numbers")
    return edge, worker


async def answer(edge: Edge, name: str, data: Any) -> dict[str, Any]:
    """The problem that a message is answered with."""
    async with edge.v1(PATH + name) as client:
        ref = await client.send(data)
        error: dict[str, Any] = (await client.until("error", ref=ref))["error"]
        return error


# One answer


async def test_whatever_is_raised_is_one_answer(app: System, notes: Path) -> None:
    edge, worker = await started(app)
    wrong = await answer(edge, "numbers", ["a"] * 200_000)
    assert wrong["status"] == 400
    assert wrong["errors"] == [
        {
            "loc": [],
            "msg": "200000 errors, which are too many to be listed; at most 100 are",
            "type": "too_many_errors",
        }
    ]
    wrong = await answer(edge, "named", {"k" * 500_000: "no number"})
    assert wrong["errors"][0]["loc"] == ["k" * 200 + "…"]
    assert (await answer(edge, "halves", "raise"))["status"] == 500
    assert (await answer(edge, "halves", "reject"))["detail"] == "unknown: ?"
    assert (await answer(edge, "books", ""))["detail"] == "x" * 8192 + "…"
    assert (await answer(edge, "mute", ""))["status"] == 500
    assert (await answer(edge, "foreign", ""))["status"] == 500
    assert (await answer(edge, "found", "carl"))["status"] == 500
    async with edge.v1(PATH + "found") as client:
        await client.send("ben")
        assert await client.hears() == "ben", "its thread is free again"
    assert notes.read_text().split("\n") == ["halves 1", "halves 1", "foreign 1", ""]
    assert not [line for line in worker.program.lines if "error of ours" in line]


async def test_a_message_that_its_client_cancels_has_been_cancelled_whatever_it_raises_then(
    app: System, notes: Path
) -> None:
    edge, worker = await started(app)
    async with edge.v1(PATH + "driver") as client:
        ref = await client.send("x")
        await until(lambda: "driver 1" in notes.read_text(), "it is executed")
        await client.say(type="cancel", ref=ref)
        assert (await client.until("error", ref=ref))["error"]["status"] == 499
    await worker.says("a run raised while it was ended")


async def test_several_tasks_of_a_run_may_say_more_than_its_client_has_read(app: System) -> None:
    """3 MB; it may be 256 KiB ahead."""
    edge, _ = await started(app)
    async with edge.v1(PATH + "three") as client:
        await client.send("go")
        heard = [(await client.hears()).split()[:2] for _ in range(30)]
        await client.until("end")
    for name in "abc":
        assert [number for who, number in heard if who == name] == [str(n) for n in range(10)]


# What is handed over


@pytest.mark.parametrize("name", ["swallows", "raises"])
async def test_a_connection_goes_on_elsewhere_whatever_its_run_makes_of_the_end(
    app: System, notes: Path, name: str
) -> None:
    edge, worker = await started(app)
    async with edge.v1(PATH + name) as client:
        await client.until("message", data="open 1")
        await app.worker("unruly.py")
        assert await worker.stop() == 0
        await client.until("restart", attempt=2)
        await client.until("message", data="open 2")
        await client.send("still here")
        await client.until("message", data="still here")


async def test_a_message_that_is_cut_at_the_end_of_the_grace_is_executed_elsewhere(
    app: System, notes: Path
) -> None:
    edge, worker = await started(app, "--drain-grace", "200ms")
    async with edge.v1(PATH + "driver") as client:
        ref = await client.send("x")
        await until(lambda: "driver 1" in notes.read_text(), "it is executed")
        await app.worker("unruly.py")
        assert await worker.stop() == 0
        assert (await client.until("ack"))["ref"] == ref


async def test_a_kept_run_goes_on_elsewhere_whatever_it_raises_at_the_end(app: System) -> None:
    edge, worker = await started(app, "--drain-grace", "200ms")
    async with edge.events(PATH + "kept") as stream:
        while (event := await stream.next()).get("data") != '"attempt 1"':
            assert event.get("event") != "error"
        await app.worker("unruly.py")
        assert await worker.stop() == 0
        while (event := await stream.next()).get("data") != '"attempt 2"':
            assert event.get("event") != "error", event


async def test_a_room_goes_on_elsewhere_though_its_run_swallows_the_end(
    app: System, notes: Path
) -> None:
    edge, worker = await started(app)
    async with edge.v1(PATH + "ticks/blue") as client:
        assert (await client.hears())["worker"] == worker.pid
        other = await app.worker("unruly.py")
        assert await worker.stop() == 0
        async with asyncio.timeout(DEADLINE):
            while (await client.hears())["worker"] != other.pid:
                pass
    assert "ticks has cleaned up" in notes.read_text()


async def test_a_room_whose_run_is_cancelled_between_two_tries_is_over(
    app: System, notes: Path
) -> None:
    """As one whose run has returned: no other worker begins it again, until the room was empty."""
    edge, worker = await started(app)
    async with edge.v1(PATH + "fails/blue") as client:
        await until(lambda: "fails 2" in notes.read_text(), "it is in the second pause")
        await cancelled(app, worker, "fails", "blue")
        tries = notes.read_text()
        await app.worker("unruly.py")
        assert await worker.stop() == 0
        # Who looks for a runner is told so, and so are those who come.
        async with edge.v1(PATH + "fails/blue") as another:
            await another.say(type="nothing")
            await another.until("error")
        await client.say(type="nothing")
        await client.until("error")
    assert notes.read_text() == tries


async def cancelled(app: System, worker: Worker, topic: str, room: str) -> None:
    """End a room's run, as the console does."""
    line = json.loads(await worker.says(".*worker serves.*"))
    subjects = Subjects(app.app)
    subject = subjects.seek("unruly", topic, f"{topic}.{room}", "-")
    client = await connect(app.nats.url)
    try:
        word = envelope.control(Control.CANCEL, "room", data=subject.encode())
        await client.publish(subjects.worker(line["instance"]), word)
        await client.flush()
    finally:
        await client.close()


# A stop while NATS is away


async def test_what_is_in_hand_has_its_grace_while_nats_is_away(
    tmp_path: Path, notes: Path
) -> None:
    """An outage of 7 s, which begins before SIGTERM."""
    async with nats_server(tmp_path / "nats") as nats, system(nats, tmp_path) as app:
        await stopped_meanwhile(app, nats, notes)


async def stopped_meanwhile(app: System, nats: NatsServer, notes: Path) -> None:
    edge, worker = await started(app)
    async with edge.v1(PATH + "swallows") as client:
        await client.until("message", data="open 1")
        await nats.stop()
        await worker.says("NATS is away")
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(7)  # the outage itself: longer than a farewell to NATS is waited for
        await nats.start()
        await app.worker("unruly.py")
        assert await stopping == 0
        await client.until("message", data="open 2")
    assert "Traceback" not in "".join(worker.program.lines)
