"""Who cancels a run has ended it: soon, from whatever edge, and whoever has it by then."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.errors import NoRespondersError
from websockets.frames import Frame, Opcode

from fairlead.protocol import envelope, runlog
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead.protocol.subjects import Subjects
from fairlead_worker.logged import ANSWERS_WITHIN
from support.system import (
    MS,
    Edge,
    NatsServer,
    System,
    connected,
    cut,
    frame,
    request,
    system,
    until,
    upgraded,
)  # fmt: skip

PATH = "/cancels/runs"

SOON = 100 * MS
"""Seconds from a cancel to its run's `finally`."""

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """For those who kill workers."""
    async with system(nats, tmp_path_factory.mktemp("cancel")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_all(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """Two edges and a worker, for those whose runs have ended when they end."""
    async with system(nats, tmp_path_factory.mktemp("cancels")) as made:
        await started(made, edges=2)
        yield made


@pytest.fixture
def shared(of_all: System) -> System:
    """The same; nothing is noted yet."""
    log(of_all).unlink(missing_ok=True)
    return of_all


async def started(app: System, *flags: str, edges: int = 1) -> list[Edge]:
    made, _ = await asyncio.gather(
        asyncio.gather(*(app.edge() for _ in range(edges))), app.worker("cancels.py", *flags)
    )
    for edge in made:
        await edge.serves(f"{PATH}/kept")
    return list(made)


def log(app: System) -> Path:
    return app.cwd / "cancels.log"


def noted(app: System, word: str) -> list[str]:
    """The lines that the workflows have written which begin so."""
    lines = log(app).read_text().splitlines() if log(app).exists() else []
    return [line for line in lines if line.startswith(word)]


async def stands_still(app: System) -> None:
    """Wait until the generator is held back."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < 300 * MS or not count:
        await asyncio.sleep(20 * MS)
        if (found := len(noted(app, "item"))) != count:
            count, since = found, time.monotonic()


async def ended(app: System, asked: float) -> None:
    """The run's `finally` has run soon after it was asked for."""
    await until(lambda: noted(app, "finally"), "its finally has run")
    [line] = noted(app, "finally")
    assert float(line.split()[1]) - asked < SOON


class Begun:
    """A run that a client reads, or does not read any more.

    Attributes:
        query: names it, for other clients.
    """

    def __init__(self, query: str) -> None:
        self.query = query


@asynccontextmanager
async def stream(edge: Edge, path: str) -> AsyncIterator[Begun]:
    """Reads only the head of the answer."""
    reader, writer = await connected(edge, SMALL)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        yield Begun(f"run={headers['fairlead-run']}&key={headers['fairlead-run-token']}")
    finally:
        await cut(writer)


@pytest.mark.parametrize("held", ["", "?held=1"], ids=["at leisure", "held back by its reader"])
@pytest.mark.parametrize("kind", ["kept", "plain"])
@pytest.mark.parametrize("where", [0, 1], ids=["same edge", "another edge"])
async def test_an_event_stream_is_cancelled_from_any_edge(
    shared: System, kind: str, held: str, where: int
) -> None:
    async with stream(shared.edges[0], f"{PATH}/{kind}{held}") as run:
        await until(lambda: noted(shared, "begin"), "it has begun")
        if held:
            await stands_still(shared)
        asked = time.time()
        url = shared.edges[where].http(f"{PATH}/{kind}?{run.query}")
        assert (await request(url, method="DELETE"))[0] == 204
        await ended(shared, asked)


@pytest.mark.parametrize("held", [False, True], ids=["at leisure", "held back by its reader"])
@pytest.mark.parametrize("kind", ["message", "connection"])
async def test_a_v1_client_cancels(shared: System, kind: str, held: bool) -> None:
    path = f"{PATH}/{kind}{'?held=1' if held else ''}"
    async with upgraded(shared.edges[0], path, receive_buffer=SMALL, subprotocol="fairlead.v1") as (
        reader,
        writer,
    ):

        def say(**what: Any) -> None:
            writer.write(Frame(Opcode.TEXT, json.dumps(what).encode()).serialize(mask=True))

        if kind == "message":
            say(type="message", ref=1, data="held" if held else "at leisure")
        await until(lambda: noted(shared, "begin"), "it has begun")
        if held:
            await stands_still(shared)
        wanted: dict[str, Any] = {"ref": 1}
        if kind == "connection":
            while (found := json.loads((await frame(reader))[1]))["type"] != "message":
                pass
            wanted = {"run": found["run"]}
        asked = time.time()
        say(type="cancel", **wanted)
        await ended(shared, asked)


# Cancelled while it goes from one worker to another


@asynccontextmanager
async def spoken_to(app: System) -> AsyncIterator[tuple[Client, Subjects]]:
    """NATS, as edges speak with workers over it."""
    client = await nats.connect(app.nats.url)
    try:
        yield client, Subjects(app.app)
    finally:
        await client.close()


async def ask(client: Client, subjects: Subjects, run: str, what: bytes, number: int) -> None:
    """As an edge does: have a worker take a run up, or (CANCEL) end it."""
    work = envelope.encode_work(Work(Kind.REOPEN, DataType.BINARY, what, id=run))
    reply = subjects.answer("test", f"test-{number}", 1, 1)
    await client.publish(subjects.inbound("cancels", "kept", "-", "-"), work, reply)


async def is_over(edge: Edge, query: str) -> None:
    """The run has ended: who reads it gets to its end."""
    async with asyncio.timeout(15), edge.events(f"{PATH}/kept?{query}") as stream:
        while (await stream.next()).get("event") != "end":
            pass


async def run_of(stack: AsyncExitStack, edge: Edge, query: str = "") -> dict[str, str]:
    """Begin one, and read it until the block ends."""
    events = await stack.enter_async_context(edge.events(f"{PATH}/kept{query}"))
    found: dict[str, str] = json.loads((await events.next())["data"])
    await events.next()
    return found


async def test_a_cancel_reaches_whoever_took_the_run_up_meanwhile(app: System) -> None:
    """A worker that is asked to end a run hears for two seconds whether anybody has it."""
    [edge] = await started(app)
    async with AsyncExitStack() as stack, spoken_to(app) as (client, subjects):
        run = await run_of(stack, edge)
        control = await client.subscribe(subjects.run_control(run["run"]))
        app.workers[0].kill()
        await app.worker("cancels.py")
        for number, what in enumerate((b"?", runlog.CANCEL), 1):
            await ask(client, subjects, run["run"], what.strip(b"?"), number)
            while (await control.next_msg(timeout=10)).data != what:
                pass
            # Nobody answers, so both wait as long; the first one is to be the first to go on.
            await asyncio.sleep(ANSWERS_WITHIN / 2)
        await until(lambda: len(noted(app, "begin")) == 2, "it is taken up")
        await control.unsubscribe()
        await is_over(edge, f"run={run['run']}&key={run['key']}")


async def test_a_cancel_reaches_whoever_takes_up_what_was_handed_over(app: System) -> None:
    """Both find that its worker has left; only one of them is the next to have it."""
    [edge] = await started(app, "--drain-grace", "100ms")
    async with spoken_to(app) as (client, subjects):
        async with AsyncExitStack() as stack:
            run = await run_of(stack, edge)
        assert await app.workers[0].stop() == 0
        await app.worker("cancels.py")
        await ask(client, subjects, run["run"], b"", 1)
        await ask(client, subjects, run["run"], runlog.CANCEL, 2)
        await is_over(edge, f"run={run['run']}&key={run['key']}")


async def test_who_is_handing_a_run_over_ends_it_instead(app: System) -> None:
    [edge] = await started(app, "--drain-grace", "100ms")
    async with AsyncExitStack() as stack:
        run = await run_of(stack, edge, "?farewell=1")
        await app.worker("cancels.py")
        stopping = asyncio.create_task(app.workers[0].stop())
        await until(lambda: noted(app, "finally"), "it is told to leave")
        query = f"run={run['run']}&key={run['key']}"
        assert (await request(edge.http(f"{PATH}/kept?{query}"), method="DELETE"))[0] == 204
        await is_over(edge, query)
        assert await stopping == 0
    assert len(noted(app, "begin")) == 1, "nobody took it up"


async def test_a_cancel_that_comes_while_a_run_is_being_taken_up_is_not_lost(app: System) -> None:
    """Who takes it up listens before it has it."""
    [edge] = await started(app)
    async with AsyncExitStack() as stack, spoken_to(app) as (client, subjects):
        runs = [await run_of(stack, edge) for _ in range(20)]
        app.workers[0].kill()
        await app.worker("cancels.py")
        await asyncio.gather(
            *(cancel_at_once(client, subjects.run_control(r["run"])) for r in runs)
        )
        for run in runs:
            await is_over(edge, f"run={run['run']}&key={run['key']}")


async def cancel_at_once(client: Client, control: str) -> None:
    """Say it as soon as anybody is there to hear it."""
    while True:
        try:
            assert (await client.request(control, runlog.CANCEL, timeout=10)).data == b"1"
            return
        except NoRespondersError:
            pass
