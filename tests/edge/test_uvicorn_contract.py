"""What `fairlead_edge.ws` uses of uvicorn's private WebSocketsSansIOProtocol.

uvicorn promises none of it. When an upgrade changes a part, the test that names it fails
here, and not a connection in production; then read `ws.py` against the new class.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, State
from websockets.server import ServerProtocol

from fairlead_edge import ws
from fairlead_edge.ws import EdgeWebSocketProtocol
from support.system import until

HANDSHAKE = (
    b"GET /a%2Fb?channel=x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: fairlead.v1, other\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A transport that notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that accepts, and stays for what comes."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await receive()


def make(kind: type[Any], app: Any = accepts) -> tuple[Any, Wire]:
    """A protocol object of uvicorn's, connected, as its server makes it."""
    config = Config(app, ws=kind, log_config=None, ws_per_message_deflate=False)
    config.load()
    protocol = kind(config=config, server_state=ServerState(), app_state={})
    wire = Wire()
    protocol.connection_made(wire)
    return protocol, wire


async def shaken() -> tuple[Any, Wire]:
    """uvicorn's own, after the 101."""
    protocol, wire = make(WebSocketsSansIOProtocol)
    protocol.data_received(HANDSHAKE)
    await until(lambda: wire.sent, "the 101")
    return protocol, wire


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [
        ("app_state", dict), ("client", object), ("close_sent", bool), ("close_timer", object),
        ("config", Config), ("conn", ServerProtocol), ("connections", set),
        ("curr_msg_data_type", str), ("default_headers", list), ("disconnected", bool),
        ("frames", list), ("handshake_complete", bool), ("logger", object), ("loop", object),
        ("ping_timer", object), ("pong_timer", object), ("queue", asyncio.Queue),
        ("read_paused", bool), ("request", Request), ("response", object), ("scope", dict),
        ("transport", asyncio.Transport), ("writable", asyncio.Event),
    ],
)  # fmt: skip
async def test_the_protocol_has_the_attribute(attribute: str, kind: type[Any]) -> None:
    protocol, _ = await shaken()
    assert isinstance(getattr(protocol, attribute), kind)


@pytest.mark.parametrize("name", ws._HANDSHAKE)
async def test_what_is_dropped_after_the_handshake_is_there_until_then(name: str) -> None:
    """Dropped from the instance's own dict, so it must live there."""
    protocol, _ = await shaken()
    assert name in vars(protocol)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("connection_lost", ["self", "exc"]), ("connection_made", ["self", "transport"]),
        ("data_received", ["self", "data"]), ("eof_received", ["self"]),
        ("handle_connect", ["self", "event"]), ("handle_pong", ["self", "event"]),
        ("keepalive_timeout", ["self"]), ("pause_writing", ["self"]), ("receive", ["self"]),
        ("resume_writing", ["self"]), ("run_asgi", ["self"]), ("send", ["self", "message"]),
        ("send_500_response", ["self"]), ("shutdown", ["self"]), ("stop_keepalive", ["self"]),
    ],
)  # fmt: skip
def test_the_method_takes_what_it_took(method: str, parameters: list[str]) -> None:
    found = getattr(WebSocketsSansIOProtocol, method)
    assert list(inspect.signature(found).parameters) == parameters
    asynchronous = {"run_asgi", "receive", "send"}
    assert inspect.iscoroutinefunction(found) == (method in asynchronous)


async def test_nothing_that_ws_adds_is_a_name_of_uvicorns() -> None:
    """A method or attribute of ours that uvicorn gets one day, too, would replace it unseen."""
    ours = {name for name in vars(EdgeWebSocketProtocol) if not name.startswith("__")}
    meant = {
        "connection_lost", "data_received", "eof_received", "handle_connect", "keepalive_timeout",
        "resume_writing", "run_asgi", "shutdown",
    }  # fmt: skip
    protocol, _ = make(WebSocketsSansIOProtocol)
    theirs = set(dir(protocol))
    assert ours & theirs == meant


async def test_a_handshake_is_one_call_of_handle_connect_and_one_of_run_asgi() -> None:
    """handle_connect gets the request once it is whole, makes the scope, starts run_asgi as a task."""
    calls: list[tuple[str, object]] = []

    class Noting(WebSocketsSansIOProtocol):
        def handle_connect(self, event: Request) -> None:
            super().handle_connect(event)
            calls.append(("handle_connect", event))
            calls.append(("tasks", len(self.tasks)))
            (self.scope.get("extensions") or {})["noted"] = {}

        async def run_asgi(self) -> None:
            calls.append(("run_asgi", dict(self.scope.get("extensions") or {})))
            await super().run_asgi()

    protocol, wire = make(Noting)
    protocol.data_received(HANDSHAKE[:40])
    assert calls == []
    protocol.data_received(HANDSHAKE[40:])
    assert [name for name, _ in calls] == ["handle_connect", "tasks"], "the scope is made by then"
    assert isinstance(calls[0][1], Request) and calls[1][1] == 1
    await until(lambda: wire.sent, "the 101")
    assert calls[2] == ("run_asgi", {"websocket.http.response": {}, "noted": {}})
    assert wire.sent.startswith(b"HTTP/1.1 101 ")


async def test_the_scope_says_what_the_edge_reads_of_it() -> None:
    protocol, _ = await shaken()
    scope = protocol.scope
    assert scope["type"] == "websocket"
    assert (scope["path"], scope["raw_path"]) == ("/a/b", b"/a%2Fb")
    assert scope["query_string"] == b"channel=x"
    assert scope["subprotocols"] == ["fairlead.v1", "other"]
    assert (b"host", b"h") in [(name.lower(), value) for name, value in scope["headers"]]
    assert "websocket.http.response" in scope["extensions"], "for problems before the accept"


async def test_a_refused_handshake_makes_no_scope() -> None:
    protocol, wire = make(WebSocketsSansIOProtocol)
    protocol.data_received(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
    assert wire.sent.startswith(b"HTTP/1.1 400 ")
    assert not hasattr(protocol, "scope")


async def test_the_accept_is_written_by_send_itself() -> None:
    """So that nothing of others runs between the 101 and what the edge does next."""
    protocol, wire = make(WebSocketsSansIOProtocol, app=None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        sending = send({"type": "websocket.accept", "subprotocol": "fairlead.v1", "headers": []})
        with pytest.raises(StopIteration):
            sending.__await__().__next__()  # runs to its end at once
        assert wire.sent.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol: fairlead.v1\r\n" in wire.sent
        assert protocol.handshake_complete and protocol.ping_timer is not None
        assert protocol.conn.state is OPEN

    protocol.app = app
    protocol.data_received(HANDSHAKE)
    await asyncio.gather(*protocol.tasks)
    protocol.stop_keepalive()
    assert protocol.ping_timer is None


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (Frame(Opcode.TEXT, b"text"), {"type": "websocket.receive", "text": "text"}),
        (Frame(Opcode.BINARY, b"\xff"), {"type": "websocket.receive", "bytes": b"\xff"}),
        (
            Frame(Opcode.CLOSE, b"\x03\xe8bye"),
            {"type": "websocket.disconnect", "code": 1000, "reason": "bye"},
        ),
    ],
)
async def test_what_comes_with_the_handshake_waits_in_the_queue(
    frame: Frame, event: dict[str, Any]
) -> None:
    """`hand_over` empties it; after a message uvicorn has paused the transport."""
    protocol, wire = make(WebSocketsSansIOProtocol, app=never)
    protocol.data_received(HANDSHAKE)
    protocol.data_received(frame.serialize(mask=True))
    assert protocol.queue.get_nowait() == {"type": "websocket.connect"}
    assert protocol.queue.get_nowait() == event
    assert protocol.queue.empty()
    assert protocol.read_paused == (event["type"] == "websocket.receive")
    assert ("pause_reading" in wire.calls) == protocol.read_paused
    for task in protocol.tasks:
        task.cancel()
    await asyncio.gather(*protocol.tasks, return_exceptions=True)


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.get_running_loop().create_future()


async def test_back_pressure_is_the_event_writable() -> None:
    protocol, _ = await shaken()
    assert protocol.writable.is_set()
    protocol.pause_writing()
    assert not protocol.writable.is_set()
    protocol.resume_writing()
    assert protocol.writable.is_set()


async def test_the_limit_of_a_message_is_one_of_conn_and_can_be_changed() -> None:
    """websockets answers what is beyond it with a close frame, and says so in `parser_exc`."""
    protocol, _ = await shaken()
    conn: ServerProtocol = protocol.conn
    conn.max_message_size = 10
    conn.receive_data(Frame(Opcode.TEXT, b"x" * 10).serialize(mask=True))
    assert conn.parser_exc is None and len(conn.events_received()) == 1
    conn.receive_data(Frame(Opcode.TEXT, b"x" * 11).serialize(mask=True))
    assert conn.parser_exc is not None and conn.close_sent is not None
    assert conn.close_sent.code == 1009
    sent = b"".join(conn.data_to_send())
    assert (sent[0], sent[2:4]) == (0x88, b"\x03\xf1")


async def test_conn_answers_pings_and_keeps_what_it_writes_in_writes() -> None:
    protocol, _ = await shaken()
    conn: ServerProtocol = protocol.conn
    conn.data_to_send()
    assert not conn.writes
    conn.receive_data(Frame(Opcode.PING, b"abc").serialize(mask=True))
    (ping,) = conn.events_received()
    assert isinstance(ping, Frame) and ping.opcode is Opcode.PING
    assert conn.writes, "data_received looks there before it makes bytes"
    assert b"".join(conn.data_to_send()) == b"\x8a\x03abc"


@pytest.mark.parametrize(
    "name", ["origins", "available_extensions", "available_subprotocols", "id"]
)
async def test_what_slim_drops_of_conn_is_not_needed_afterwards(name: str) -> None:
    protocol, _ = await shaken()
    conn: ServerProtocol = protocol.conn
    assert name in vars(conn)
    EdgeWebSocketProtocol._slim(conn)
    assert name not in vars(conn)
    conn.receive_data(Frame(Opcode.TEXT, b"x").serialize(mask=True))
    conn.receive_data(Frame(Opcode.PING, b"").serialize(mask=True))
    assert len(conn.events_received()) == 2
    conn.send_ping(b"1234")
    conn.send_close(1012, "bye")
    conn.receive_data(Frame(Opcode.CLOSE, b"\x03\xf4").serialize(mask=True))
    conn.events_received()
    assert conn.state in (State.CLOSING, State.CLOSED)


async def test_keepalive_sends_pings_and_waits_for_the_pong() -> None:
    """`resume_reading` starts the pong's time anew through `pong_timer` and `keepalive_timeout`."""
    protocol, wire = await shaken()
    wire.sent = b""
    protocol.stop_keepalive()
    protocol.send_keepalive_ping()
    assert wire.sent[:2] == b"\x89\x04"
    assert protocol.pong_timer is not None
    protocol.handle_pong(Frame(Opcode.PONG, wire.sent[2:]))
    assert protocol.pong_timer is None
    wire.sent = b""
    protocol.keepalive_timeout()
    assert (wire.sent[0], wire.sent[2:4]) == (0x88, b"\x03\xf3"), "1011"
    assert protocol.close_sent and wire.is_closing()


def test_a_ws_class_is_what_the_server_makes_its_connections_of() -> None:
    config = Config(accepts, ws=EdgeWebSocketProtocol, log_config=None)
    config.load()
    assert config.ws_protocol_class is EdgeWebSocketProtocol


def test_the_server_can_be_run_without_its_signal_handlers() -> None:
    """`_serve(sockets)` is `serve` without them; `should_exit` ends it, `servers` are what listens."""
    assert list(inspect.signature(Server._serve).parameters) == ["self", "sockets"]
    server = Server(Config(accepts, log_config=None))
    assert server.should_exit is False
    source = inspect.getsource(Server)
    assert "self.servers" in source and "capture_signals" not in inspect.getsource(Server._serve)


# What `fairlead_edge.http` uses of uvicorn's HttpToolsProtocol


@pytest.mark.parametrize("name", ["on_message_begin", "on_headers_complete", "data_received"])
def test_the_http_protocol_has(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))


def test_an_answer_to_who_is_gone_may_stay_incomplete() -> None:
    """Else uvicorn writes that the application has failed."""
    assert "not self.disconnected" in inspect.getsource(RequestResponseCycle.run_asgi)
