"""Nothing that a client sent stands in the log of any process, whatever way it came.

Marked values go every way that there is: through edges, workers and NATS, well formed and not,
with everything logged that can be. Then all that the processes wrote is searched for them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
import websockets
from nats.aio.client import Client

from fairlead.protocol.subjects import KINDS
from fairlead.testing.clients import SUBPROTOCOL
from fairlead.testing.program import DEADLINE
from support.console import Console, start_console
from support.system import (
    V1,
    Edge,
    System,
    Worker,
    connected,
    cut,
    nats_server,
    request,
    system,
    until,
    upgraded,
)

LOUD = {
    "FAIRLEAD_LOG_LEVEL": "debug",
    "OTEL_SDK_DISABLED": "false",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=MARK-of-the-collector",
    # A collector that is not there: what its exporter says of it is written, too.
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
}


class Siege:
    """One system in production's form, and the marks that were sent to it."""

    def __init__(
        self, app: System, edges: list[Edge], worker: Worker, console: Console, bus: Client
    ) -> None:
        self.app = app
        self.console = console
        self.edges = edges
        self.edge = edges[0]
        self.worker = worker
        self.bus = bus
        self.marks: dict[str, str] = {
            "MARK-of-the-collector": "the headers of the exporter",
            "MARK-of-the-console": "the token of the console",
        }

    def mark(self, what: str) -> str:
        """A value that is nowhere else; letters only, so that no encoding of a URL changes it."""
        made = "m4rk" + secrets.token_hex(12)
        self.marks[made] = what
        return made

    @property
    def written(self) -> list[str]:
        processes = [*self.edges, self.worker, self.console, self.app.nats.process]
        return [line for process in filter(None, processes) for line in process.program.lines]

    def leaks(self) -> list[str]:
        """What of the marks can be read in the output, plain or as base64."""
        whole = "\n".join(self.written)
        return [
            f"{what}: {next(line for line in self.written if form in line)}"
            for mark, what in self.marks.items()
            for form in (mark, *_base64(mark))
            if form in whole
        ]

    async def says(self, event: str, **fields: Any) -> None:
        """Wait for a line that begins with this text, and has these fields."""

        def said() -> bool:
            lines = (json.loads(line) for line in self.written if line.startswith('{"ts"'))
            return any(
                line["msg"].startswith(event) and fields.items() <= line.items() for line in lines
            )

        await until(said, f"a line {event!r} with {fields}")


def _base64(mark: str) -> list[str]:
    """As it is within a longer text: it may begin at any of three places."""
    forms = []
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + mark.encode()).decode()
        forms.append(encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4])
    return forms


@pytest_asyncio.fixture
async def siege(tmp_path: Path) -> AsyncIterator[Siege]:
    async with nats_server(tmp_path / "nats") as server, system(server, tmp_path) as app:
        console = await start_console(app, "--token", "MARK-of-the-console", env=LOUD)
        traced = {**LOUD, "OTEL_EXPORTER_OTLP_ENDPOINT": console.url("")}
        worker, *edges = await asyncio.gather(
            app.worker("secretive.py", "--policy-timeout", "1s", env=traced),
            app.edge(env=traced),
            app.edge(env=LOUD),
        )
        for edge in edges:
            await edge.serves("/shop/v1/stream")
        bus = await nats.connect(server.url)
        try:
            yield Siege(app, list(edges), worker, console, bus)
        finally:
            await bus.close()


async def test_nothing_that_a_client_sent_is_in_any_log(siege: Siege) -> None:
    for way in WAYS:
        async with asyncio.timeout(2 * DEADLINE):
            await way(siege)
    await siege.says("a malformed message is dropped", kind="beat")
    for process in (siege.worker, *siege.edges, siege.console):
        await process.stop()
    assert len(siege.marks) > 100
    assert siege.leaks() == []
    for line in siege.written:
        assert line.startswith(("{", "[")), f"not a line of a log: {line}"


async def test_the_search_would_find_them(siege: Siege) -> None:
    """Where it is asked for, what an exception says is written; plain and in base64 it is found."""
    told = {"FAIRLEAD_EXCEPTION_MESSAGES": "on"}
    await siege.worker.stop()
    siege.worker = await siege.app.worker("secretive.py", env=told)
    plain, coded = siege.mark("plain"), siege.mark("in base64")
    async with siege.edge.v1("/shop/v1/plain") as client:
        for text in (plain, base64.b64encode(b"<>" + coded.encode()).decode()):
            await client.send(text)
            await client.until("error")
    found = siege.leaks()
    assert [leak.partition(":")[0] for leak in found] == ["plain", "in base64"]


WAYS: list[Callable[[Siege], Awaitable[None]]] = []

Way = Callable[[Siege], Awaitable[None]]


def way(function: Way) -> Way:
    WAYS.append(function)
    return function


async def _answered(client: V1) -> None:
    while (await client.next())["type"] not in ("ack", "error"):
        pass


# What `execute` does with what a client said

RAISES = (
    "breaks", "chained", "grouped", "unretrieved", "in_a_callback", "in_a_thread", "warned",
    "ill_logged", "destroyed", "in_an_executor", "logged_as_a_value",
)  # fmt: skip


@way
async def messages_that_break_something(siege: Siege) -> None:
    async with siege.edge.v1("/shop/v1/ways") as client:
        for name in RAISES:
            await client.send([name, siege.mark(f"a message: {name}")])
            await _answered(client)
    for event in (
        "execute failed", "an exception in a thread was not caught", "a warning",
        "an exception could not be raised", "a log line cannot be written",
        "Task exception was never retrieved", "Exception in callback", "it failed",
    ):  # fmt: skip
        await siege.says(event)


@way
async def functions_in_threads(siege: Siege) -> None:
    for path in ("plain", "steps", "connection"):
        async with siege.edge.v1(f"/shop/v1/{path}") as client:
            await client.send(siege.mark(f"a message to {path}"), id=siege.mark("its id"))
            await client.until("error")
        await siege.says("execute failed", workflow=f"Shop/{path}")


@way
async def results_that_cannot_be_sent(siege: Siege) -> None:
    async with siege.edge.v1("/shop/v1/wrong") as client:
        for kind in ("object", "model", "peer", "event", "broadcast", "reject", "key"):
            await client.send([kind, siege.mark(f"a result: {kind}")])
            await _answered(client)


@way
async def inputs_that_are_refused(siege: Siege) -> None:
    async with siege.edge.v1("/shop/v1/orders") as client:
        for data in ({"number": siege.mark("a field")}, siege.mark("no model")):
            await client.send(data)
            await client.until("error")
    mark = siege.mark("an input")
    url = siege.edge.http(f"/shop/v1/body?page={mark}")
    status, _, _ = await request(
        url, json.dumps({"number": mark}).encode(), headers={"X-Shop": mark}
    )
    assert status == 400
    status, _, _ = await request(siege.edge.http("/shop/v1/body"), f"{{{mark}".encode())
    assert status == 400


@way
async def raw_clients_with_text_and_bytes(siege: Siege) -> None:
    async with siege.edge.raw("/shop/v1/plain") as client:
        await client.send(siege.mark("a text"))
        await client.recv()
        await client.send(siege.mark("bytes").encode() + b"\xff\x00")
        await client.recv()
    async with siege.edge.v1("/shop/v1/plain") as client:
        data = base64.b64encode(siege.mark("base64").encode()).decode()
        await client.send(data, encoding="base64")
        await client.until("error")


@way
async def rooms_and_their_runs(siege: Siege) -> None:
    room, channel = siege.mark("a room"), siege.mark("a channel")
    headers = {"Authorization": f"Bearer {siege.mark('Authorization')}"}
    headers["Cookie"] = f"session={siege.mark('Cookie')}"
    query = f"channel={channel}&token={siege.mark('?token=')}"
    path = f"/shop/v1/rooms/{room}?{query}"
    async with siege.edge.v1(path, additional_headers=headers) as client:
        await client.send(siege.mark("to a room"))
        await client.until("ack")
        await client.send("go")
        await client.until("error")
    async with siege.edge.v1(f"/shop/v1/shared/{room}?{query}") as client:
        assert await client.hears() == "one"
        await siege.says("execute failed", workflow="Shop/shared")


@way
async def streams(siege: Siege) -> None:
    for path in ("stream", "kept"):
        headers = {"Authorization": siege.mark("Authorization"), "Cookie": siege.mark("Cookie")}
        body = siege.mark("a body").encode()
        query = f"token={siege.mark('?token=')}"
        async with siege.edge.events(
            f"/shop/v1/{path}?{query}", method="POST", body=body, headers=headers
        ) as stream:
            while "error" not in (await stream.next()).get("event", ""):
                pass
        await siege.says("execute failed", workflow=f"Shop/{path}")


@way
async def runs_and_their_tokens(siege: Siege) -> None:
    async with siege.edge.events("/shop/v1/kept") as stream:
        run, key = stream.headers["fairlead-run"], stream.headers["fairlead-run-token"]
        siege.marks[key] = "a run's token"
        for edge in siege.edges:
            url = edge.http(f"/shop/v1/kept?run={run}&key=")
            assert (await request(url + siege.mark("key="), method="DELETE"))[0] == 404
            url = edge.http(f"/shop/v1/kept?run={siege.mark('run=')}&key={key}")
            assert (await request(url))[0] == 404
            url = edge.http(
                f"/shop/v1/kept?run={urllib.parse.quote(siege.mark('run=') + '.>')}&key={key}"
            )
            assert (await request(url))[0] in (400, 404)
        async with siege.edges[1].events(f"/shop/v1/kept?run={run}&key={key}") as other:
            assert other.status == 200
            await other.next()


@way
async def policies(siege: Siege) -> None:
    for how, status in (
        ("raise", 500),
        ("reject", 403),
        ("subject", 500),
        ("slow", 503),
        ("no", 403),
    ):
        for path in ("/shop/v1/guarded",):
            query = f"how={how}&text={siege.mark(f'a policy: {how}')}"
            assert (await request(siege.edge.http(f"{path}?{query}")))[0] == status
            with suppress(websockets.InvalidStatus):
                async with siege.edge.raw(f"{path}?{query}"):
                    raise AssertionError("it was let in")
    # Without what it looks up.
    assert (await request(siege.edge.http(f"/shop/v1/guarded?x={siege.mark('a query')}")))[0] == 400


# What an edge refuses


@way
async def requests_that_lead_nowhere(siege: Siege) -> None:
    for target in (
        f"/{siege.mark('a path')}", f"/shop/v1/{siege.mark('a path')}?a={siege.mark('a query')}",
        f"/shop/v1/stream?channel={siege.mark('no channel')}.x", f"/shop/v1/stream?%ff={siege.mark('%')}",
        f"/shop/v1/kept?cursor={siege.mark('cursor=')}", f"/shop/v1/rooms/{siege.mark('426')}",
        f"/shop/v1/rooms/{siege.mark('no room')}.x",
    ):  # fmt: skip
        headers = {"Last-Event-ID": siege.mark("Last-Event-ID"), "traceparent": siege.mark("trace")}
        status, _, _ = await request(siege.edge.http(target), headers=headers)
        assert status in (200, 204, 400, 404, 426), (target, status)
    url = siege.edge.http("/shop/v1/stream")
    assert (await request(url, method=siege.mark("a method")))[0] == 400


@way
async def cursors_on_sockets(siege: Siege) -> None:
    cursor = siege.mark("a cursor")
    for made in (cursor, f"AX{cursor}", "A" * 40 + cursor):
        async with siege.edge.v1(f"/shop/v1/rooms/a?cursor={made}") as client:
            assert client.welcome["recovered"] is False


@way
async def bodies_that_are_too_large(siege: Siege) -> None:
    body = siege.mark("too large").encode() * 60_000
    assert (await request(siege.edge.http("/shop/v1/stream"), body))[0] == 413
    assert (await request(siege.edge.admin("/publish"), body * 5))[0] == 413
    frame = json.dumps({"type": "message", "ref": 1, "data": body.decode()})
    for protocols, sent in ((None, body.decode()), ([SUBPROTOCOL], frame)):
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with siege.edge.raw("/shop/v1/plain", subprotocols=protocols) as client:
                await client.send(sent)
                while True:
                    await client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@way
async def frames_that_are_no_frames(siege: Siege) -> None:
    async with siege.edge.v1("/shop/v1/plain") as client:
        mark = siege.mark("a malformed frame")
        for text in (
            mark, f'"{mark}"', f'{{"type":"{mark}"}}', f'{{"type":"message","ref":"{mark}","data":1}}',
            f'{{"type":"message","ref":1,"{mark}":1}}', f'{{"type":"refresh","token":"{mark}"}}',
            f'{{"type":"cancel","run":"{mark}","key":"{mark}"}}',
            f'{{"type":"message","ref":9,"data":"{mark}","traceparent":"{mark}"}}',
        ):  # fmt: skip
            await client.socket.send(text)
            await client.until("error")
        for _ in range(10):
            await client.socket.send(mark)
        with suppress(websockets.ConnectionClosed):
            while True:
                await client.next()
    async with siege.edge.v1("/shop/v1/plain") as client:
        await client.socket.send(siege.mark("a binary frame").encode())
        with suppress(websockets.ConnectionClosed):
            await client.next()
    async with siege.edge.raw("/shop/v1/plain") as raw:
        await raw.ping(siege.mark("a ping"))
        await raw.close(1000, siege.mark("a reason to leave"))


@way
async def bytes_that_are_no_websocket(siege: Siege) -> None:
    mark = siege.mark("bytes of a socket").encode()
    size = len(mark)
    masked = bytes([0x80 | size, 0, 0, 0, 0]) + mark
    for head in (
        b"\x81" + bytes([size]) + mark,  # not masked
        b"\xf1" + masked,  # reserved bits
        b"\x8b" + masked,  # an unknown opcode
        b"\x80" + masked,  # goes on with nothing
        b"\x01" + masked + b"\x81" + masked,  # begins within another
        b"\x88" + masked,  # closes with a code that is none
        b"\x81" + bytes([0x80 | (size + 2), 0, 0, 0, 0]) + b"\xff\xfe" + mark,  # not UTF-8
    ):
        async with upgraded(siege.edge, "/shop/v1/plain") as (reader, writer):
            writer.write(head)
            while await reader.read(65536):
                pass


@way
async def bytes_that_are_no_request(siege: Siege) -> None:
    for text in (
        f"{siege.mark('no request')}\r\n\r\n",
        f"GET /{siege.mark('a target')} HTTP/7.3\r\n\r\n",
        f"GET / HTTP/1.1\r\n{siege.mark('a header')}\r\n\r\n",
        f"POST / HTTP/1.1\r\nContent-Length: {siege.mark('a length')}\r\n\r\n",
        f"GET /shop/v1/plain?token={siege.mark('a handshake')} HTTP/1.1\r\nHost: x\r\n"
        f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {siege.mark('its key')}\r\n"
        f"Sec-WebSocket-Version: {siege.mark('its version')}\r\n\r\n",
        f"GET /shop/v1/plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        f"Upgrade: {siege.mark('an upgrade')}\r\n\r\n",
    ):
        reader, writer = await connected(siege.edge)
        try:
            writer.write(text.encode())
            await reader.read(65536)
        finally:
            await cut(writer)
    await siege.says("Invalid HTTP request received.")


@way
async def a_client_that_leaves_in_the_middle(siege: Siege) -> None:
    _, writer = await connected(siege.edge)
    head = f"POST /shop/v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{siege.mark('half a body')}"
    writer.write(head.encode())
    await writer.drain()
    await cut(writer)


# What comes from outside


@way
async def the_publish_port(siege: Siege) -> None:
    mark = siege.mark("published")
    for body, status in (
        ({"topic": "rooms.a", "data": mark, "id": siege.mark("an id")}, 200),
        ({"topic": mark, "data": mark}, 404),
        ({"topic": f"rooms.{mark}.x.>", "data": mark}, 404),
        ({"topic": "rooms.a", "channel": f"{mark} x", "data": mark}, 400),
        ({"topic": "rooms.a", "data": mark, "id": [mark]}, 400),
        ({"topic": [mark]}, 400),
        (mark, 400),
    ):
        for process in (siege.edge, siege.worker):
            url = f"http://127.0.0.1:{process.admin_port}/publish"
            found, _, said = await request(url, json.dumps(body).encode(), headers={"Cookie": mark})
            assert found == status, (body, said)
    assert (await request(siege.edge.admin("/publish"), mark.encode()))[0] == 400
    assert (await request(siege.edge.admin(f"/{mark}?{mark}")))[0] == 404


@way
async def junk_on_every_subject(siege: Siege) -> None:
    """Of NATS clients that are none of ours: on the subjects that are listened to, and others."""
    root, mark = f"fl.{siege.app.app}", siege.mark("on NATS")
    edge, worker = (json.loads(p.program.lines[0])["instance"] for p in (siege.edge, siege.worker))
    tails = [
        f"{kind}.{tail}"
        for kind in sorted(KINDS)
        for tail in (mark, f"x.{mark}", f"shop.plain.{mark}.{mark}", f"{mark}.log", f"{mark}.open")
    ]
    tails += [f"edge.{edge}.{mark}", f"edge.{edge}.{mark}-1.1.1", f"edge.{edge}.c-1.{mark}.{mark}"]
    tails += [f"edge.{edge}.census", f"worker.{worker}", f"worker.{worker}.in.shop.{mark}.x.y"]
    tails += [f"worker.{worker}.in.shop.plain.plain.{mark}", f"inbox.edge.{edge}.r.{mark}"]
    tails += ["in.shop.plain.plain.-", "seek.shop.shared.shared.a.-", f"run.{edge}-1-1.control"]
    tails += [f"live.rooms.a.{mark}", "live.rooms.a.-", "log.rooms.a.-", "live.shared.a.-"]
    async with siege.edge.v1("/shop/v1/rooms/a") as client, siege.edge.v1("/shop/v1/shared/a"):
        for data in (mark.encode(), json.dumps([mark] * 4).encode(), b"M" + mark.encode(), b""):
            for tail in tails:
                for reply in ("", f"{root}.{mark}", f"{root}.edge.{edge}.{mark}-1.1.1", mark):
                    await siege.bus.publish(f"{root}.{tail}", data, reply, headers=None)
                headers = {"Nats-Sequence": mark, "Nats-Last-Sequence": mark, "traceparent": mark}
                headers |= {"Fl-Type": mark, "Fl-From": mark, "Fl-Fence": mark, mark: mark}
                await siege.bus.publish(f"{root}.{tail}", data, headers=headers)
        await siege.bus.flush()
        await client.send("still here")
        await client.until("ack")
    await siege.says("a malformed message is dropped", kind="in")
    await siege.says("a malformed message is dropped", kind="edge")
    await siege.says("a handler of NATS messages failed", kind="live")


@way
async def manifests_that_are_none(siege: Siege) -> None:
    bucket = await siege.bus.jetstream().key_value(f"FL_{siege.app.app}_manifests")
    mark = siege.mark("a manifest")
    for number, value in enumerate(
        (mark, json.dumps({"version": mark}), json.dumps({"version": 1}))
    ):
        await bucket.put(f"{number:032x}", value.encode())
    siege.edges.append(await siege.app.edge(env=LOUD))
    await siege.says("a build is not served")


@way
async def what_a_console_is_sent(siege: Siege) -> None:
    url, mark = siege.console.url, siege.mark("to the console")
    said = json.dumps({"topic": "rooms.a", "data": mark}).encode()
    for token, status in ((siege.mark("a wrong token"), 401), ("MARK-of-the-console", 200)):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await request(url("/publish"), said, headers=headers))[0] == status
    for media_type in ("application/json", "application/x-protobuf"):
        for body in (mark.encode(), json.dumps({"resourceSpans": mark}).encode()):
            headers = {"Content-Type": media_type, "Cookie": mark}
            await request(url("/v1/traces"), body, headers=headers)
            headers["Content-Encoding"] = "gzip"
            assert (await request(url("/v1/traces"), body, headers=headers))[0] == 400
    for path in (f"/api/traces/{mark}", f"/api/traces?{mark}={mark}", f"/{mark}"):
        await request(url(path), headers={"Authorization": mark})
    await siege.says("an export was refused", process="console")


# What takes its time


@way
async def a_worker_that_is_stuck_and_one_that_is_killed(siege: Siege) -> None:
    async with siege.edge.v1("/shop/v1/stuck") as client:
        await client.send(siege.mark("to a worker that is stuck"))
        await siege.says(STUCK)
        await client.send(siege.mark("to a worker that is killed"))
        lines = siege.worker.program.lines
        siege.worker.kill()
        await siege.worker.ended()
        siege.worker = await siege.app.worker("secretive.py", env=LOUD)
        siege.worker.program.lines[:0] = lines
        assert (await client.until("error"))["error"]["status"] in (500, 503)


STUCK = (
    "the loop has been stuck; leaving NATS until it runs again. Something blocks in an "
    "async function; make it a plain def, which runs in a thread"
)
