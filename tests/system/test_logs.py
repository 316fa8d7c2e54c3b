"""What stands on the lines that processes write: of their own, and of the functions they run."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from support.system import Edge, Process, System, Worker, until

PROJECT = "talkative.py"


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.program.lines]


@pytest_asyncio.fixture
async def worker(app: System) -> AsyncIterator[Worker]:
    yield await app.worker(PROJECT)


@pytest_asyncio.fixture
async def edge(app: System, worker: Worker) -> AsyncIterator[Edge]:
    edge = await app.edge()
    await edge.serves("/shop/v1/stream")
    yield edge


async def those(worker: Worker, text: str, number: int) -> list[dict[str, Any]]:
    """So many lines that begin with a text, once they are there."""

    def found() -> list[dict[str, Any]]:
        return [line for line in lines(worker) if line["msg"].startswith(text)]

    await until(lambda: len(found()) >= number, f"{number} times {text!r}")
    return found()


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("function", ["a function", "a task", "a thread of its own"]),
        ("plain", ["a plain function"]),
        ("steps", ["a plain generator", "its second step"]),
        ("connection", ["a run of a connection"]),
    ],
)
async def test_a_line_within_execute_carries_its_run(
    edge: Edge, worker: Worker, path: str, texts: list[str]
) -> None:
    """By whichever logger it is written, in tasks and in threads."""
    async with edge.v1(f"/shop/v1/{path}") as one, edge.v1(f"/shop/v1/{path}") as other:
        for client in (one, other):
            await client.send("x")
        expected = [await client.hears() for client in (one, other)]
        for client in (one, other):
            if path != "connection":
                await client.until("ack")
    for text in texts:
        found = await those(worker, f"{text}, by", 4)
        kinds = sorted(line["msg"].rpartition(" ")[2] for line in found)
        assert kinds == ["logging", "logging", "structlog", "structlog"]
        for line in found:
            ids = {name: line[name] for name in ("trace_id", "run", "connection")}
            assert ids in expected
            rest = {"workflow": f"Shop/{path}", "attempt": 1, "logger": "shop", "item": 7}
            rest |= {"process": "worker", "level": "info"}
            assert rest.items() <= line.items()
    assert expected[0]["run"] != expected[1]["run"]


async def test_so_does_one_of_a_stream_and_of_its_policies(edge: Edge, worker: Worker) -> None:
    async with edge.events("/shop/v1/stream") as stream:
        ids = json.loads((await stream.next())["data"])
    assert stream.headers["fairlead-trace"].split("-")[1] == ids["trace_id"]
    for text in ("a policy", "a stream"):
        for line in await those(worker, f"{text}, by", 2):
            assert ids.items() <= line.items()


async def test_the_run_of_a_room_is_named_without_what_a_client_chose(
    edge: Edge, worker: Worker
) -> None:
    async with edge.v1("/shop/v1/shared/attic?channel=secret") as client:
        ids = await client.hears()
    line, *_ = await those(worker, "a run of a room", 2)
    assert line["trace_id"] == ids["trace_id"]
    assert line["topic"] == "shared.{room}"
    assert re.fullmatch(r"shared\.[0-9a-f]{8}", line["run"])
    assert not {"attic", "secret"} & set(re.findall(r"\w+", str(line)))


async def test_what_execute_raises_is_a_line_with_the_place_and_without_the_words(
    edge: Edge, worker: Worker
) -> None:
    async with edge.v1("/shop/v1/fails") as client:
        await client.send("what was said")
        error = (await client.until("error"))["error"]
    (line,) = await those(worker, "execute failed", 1)
    assert line["trace_id"] == error["trace"]
    assert line["workflow"] == "Shop/fails"
    assert 'talkative.py", line' in line["exception"]
    assert line["exception"].endswith("\nLookupError")
    assert "what was said" not in str(lines(worker))


async def test_a_flood_of_failures_is_counted(edge: Edge, worker: Worker) -> None:
    async with edge.v1("/shop/v1/fails") as client:
        for _ in range(30):
            for _ in range(10):
                await client.send("x")
            for _ in range(10):
                await client.until("error")
    await until(lambda: any("more" in line for line in lines(worker)), "the rest is counted")
    failures = await those(worker, "execute failed", 1)
    assert sum(line.get("more", 1) for line in failures) == 300
    assert len(failures) < 300


async def test_every_line_of_every_process_has_the_same_first_fields(
    app: System, edge: Edge, worker: Worker
) -> None:
    async with edge.v1("/shop/v1/function") as client:
        await client.send("x")
        await client.hears()
    await asyncio.gather(edge.stop(), worker.stop())
    for process, role in ((edge, "edge"), (worker, "worker")):
        (instance,) = {line["instance"] for line in lines(process)}
        assert re.fullmatch("[0-9a-f]{8}", instance)
        for line in lines(process):
            assert list(line)[:6] == ["ts", "level", "logger", "msg", "process", "instance"]
            assert line["process"] == role
    said = [line["msg"] for line in lines(edge)]
    assert said == [
        "admin port",
        "edge listens on",
        "routes are served",
        "draining",
        "edge stopped",
    ]


async def test_a_level_is_told_by_flag_or_variable(app: System) -> None:
    worker = await app.worker(PROJECT, ready=False, env={"FAIRLEAD_LOG_LEVEL": "warning"})
    edge = app.start("edge", "--port", "0", "--admin-port", "none", "--log-level", "error")
    quiet = await app.edge()
    await quiet.serves("/shop/v1/stream")
    async with quiet.v1("/shop/v1/function") as client:
        await client.send("x")
        await client.hears()
    await asyncio.gather(worker.stop(), edge.stop())
    assert (worker.program.lines, edge.program.lines) == ([], [])


async def test_in_dev_lines_are_for_people(app: System) -> None:
    worker = await app.worker(PROJECT, ready=False, env={"FAIRLEAD_DEV": "1"})
    edge = await app.edge()
    await edge.serves("/shop/v1/stream")
    async with edge.v1("/shop/v1/fails") as client:
        await client.send("what was said")
        await client.until("error")
    await worker.says("^LookupError: what was said$")
    await worker.says(
        r"^\d\d:\d\d:\d\d\.\d{3} worker  ERROR execute failed workflow=Shop/fails run=\S+ trace_id=\w{32}$"
    )
