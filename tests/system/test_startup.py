"""How a process starts, or says why it does not, and how it stops when it has nothing to do."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from support.cluster import Cluster
from support.system import (
    CONFIG,
    MS,
    PROJECTS,
    NatsServer,
    Process,
    System,
    nats_server,
    request,
    system,
    until,
)

EVERYTHING = str(PROJECTS / "everything.py")
PROCESSES = {
    "edge": ("edge", "--port", "0", "--admin-port", "0"),
    "worker": ("worker", EVERYTHING, "--admin-port", "0"),
}


@pytest_asyncio.fixture
async def nowhere(tmp_path: Path) -> AsyncIterator[System]:
    """An app whose NATS URL leads to a port where nothing listens."""
    async with system(NatsServer(tmp_path / "nats", CONFIG), tmp_path) as app:
        yield app


def messages(process: Process) -> list[str]:
    """What its log says, and why, without what is around it."""
    lines = [json.loads(line) for line in process.program.lines]
    return [" ".join(filter(None, (line["msg"], line.get("reason")))) for line in lines]


async def admin(process: Process, path: str) -> int:
    """The status of its admin port."""
    await process.says("admin port")
    (port,) = [json.loads(line)["port"] for line in process.program.lines if "admin port" in line]
    return (await request(f"http://127.0.0.1:{port}{path}"))[0]


def start_both(app: System) -> list[Process]:
    """An edge and a worker at once; what holds for one holds for the other."""
    return [app.start(*argv) for argv in PROCESSES.values()]


# A NATS that is no use


async def test_a_max_payload_that_is_too_small_is_told_with_both_figures(tmp_path: Path) -> None:
    config = CONFIG.replace("2097152", "1048576")
    async with nats_server(tmp_path / "nats", config) as nats, system(nats, tmp_path) as app:
        for process in start_both(app):
            assert await process.ended() == 1
            last = messages(process)[-1]
            assert "1048576 bytes" in last and "1114112 bytes" in last and "max_payload" in last
            assert f"127.0.0.1:{nats.port}" in last
            assert "Traceback" not in "".join(process.program.lines)


async def test_a_max_payload_of_64_kib_more_than_a_message_will_do(tmp_path: Path) -> None:
    config = CONFIG.replace("2097152", "1114112")
    async with nats_server(tmp_path / "nats", config) as nats, system(nats, tmp_path) as app:
        for process in start_both(app):
            await until(partial(ready, process), "it is ready")


async def ready(process: Process) -> bool:
    return await admin(process, "/readyz") == 200


async def test_a_nats_without_jetstream_is_told(tmp_path: Path) -> None:
    config = "listen: 127.0.0.1:{port}\nmax_payload: 2097152\n"
    async with nats_server(tmp_path / "nats", config) as nats, system(nats, tmp_path) as app:
        for process in start_both(app):
            assert await process.ended() == 1
            assert "no JetStream" in messages(process)[-1]
            assert "Traceback" not in "".join(process.program.lines)


async def test_a_nats_url_where_nothing_listens_is_tried_on_and_on(nowhere: System) -> None:
    """One line each 5 s that names it; alive, but not ready; told to stop it does so at once."""
    await asyncio.gather(*(tries_on(process, nowhere) for process in start_both(nowhere)))


async def tries_on(process: Process, nowhere: System) -> None:
    line = f'does not answer.*"server":"{nowhere.nats.url}"'
    await process.says(line)
    started = time.monotonic()
    assert await admin(process, "/livez") == 200
    assert await admin(process, "/readyz") == 503
    before = len(process.program.lines)
    await process.says(line, before)
    assert 4 < time.monotonic() - started < 8, "the next line comes about 5 s later"
    assert sum("does not answer" in each for each in messages(process)) == 2
    stopping = time.monotonic()
    assert await process.stop() == 0
    assert time.monotonic() - stopping < 3, "it waits for the next try, 5 s after the last"
    assert "Traceback" not in "".join(process.program.lines)


async def test_processes_start_before_their_nats_does(nowhere: System) -> None:
    both = start_both(nowhere)
    for process in both:
        await process.says("does not answer")
    nowhere.nats._folder.mkdir()
    try:
        await nowhere.nats.start()
        for process in both:
            await until(partial(ready, process), "it is ready")
            assert await process.stop() == 0
    finally:
        nowhere.nats.close()


async def test_processes_start_before_their_jetstream_has_a_leader(tmp_path: Path) -> None:
    """One server of three answers, and can do nothing; all workers start at once when it can."""
    made = Cluster(tmp_path)
    try:
        first, *others = made.servers.values()
        await first.start()
        async with system(first, tmp_path) as app:
            worker = *PROCESSES["worker"], "--replicas", "3"
            processes = [app.start(*PROCESSES["edge"]), *(app.start(*worker) for _ in range(3))]
            for process in processes:
                await process.says("JetStream does not answer")
            await asyncio.gather(*(server.start() for server in others))
            for process in processes:
                await until(partial(ready, process), "it is ready")
                assert "Traceback" not in "".join(process.program.lines)
                assert await process.stop() == 0
    finally:
        made.close()


# A TARGET that is no use


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no/such/file.py", "there is no file no/such/file.py"),
        ("no.such.module:app", "there is no module 'no"),
        (f"{EVERYTHING}:nowhere", "has no attribute 'nowhere'"),
        (f"{EVERYTHING}:support", "not a Project"),
    ],
)
async def test_a_target_that_does_not_exist_is_wrong_use(
    nowhere: System, target: str, said: str
) -> None:
    process = nowhere.start("worker", target)
    assert await process.ended() == 2
    (line,) = process.program.lines
    assert line.startswith("fairlead: TARGET") and said in line


async def test_an_error_in_the_users_module_shows_its_traceback(
    nowhere: System, tmp_path: Path
) -> None:
    """... from the user's file on, and none of ours above it."""
    (tmp_path / "broken.py").write_text("import json\nvalue = json.loads('{oops')\n")
    process = nowhere.start("worker", str(tmp_path / "broken.py"))
    assert await process.ended() == 1
    said = "\n".join(process.program.lines)
    assert said.startswith("Traceback") and "broken.py" in process.program.lines[1]
    assert "JSONDecodeError" in process.program.lines[-1]
    assert "fairlead/cli.py" not in said and "fairlead/loading.py" not in said


async def test_an_import_that_fails_in_the_users_module_is_the_users(
    nowhere: System, tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    process = nowhere.start("worker", str(tmp_path / "needy.py"))
    assert await process.ended() == 1
    assert "No module named 'no_such_package'" in process.program.lines[-1]
    assert "needy.py" in process.program.lines[1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            's.websocket("a", tag="x", path="/p")(one); s.websocket("b", tag="x", path="/p")(two)',
            "/s/x/p",
        ),
        (
            's.websocket("a", tag="x", path="/p", history=History(1, "60s"))(one); '
            's.websocket("a", tag="x", path="/q", history=None)(two)',
            "'a'",
        ),
        ('s.websocket("a.{x}", tag="x")(one); s.websocket("a.b", tag="x")(two)', "a.b"),
    ],
    ids=["two workflows on one endpoint", "a topic with different options", "topics that overlap"],
)
async def test_a_project_that_contradicts_itself_does_not_start(
    nowhere: System, tmp_path: Path, body: str, said: str
) -> None:
    """The same for each of its commands, and without asking NATS."""
    (tmp_path / "contradictory.py").write_text(
        "from fairlead import WS, History, Message, feature, project\n"
        "async def one(ctx: WS, message: Message) -> None: ...\n"
        "async def two(ctx: WS, message: Message) -> None: ...\n"
        f's = feature("S")\n{body}\napp = project(s)\n'
    )
    process = nowhere.start("worker", str(tmp_path / "contradictory.py"))
    assert await process.ended() == 1
    assert "BadDeclaration" in process.program.lines[-1] and said in process.program.lines[-1]


async def test_a_project_without_a_workflow_is_told(app: System, tmp_path: Path) -> None:
    """It may be meant, so the worker serves on."""
    (tmp_path / "empty.py").write_text("from fairlead import project\napp = project()\n")
    worker = await app.worker(str(tmp_path / "empty.py"))
    await worker.says('"level":"warning","logger":"fairlead.worker","msg":"the project declares no')


# Ports


@pytest.mark.parametrize(
    ("kind", "flag"), [("edge", "--port"), ("edge", "--admin-port"), ("worker", "--admin-port")]
)
async def test_a_port_that_is_taken_is_told(app: System, kind: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = app.start(*PROCESSES[kind], flag, port)
        assert await process.ended() == 1
    said = process.program.lines[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in "".join(process.program.lines)


# Stopping


async def test_an_idle_process_stops_within_a_second(app: System) -> None:
    for process in (await app.worker(), await app.edge()):
        started = time.monotonic()
        assert await process.stop() == 0
        assert time.monotonic() - started < 1000 * MS
        assert not [line for line in process.program.lines if '"level":"info"' not in line]


async def test_a_draining_edge_is_alive_and_not_ready(app: System, tmp_path: Path) -> None:
    """It says so before it begins, refuses new clients, and serves those in hand to the end."""
    await app.worker()
    edge = await app.edge()
    assert await edge.readyz() == (
        200, {"ready": True, "nats": {"connected": True}, "serving": True, "draining": False}
    )  # fmt: skip
    async with edge.v1("/support/realtime/slow") as client:
        ref = await client.send(str(tmp_path / "go"))
        await client.until("message")
        stopping = asyncio.create_task(edge.stop())
        await edge.says("draining")
        status, body = await edge.readyz()
        assert (status, body["ready"], body["draining"]) == (503, False, True)
        assert body["nats"] == {"connected": True}
        assert (await request(edge.admin("/livez")))[0] == 200
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", edge.port)
        (tmp_path / "go").touch()
        assert (await client.until("message"))["data"] == "end"
        assert (await client.until("ack"))["ref"] == ref
        assert (await client.next())["type"] == "reconnect"
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012
        assert await stopping == 0


async def test_a_draining_worker_is_alive_and_not_ready(app: System, tmp_path: Path) -> None:
    worker = await app.worker()
    edge = await app.edge()
    assert await admin(worker, "/readyz") == 200
    async with edge.v1("/support/realtime/slow") as client:
        ref = await client.send(str(tmp_path / "go"))
        await client.until("message")
        stopping = asyncio.create_task(worker.stop())
        await until(lambda: is_draining(worker), "it is draining")
        assert await admin(worker, "/livez") == 200
        (tmp_path / "go").touch()
        assert (await client.until("ack"))["ref"] == ref
        assert await stopping == 0


async def is_draining(process: Process) -> bool:
    return await admin(process, "/readyz") == 503


async def test_an_edge_is_not_ready_before_it_has_read_the_routes(nowhere: System) -> None:
    """... and says of each part how it is."""
    edge = await nowhere.edge(ready=False)
    assert await edge.readyz() == (
        503,
        {
            "ready": False, "nats": {"connected": False}, "serving": False, "draining": False,
            "reason": ["no routes are known yet", "NATS was not reached yet"],
        },
    )  # fmt: skip
    status, headers, body = await request(edge.http("/support/realtime/echo"))
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(body)["status"] == 503
