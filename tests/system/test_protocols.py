"""What travels between client and edge: raw WebSocket, `fairlead.v1`, and SSE, frame by frame."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from fairlead.protocol.problems import MAX_MESSAGE
from fairlead.testing.program import DEADLINE
from support.system import (
    MS,
    Edge,
    NatsServer,
    Worker,
    edge_and_worker,
    frame,
    system,
    until,
    upgraded,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

BIG = {"max_size": 16 * MAX_MESSAGE}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Worker]]:
    async with edge_and_worker(nats, tmp_path_factory.mktemp("protocols")) as both:
        yield both


@pytest.fixture
def edge(running: tuple[Edge, Worker]) -> Edge:
    return running[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deserted(
    nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Edge, Edge]]:
    """Two edges without a worker: the one gives up after a second, the other after a minute."""
    async with system(nats, tmp_path_factory.mktemp("deserted")) as app:
        await (await app.worker()).stop()
        hasty, patient = await asyncio.gather(
            app.edge("--worker-wait", "1s"), app.edge("--worker-wait", "60s")
        )
        for edge in (hasty, patient):
            await edge.serves("/support/realtime/echo")
        yield hasty, patient


async def received(client: ClientConnection) -> str | bytes:
    async with asyncio.timeout(DEADLINE):
        return await client.recv()


async def close_of(client: ClientConnection) -> tuple[int, str]:
    """(code, reason) with which the server closes; frames before it are passed over."""
    try:
        while True:
            await received(client)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "closed without a close frame: a reset"
        return closed.rcvd.code, closed.rcvd.reason


# Raw


async def test_raw_text_stays_text_and_binary_stays_binary(edge: Edge) -> None:
    async with edge.raw("/support/realtime/echo") as client:
        for message in ("text", b"\x00\xff", "", b"", "gr\u00fc\u00dfe \U0001f40b", b"text"):
            await client.send(message)
            assert await received(client) == message


async def test_raw_passes_exactly_1_mib_both_ways(edge: Edge) -> None:
    async with edge.raw("/support/realtime/echo", **BIG) as client:
        for message in ("t" * MAX_MESSAGE, bytes(MAX_MESSAGE), "\u00df" * (MAX_MESSAGE // 2)):
            await client.send(message)
            assert await received(client) == message


async def test_a_raw_message_of_a_byte_over_1_mib_closes_with_1009(edge: Edge) -> None:
    async with edge.raw("/support/realtime/echo") as client:
        await client.send(bytes(MAX_MESSAGE + 1))
        began = time.monotonic()
        assert (await close_of(client))[0] == 1009
        assert time.monotonic() - began < 3000 * MS, "the client waits for the end in vain"


@pytest.mark.parametrize("subprotocol", ["", "fairlead.v1"])
async def test_the_1009_reaches_a_client_that_is_still_sending_and_no_reset(
    edge: Edge, subprotocol: str
) -> None:
    path = "/support/realtime/echo"
    async with upgraded(edge, path, subprotocol=subprotocol) as (reader, writer):
        if subprotocol:
            await frame(reader)  # welcome
        writer.write(Frame(Opcode.TEXT, b" " * (8 * MAX_MESSAGE)).serialize(mask=True))
        first, payload = await frame(reader)
        assert (first, int.from_bytes(payload[:2])) == (0x88, 1009)
        async with asyncio.timeout(DEADLINE):
            await writer.drain()
            assert await reader.read() == b""


async def test_fragments_over_1_mib_together_close_with_1009(edge: Edge) -> None:
    async with edge.raw("/support/realtime/echo") as client:
        await client.send(iter([bytes(MAX_MESSAGE // 2)] * 2 + [b"x"]))
        assert (await close_of(client))[0] == 1009


async def test_a_fragmented_message_is_one_message(edge: Edge) -> None:
    async with upgraded(edge, "/support/realtime/echo") as (reader, writer):
        # A character split between two frames, and a ping in the middle (RFC 6455, 5.4).
        for sent in (
            Frame(Opcode.TEXT, b"gr\xc3", fin=False),
            Frame(Opcode.PING, b"still there?"),
            Frame(Opcode.CONT, b"\xbc\xc3\x9f", fin=False),
            Frame(Opcode.CONT, b"e", fin=True),
        ):
            writer.write(sent.serialize(mask=True))
        assert await frame(reader) == (0x8A, b"still there?")
        assert await frame(reader) == (0x81, "gr\u00fc\u00dfe".encode())


def masked(opcode: int, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin=fin).serialize(mask=True)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b""), 1007),
        (masked(Opcode.TEXT, b"\xed\xa0\x80"), 1007),  # a surrogate
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # reserved opcode 3
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # RSV1 without an extension
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # a fragmented ping
        (masked(Opcode.CONT, b"of nothing"), 1002),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.TEXT, b"b"), 1002),
        (masked(Opcode.CLOSE, b"\x03"), 1002),
        (masked(Opcode.CLOSE, (1005).to_bytes(2)), 1002),
        (masked(Opcode.CLOSE, (1000).to_bytes(2)), 1000),
        (masked(Opcode.CLOSE, (4321).to_bytes(2)), 4321),
    ],
    ids=[
        "not UTF-8",
        "half a character",
        "a surrogate",
        "unmasked",
        "opcode",
        "RSV1",
        "fragmented ping",
        "continuation of nothing",
        "text within text",
        "half a code",
        "code 1005",
        "close",
        "close of its own",
    ],
)
@pytest.mark.parametrize("subprotocol", ["", "fairlead.v1"])
async def test_what_rfc_6455_forbids_is_answered_by_its_close_code(
    edge: Edge, sent: bytes, code: int, subprotocol: str
) -> None:
    path = "/support/realtime/echo"
    async with upgraded(edge, path, subprotocol=subprotocol) as (reader, writer):
        if subprotocol:
            await frame(reader)  # welcome
        writer.write(sent)
        first, payload = await frame(reader)
        assert (first, int.from_bytes(payload[:2])) == (0x88, code)
        # Whoever answers the close frame sees the end of the connection at once.
        if code in (1002, 1007):  # else ours was the answer
            writer.write(masked(Opcode.CLOSE, payload[:2]))
        async with asyncio.timeout(3000 * MS):
            assert await reader.read() == b""


async def test_a_raw_error_is_json_and_the_connection_stays(edge: Edge) -> None:
    async with edge.raw("/support/realtime/raises") as client:
        await client.send("before")
        error = json.loads(await received(client))
        assert error.keys() == {"type", "error"}
        assert error["type"] == "error"
        assert error["error"]["status"] == 500
        await client.send("after")
        assert [await received(client), await received(client)] == ["one", "two"]


# fairlead.v1


async def test_v1_welcomes_first(edge: Edge) -> None:
    async with edge.v1("/support/realtime/rooms/welcome") as client:
        assert client.socket.subprotocol == "fairlead.v1"
        cursor = client.welcome.pop("cursor")
        assert re.fullmatch("[A-Za-z0-9_-]+", cursor)
        assert client.welcome == {
            "type": "welcome",
            "connection": client.id,
            "recovered": None,
            "window": 16,
        }
    async with edge.v1("/support/realtime/volatile") as client:
        assert client.welcome["cursor"] is None, "there is no history to have a place in"


@pytest.mark.parametrize("cursor", ["", "garbage"])
async def test_a_cursor_that_is_none_is_answered_by_recovered_false(
    edge: Edge, cursor: str
) -> None:
    path = "/support/realtime/rooms/replay"
    async with edge.v1(path) as client:
        await client.send("missed")
        await client.until("ack")
    async with edge.v1(f"{path}?cursor={cursor}") as client:
        assert client.welcome["recovered"] is False
        await client.send("next")
        assert (await client.until("message"))["data"] == "next"


async def test_room_messages_have_an_id_with_history_and_null_without(edge: Edge) -> None:
    for path, stored in (("rooms/ids", True), ("volatile", False)):
        async with edge.v1(f"/support/realtime/{path}") as client:
            await client.send("x")
            await client.send("y")
            ids = [(await client.until("message"))["id"] for _ in range(2)]
        if stored:
            assert len(set(ids)) == 2
            assert all(re.fullmatch("[A-Za-z0-9_-]+", id) for id in ids)
        else:
            assert ids == [None, None]


async def test_the_ack_is_the_last_answer_for_its_ref(edge: Edge) -> None:
    async with edge.v1("/support/realtime/plain") as client:
        for _ in range(3):
            await client.send("x")
        got = [await client.next() for _ in range(9)]
    assert [(each["type"], each["ref"]) for each in got] == [
        (type, ref) for ref in (1, 2, 3) for type in ("message", "message", "ack")
    ]


async def test_v1_keeps_text_json_and_base64_apart_both_ways(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        values: list[object] = ["text", "{}", 7, -1.5, None, True, [], {"a": {"b": "\u00df\x00"}}]
        for data in values:
            await client.send(data)
            message = await client.until("message")
            assert message["data"] == data
            assert type(message["data"]) is type(data)
            assert "encoding" not in message
        await client.send("AP8=", encoding="base64")
        message = await client.until("message")
        assert (message["data"], message["encoding"]) == ("AP8=", "base64")
        await client.send("AP8=")
        assert "encoding" not in await client.until("message")
    async with (
        edge.v1("/support/realtime/rooms/base64") as client,
        edge.raw("/support/realtime/rooms/base64") as raw,
    ):
        await client.send("AP8=", encoding="base64")
        assert await received(raw) == b"\x00\xff"
        await raw.send(b"\xff\x00")
        frames = [await client.until("message"), await client.until("message")]
        assert [(each["data"], each["encoding"]) for each in frames] == [
            ("AP8=", "base64"),
            ("/wA=", "base64"),
        ]


MALFORMED: list[tuple[str, int | None]] = [
    ("not JSON", None),
    ("", None),
    ("[1]", None),
    ("7", None),
    ("null", None),
    ("{}", None),
    ('{"ref":7}', 7),
    ('{"type":"dance","ref":7}', 7),
    ('{"type":["message"],"ref":7}', 7),
    ('{"type":"message","data":"x"}', None),
    ('{"type":"message","data":"x","ref":0}', None),
    ('{"type":"message","data":"x","ref":-1}', None),
    ('{"type":"message","data":"x","ref":"7"}', None),
    ('{"type":"message","data":"x","ref":1.0}', None),
    ('{"type":"message","data":"x","ref":true}', None),
    ('{"type":"message","ref":7}', 7),
    ('{"type":"message","ref":7,"data":"x","id":7}', 7),
    ('{"type":"message","ref":7,"data":"?","encoding":"base64"}', 7),
    ('{"type":"message","ref":7,"data":{},"encoding":"base64"}', 7),
    ('{"type":"message","ref":7,"data":"x","encoding":"rot13"}', 7),
    ('{"type":"message","ref":7,"data":"x","traceparent":7}', 7),
    ('{"type":"cancel"}', None),
    ('{"type":"refresh","ref":7}', 7),
    ('{"type":"message","ref":7,"data":"\\ud800"}', None),
    ("[" * 2000, None),
]


@pytest.mark.parametrize(("sent", "ref"), MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_frame_is_a_400_and_the_connection_stays(
    edge: Edge, sent: str, ref: int | None
) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.socket.send(sent)
        error = await client.next()
        assert error["type"] == "error"
        assert (error["error"]["status"], error["error"]["title"]) == (400, "Bad Request")
        assert error.get("ref") == ref
        await client.say(type="message", ref=9, data="still here")
        assert (await client.until("message"))["data"] == "still here"


async def test_a_ref_that_does_not_grow_is_malformed(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.say(type="message", ref=5, data="x")
        await client.until("ack", ref=5)
        for ref in (5, 4):
            await client.say(type="message", ref=ref, data="x")
            error = await client.next()
            assert (error["type"], error["ref"], error["error"]["status"]) == ("error", ref, 400)
        await client.say(type="message", ref=1000, data="x")
        await client.until("ack", ref=1000)


async def test_the_tenth_malformed_frame_in_a_row_closes_with_1008(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        for _ in range(9):
            await client.socket.send("nonsense")
            assert (await client.next())["error"]["status"] == 400
        await client.send("a good one begins the count anew")
        await client.until("ack")
        for _ in range(9):
            await client.socket.send("nonsense")
            assert (await client.next())["error"]["status"] == 400
        await client.socket.send("nonsense")
        assert (await close_of(client.socket))[0] == 1008


async def test_a_binary_frame_closes_v1_with_1003(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.socket.send(b"{}")
        assert (await close_of(client.socket))[0] == 1003


async def test_v1_passes_1_mib_of_decoded_data_and_a_byte_more_closes_with_1009(
    edge: Edge,
) -> None:
    most = base64.b64encode(bytes(MAX_MESSAGE)).decode()
    async with edge.v1("/support/realtime/echo", **BIG) as client:
        await client.send(most, encoding="base64")
        assert (await client.until("message"))["data"] == most
        await client.send("x" * MAX_MESSAGE)
        assert (await client.until("message", ref=2))["data"] == "x" * MAX_MESSAGE
        # Six bytes of JSON each on the wire, and one of data.
        await client.send("\x01" * MAX_MESSAGE)
        assert (await client.until("message", ref=3))["data"] == "\x01" * MAX_MESSAGE
    too_much = base64.b64encode(bytes(MAX_MESSAGE + 1)).decode()
    for frame_of in ({"data": too_much, "encoding": "base64"}, {"data": "x" * (MAX_MESSAGE + 1)}):
        async with edge.v1("/support/realtime/echo") as client:
            await client.send(**frame_of)
            assert (await close_of(client.socket))[0] == 1009


async def test_seventeen_unacknowledged_messages_close_with_4501(
    edge: Edge, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    async with edge.v1("/support/realtime/slow") as client:
        for _ in range(16):
            await client.send(str(release))
        assert (await client.next())["data"].startswith("attempt 1")
        await client.send(str(release))
        assert (await close_of(client.socket))[0] == 4501
    release.touch()


async def test_sixteen_unacknowledged_messages_are_all_executed(edge: Edge, tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with edge.v1("/support/realtime/slow") as client:
        for _ in range(16):
            await client.send(str(release))
        await client.until("message", ref=1)
        release.touch()
        assert [(await client.until("ack"))["ref"] for _ in range(16)] == list(range(1, 17))


# Cancel


async def test_a_running_message_that_is_cancelled_ends_with_499(
    edge: Edge, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    async with edge.v1("/support/realtime/endless") as client:
        ref = await client.send(str(note))
        await client.until("message", ref=ref)
        await client.say(type="cancel", ref=ref)
        error = await client.until("error")
        assert (error["ref"], error["error"]["status"]) == (ref, 499)
        assert note.read_text() == "cancelled", "its finally has run"
        # The last frame for the ref: what comes next belongs to the next message.
        await client.send(str(tmp_path / "another"))
        assert (await client.next())["ref"] == ref + 1


async def test_a_queued_message_that_is_cancelled_never_runs(edge: Edge, tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with edge.v1("/support/realtime/slow") as client:
        first, second = [await client.send(str(release)) for _ in range(2)]
        await client.until("message", ref=first)
        await client.say(type="cancel", ref=second)
        error = await client.next()
        assert (error["type"], error["ref"], error["error"]["status"]) == ("error", second, 499)
        release.touch()
        await client.until("ack", ref=first)
        third = await client.send(str(release))
        assert (await client.next())["ref"] == third


async def test_a_waiting_message_that_is_cancelled_ends_with_499(
    deserted: tuple[Edge, Edge],
) -> None:
    _, patient = deserted
    async with patient.v1("/support/realtime/echo") as client:
        ref = await client.send("x")
        assert await client.next() == {"type": "waiting", "ref": ref}
        await client.say(type="cancel", ref=ref)
        error = await client.next()
        assert (error["type"], error["ref"], error["error"]["status"]) == ("error", ref, 499)


async def test_a_cancel_of_an_unknown_or_answered_ref_is_ignored(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.say(type="cancel", ref=77)
        ref = await client.send("x")
        await client.until("ack", ref=ref)
        await client.say(type="cancel", ref=ref)
        await client.send("y")
        assert (await client.next())["data"] == "y"


async def test_a_cancel_of_a_run_that_is_not_known_is_a_404(edge: Edge) -> None:
    async with edge.v1("/support/realtime/echo") as client:
        await client.say(type="cancel", run="no-such-run", key="k")
        error = await client.next()
        assert (error["type"], error["error"]["status"]) == ("error", 404)
        assert "ref" not in error


# No worker, and once more


async def test_without_a_worker_a_message_waits_and_then_fails_with_503(
    deserted: tuple[Edge, Edge],
) -> None:
    hasty, _ = deserted
    async with hasty.v1("/support/realtime/echo") as client:
        ref = await client.send("x")
        assert await client.next() == {"type": "waiting", "ref": ref}
        error = await client.next()
        assert (error["type"], error["ref"], error["error"]["status"]) == ("error", ref, 503)
        await client.say(type="cancel", run="the connection stays")
        assert (await client.next())["error"]["status"] == 404


async def test_a_message_sent_again_with_its_id_stands_in_the_room_once(edge: Edge) -> None:
    path, id = "/support/realtime/rooms/again", "0123456789abcdef"
    async with edge.v1(path) as member:
        for _ in range(2):
            async with edge.v1(path) as client:
                ref = await client.send("once", id=id)
                await client.until("ack", ref=ref)
        async with edge.v1(path) as client:
            await client.send("once", id=id + "0")
            await client.until("ack")
            await client.send("last")
            await client.until("ack")
        seen = [await member.next() for _ in range(3)]
        assert [each["data"] for each in seen] == ["once", "once", "last"]
        assert len({each["id"] for each in seen}) == 3
    # An id counts per room.
    async with edge.v1(path + "2") as client:
        await client.send("elsewhere", id=id)
        assert (await client.until("message"))["data"] == "elsewhere"


# SSE


async def test_an_sse_head_has_these_headers(edge: Edge) -> None:
    async with edge.events("/support/stream/value") as stream:
        found = stream.headers
    assert stream.status == 200
    assert found["content-type"] == "text/event-stream; charset=utf-8"
    assert found["cache-control"] == "no-cache"
    assert found["x-accel-buffering"] == "no"
    assert found["fairlead-run"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", found["fairlead-trace"])


async def test_sse_items_of_a_run_have_no_id_and_the_end_has_one(edge: Edge) -> None:
    async with edge.events("/support/stream/kinds") as stream:
        items = []
        while event := await stream.bytes():
            items.append(event)
    assert not any(b"id:" in item for item in items[:-1]), "no browser shall believe it resumed"
    assert re.fullmatch(rb"event: end\nid: [A-Za-z0-9_-]+\ndata: \{\}\n\n", items[-1])


async def test_sse_room_messages_have_the_cursor_as_id(edge: Edge) -> None:
    async with (
        edge.events("/support/stream/rooms/sse") as stream,
        edge.v1("/support/realtime/rooms/sse") as client,
    ):
        assert await stream.bytes() == b'data: "you read rooms.sse"\n\n'
        for data, line in (("text", b'data: "text"'), ({"a": [1]}, b'data: {"a":[1]}')):
            await client.send(data)
            id = (await client.until("message"))["id"]
            assert await stream.bytes() == b"id: %b\n%b\n\n" % (id.encode(), line)
        await client.send("AP8=", encoding="base64")
        id = (await client.until("message"))["id"]
        expected = b"event: base64\nid: %b\ndata: AP8=\n\n" % id.encode()
        assert await stream.bytes() == expected


async def test_sse_events_with_fields_of_their_own_are_as_unlimited_as_any(edge: Edge) -> None:
    async with edge.events("/support/stream/comments") as stream:
        for _ in range(20_000):
            assert await stream.bytes() == b": c\n\n"
        assert await stream.bytes() == b'data: "all"\n\n'


async def test_sse_sends_a_comment_after_15_s_of_silence(edge: Edge) -> None:
    async with edge.events("/support/stream/slow") as stream:
        assert await stream.bytes() == b'data: "attempt 1"\n\n'
        began = time.monotonic()
        assert await stream.bytes() == b": ping\n\n"
        assert 14.5 < time.monotonic() - began < 17


# Clients that go


async def test_the_generator_of_an_sse_client_that_left_is_cancelled_within_a_second(
    edge: Edge, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    async with edge.events(f"/support/stream/endless?note={note}") as stream:
        await stream.next()
    began = time.monotonic()
    await until(note.exists, "the generator's finally")
    assert time.monotonic() - began < 1000 * MS


@pytest.mark.parametrize("version", ["raw", "v1"])
async def test_the_endless_generator_of_a_websocket_client_that_left_is_cancelled(
    edge: Edge, tmp_path: Path, version: str
) -> None:
    note = tmp_path / "note"
    if version == "raw":
        async with edge.raw("/support/realtime/endless") as raw:
            await raw.send(str(note))
            assert await received(raw) == "x"
    else:
        async with edge.v1("/support/realtime/endless") as client:
            await client.send(str(note))
            await client.until("message")
    began = time.monotonic()
    await until(note.exists, "the generator's finally")
    assert time.monotonic() - began < 1000 * MS
