"""A client that does not read, in a room that does not stop: `overflow`, and the edge's own limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

import fairlead
from fairlead.testing.program import DEADLINE
from support.figures import ON, until_figures
from support.system import V1, Edge, NatsServer, System, frame, resident, system, until, upgraded

MIB = 1024 * 1024

SMALL = 32 * 1024
"""Bytes that the kernel takes for a client that does not read."""

COUNT, SIZE = 3000, 2048
"""Messages, and bytes of each: six times what may wait for one client."""


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path: Path) -> AsyncIterator[System]:
    async with system(nats, tmp_path) as made:
        yield made


async def started(app: System, *flags: str, env: Mapping[str, str] | None = None) -> Edge:
    _, edge = await asyncio.gather(app.worker("overflow.py"), app.edge(*flags, env=env))
    await edge.serves("/busy/rooms/feed")
    return edge


async def fill(app: System, topic: str, count: int = COUNT) -> None:
    """Publish numbered messages, in order."""
    async with fairlead.connect(app.nats.url, app=app.app) as bus:
        room = bus.topic(topic)
        for number in range(count):
            await room.publish(f"{number}:".ljust(SIZE, "x"))


def number_of(message: dict[str, Any]) -> int:
    return int(message["data"].partition(":")[0])


async def hear_all(client: V1, count: int = COUNT) -> list[str]:
    """The cursors of all messages; each came once, in order."""
    ids = []
    for number in range(count):
        message = await client.until("message")
        assert number_of(message) == number
        ids.append(message["id"])
    return ids


async def frames_until(reader: asyncio.StreamReader, last: int) -> AsyncIterator[tuple[bytes, Any]]:
    """The frames of a v1 client, as bytes and decoded, up to the last message of the room."""
    async with asyncio.timeout(DEADLINE):
        while True:
            _, payload = await frame(reader)
            found = json.loads(payload)
            yield payload, found
            if found["type"] == "message" and found["id"] and number_of(found) == last:
                return


@pytest.mark.parametrize("topic", ["feed", "prices"])
async def test_what_a_slow_client_does_not_read_is_dropped_and_told(
    app: System, topic: str
) -> None:
    """`drop_oldest` and `latest`: memory stays flat, nobody else is late, its answers are kept."""
    edge = await started(app)
    path = f"/busy/rooms/{topic}"
    async with (
        edge.v1(path) as quick,
        upgraded(edge, path, receive_buffer=SMALL, subprotocol="fairlead.v1") as (reader, writer),
    ):
        before = resident(edge)
        filling = asyncio.create_task(fill(app, topic))
        asked = b'{"type":"message","ref":1,"data":"a question"}'
        ids = await hear_all(quick)
        writer.write(Frame(Opcode.TEXT, asked).serialize(mask=True))
        await filling
        assert resident(edge) - before < 16 * MIB
        seen, gaps, kinds = -1, 0, []
        async for payload, found in frames_until(reader, COUNT - 1):
            kinds.append(found["type"])
            if found["type"] == "gap":
                lost = ids.index(found["cursor"])
                assert payload == b'{"type":"gap","cursor":"%b"}' % ids[lost].encode()
                assert lost > seen
                seen, gaps = lost, gaps + 1
            elif found["type"] == "message" and found["id"]:
                assert number_of(found) == seen + 1, "what is missing was told"
                seen += 1
        assert gaps >= 1
        if topic == "prices":
            assert kinds[-2:] == ["gap", "message"], "only the newest was kept"
        answers = kinds
        while "ack" not in answers:
            answers.append(json.loads((await frame(reader))[1])["type"])
        assert answers.count("ack") == 1


async def test_a_client_that_does_not_read_is_closed_where_nothing_may_be_dropped(
    app: System,
) -> None:
    edge = await started(app, env=ON)
    path = "/busy/rooms/strict"
    async with (
        edge.v1(path) as quick,
        upgraded(edge, path, receive_buffer=SMALL, subprotocol="fairlead.v1") as (reader, _),
        asyncio.TaskGroup() as others,
    ):
        others.create_task(fill(app, "strict"))
        others.create_task(hear_all(quick))
        # It reads on at once, as who does not read its close for 5 s is cut off.
        await until_figures(
            edge, lambda f: f.sum("fairlead_edge_slow_closed_total") == 1, "it is closed"
        )
        seen = -1
        async with asyncio.timeout(DEADLINE):
            while (found := await frame(reader))[0] == 0x81:
                message = json.loads(found[1])
                if message["type"] == "message":
                    assert number_of(message) == (seen := seen + 1)
        assert found[0] == 0x88 and found[1][:2] == (4001).to_bytes(2)
        assert seen < COUNT - 1


async def joined_while_it_fills(app: System, folder: Path, room: str) -> list[dict[str, Any]]:
    """What a client gets whose policy took so long that twice its budget was said meanwhile."""
    edge, _ = await asyncio.gather(
        app.edge(),
        app.worker("overflow.py", "--policy-timeout", "1m", env={"NOTES": str(folder)}),
    )
    await edge.serves("/busy/rooms/feed/held")
    connecting = asyncio.create_task(all_of(edge, f"/busy/rooms/{room}/held"))
    await until((folder / "asked").exists, "the policy is asked")
    await fill(app, f"{room}.held", 1024)
    (folder / "go").touch()
    return await connecting


async def all_of(edge: Edge, path: str) -> list[dict[str, Any]]:
    """The frames of a v1 client, to the room's last message or to the close, which is `{"code": …}`."""
    frames: list[dict[str, Any]] = []
    async with edge.v1(path) as client:
        try:
            while not frames or number_of(frames[-1]) < 1023:
                frames.append(await client.next())
                if frames[-1]["type"] == "gap":
                    frames.append(await client.next())
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            frames.append({"code": closed.rcvd.code})
    return frames


async def test_what_a_room_says_while_a_policy_is_asked_has_the_same_bound(
    app: System, tmp_path: Path
) -> None:
    first, *frames, last = await joined_while_it_fills(app, tmp_path, "strict")
    assert (number_of(first), last) == (0, {"code": 4001})
    assert [number_of(each) for each in frames] == list(range(1, len(frames) + 1))


async def test_and_it_is_dropped_and_told_where_it_may_be(app: System, tmp_path: Path) -> None:
    first, *frames = await joined_while_it_fills(app, tmp_path, "feed")
    assert first["type"] == "gap"
    numbers = [number_of(each) for each in frames]
    assert numbers == list(range(1024 - len(numbers), 1024)), "the newest, without another hole"


async def test_when_all_slow_clients_have_too_much_the_worst_give_way_first(app: System) -> None:
    """Each is within its own limit; together they are over the edge's."""
    edge = await started(app, "--buffer-limit", str(MIB))
    path = "/busy/rooms/strict"
    async with AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(
                upgraded(edge, path, receive_buffer=SMALL, subprotocol="fairlead.v1")
            )
            for _ in range(12)
        ]
        bus = await stack.enter_async_context(fairlead.connect(app.nats.url, app=app.app))
        count = 0
        # Until the kernels have what they take, which is not known.
        while "too much waits for slow clients" not in str(edge.program.lines):
            await bus.topic("strict").publish(f"{count}:".ljust(SIZE, "x"))
            count += 1
        assert '"limit":1048576' in str(edge.program.lines)
        await bus.topic("strict").publish(f"{count}:")
        outcomes = [await outcome(reader, count) for reader, _ in slow]
        assert set(outcomes) == {"all", "closed"}, outcomes


async def outcome(reader: asyncio.StreamReader, last: int) -> str:
    async with asyncio.timeout(DEADLINE):
        while True:
            first, payload = await frame(reader)
            if first == 0x88:
                assert payload[:2] == (4001).to_bytes(2)
                return "closed"
            found = json.loads(payload)
            if found["type"] == "message" and number_of(found) == last:
                return "all"
