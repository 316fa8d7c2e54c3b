"""Requests and handshakes: what is decided before anything is accepted.

Everything here ends in one of three ways: a problem (RFC 9457), a `Stream`, or a
`Connection` that the socket is handed over to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HTTPRoute
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fairlead.admin import problem_response, read_body
from fairlead.errors import BadName, Malformed, NotStored
from fairlead.protocol import cursor, frames
from fairlead.protocol.envelope import Context, encode_context
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import MAX_MESSAGE
from fairlead.telemetry import parent_of, unsampled
from fairlead_edge.connection import Connection, Settled
from fairlead_edge.host import Host
from fairlead_edge.room import Room
from fairlead_edge.routes import WEBSOCKET, Match, room_of
from fairlead_edge.sse import Stream, named_event
from fairlead_edge.ws import EXTENSION, EdgeWebSocketProtocol

log = logging.getLogger("fairlead.edge")

RETRY_AFTER = {"Retry-After": "1"}

# Of the hop or the handshake, not of the client.
_HEADERS_OF_THE_HOP = frozenset({"connection", "upgrade", "keep-alive", "transfer-encoding", "te"})


class Refused(Exception):
    """The request is answered with a problem."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = problem_response(status, detail, headers)


class EdgeApp:
    """The ASGI side of one edge.

    Attributes:
        host: None until NATS answers; until then everything is refused with 503.
        draining: whether new clients are sent elsewhere.
    """

    def __init__(self) -> None:
        self.host: Host | None = None
        self.draining = False
        self.asgi = Starlette(
            routes=[
                WebSocketRoute("/{path:path}", _as_asgi(self._websocket)),
                HTTPRoute("/{path:path}", _as_asgi(self._http)),
            ]
        )

    def _ready(self) -> Host:
        if self.host is None or self.draining:
            why = "this edge is being drained" if self.draining else "no routes are known yet"
            raise Refused(503, f"{why}; try again", RETRY_AFTER)
        return self.host

    # WebSocket

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        try:
            host = self._ready()
            protocol = self._protocol(scope)
            match = _find(host, scope, WEBSOCKET)
            query = _query(scope)
            topic, channel = _room(match, query)
            room = await _open(host, match.route, topic, channel)
        except Refused as refused:
            await socket.send_denial_response(refused.response)
            return
        settled = Settled(
            match.route,
            room,
            host.bus.subjects.inbound(match.route.feature, match.route.workflow, topic, channel),
            encode_context(_context(scope, query, match)),
        )
        v1 = frames.SUBPROTOCOL in scope.get("subprotocols", ())
        connection = Connection(host, protocol, host.new_id(), settled, v1)
        try:
            await receive()  # websocket.connect
            # From here to the welcome nothing else runs: what is stored now reaches the member.
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": frames.SUBPROTOCOL if v1 else None,
                    "headers": [],
                }
            )
        except BaseException:
            host.hub.close(room)
            raise
        host.entered(connection)
        connection.opened(False if "cursor" in dict(query) else None)
        protocol.hand_over(connection, frames.MAX_FRAME if v1 else MAX_MESSAGE)

    @staticmethod
    def _protocol(scope: Scope) -> EdgeWebSocketProtocol:
        found = scope.get("extensions", {}).get(EXTENSION)
        if found is None:
            raise Refused(500, "not served by uvicorn with ws=EdgeWebSocketProtocol")
        protocol: EdgeWebSocketProtocol = found["it"]
        return protocol

    # HTTP

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            host = self._ready()
            match = _find(host, scope, request.method)
            query = _query(scope)
            topic, channel = _room(match, query)
            if match.route.transport == "websocket":
                raise Refused(
                    426, "this endpoint is a WebSocket; it would have been accepted",
                    {"Upgrade": "websocket"},
                )  # fmt: skip
            if "run" in dict(query):
                # It asks to attach. To ignore that would start a run that nobody wanted.
                raise Refused(404, "no run can be attached to in this version; leave ?run= out")
            resumed = _resumed(match.route, request.headers, query)
            if resumed is _ENDED:
                await Response(status_code=204)(scope, receive, send)
                return
            body = await read_body(request, MAX_MESSAGE)
            if body is None:
                raise Refused(413, f"a body has at most {MAX_MESSAGE} bytes")
            room = await _open(host, match.route, topic, channel) if match.route.topic else None
        except Refused as refused:
            await refused.response(scope, receive, send)
            return
        except ClientDisconnect:
            return
        stream = Stream(host, match.route, room)
        subject = host.bus.subjects.inbound(
            match.route.feature, match.route.workflow, topic, channel
        )
        parent = parent_of(request.headers.get("traceparent", ""))
        hop = host.receive_span(match.route, parent, len(body))
        trace = hop.parent if hop is not None else unsampled(parent)
        if resumed is not None:
            stream.say(named_event("resumed", {"recovered": False}))
        stream.start(subject, body, encode_context(_context(scope, query, match)), trace, hop)
        try:
            await _stream(stream, str(trace), receive, send, scope)
        finally:
            stream.closed()


def _as_asgi(handler: Any) -> Any:
    """Starlette calls a class's instance as an ASGI application, a function as an endpoint."""

    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await handler(scope, receive, send)

    return Endpoint()


async def _stream(stream: Stream, trace: str, receive: Receive, send: Send, scope: Scope) -> None:
    """Answer: the head when the run is taken, then what it says, until either side ends it."""
    leaving = asyncio.ensure_future(_until_disconnect(receive))
    try:
        either: set[asyncio.Future[Any]] = {stream.head, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not stream.head.done():
            return
        failure = stream.head.result()
        if failure is not None:
            status = int(failure.get("status", 500))
            retry = RETRY_AFTER if status == 503 else None
            members = {k: v for k, v in failure.items() if k not in ("type", "title", "status")}
            response = problem_response(status, members.pop("detail", None), retry, **members)
            await response(scope, receive, send)
            return
        writing = asyncio.ensure_future(_write(stream, trace, send))
        ends: set[asyncio.Future[Any]] = {writing, leaving, stream.cut}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    finally:
        leaving.cancel()


async def _write(stream: Stream, trace: str, send: Send) -> None:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "fairlead-trace": trace,
    }
    if stream.run:
        headers["fairlead-run"] = stream.run
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    # The head alone, so that a client sees at once that it was accepted.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async for chunk in stream.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _find(host: Host, scope: Scope, way: str) -> Match:
    """The route of a request.

    Raises:
        Refused: 404 for an unknown path, 405 for a method that it does not serve.
    """
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    found = host.fleet.table.find(raw_path, way)
    if isinstance(found, Match):
        return found
    if way == "GET" and WEBSOCKET in found:
        # Asked over HTTP, so that a browser can learn why its handshake was refused.
        asked = host.fleet.table.find(raw_path, WEBSOCKET)
        assert isinstance(asked, Match)
        return asked
    methods = found - {WEBSOCKET}
    if way == WEBSOCKET or not found:
        raise Refused(404, f"{scope['path'][:200]} is no endpoint of this app" + (
            " for WebSockets" if methods else ""))  # fmt: skip
    allowed = ", ".join(sorted(methods or {"GET"}))
    raise Refused(405, f"{way} is not served here; expected {allowed}", {"Allow": allowed})


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        raw: bytes = scope["query_string"]
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Refused(400, "the query is not percent-encoded UTF-8") from None


def _room(match: Match, query: list[tuple[str, str]]) -> tuple[str, str]:
    try:
        return room_of(match, [value for name, value in query if name == "channel"])
    except BadName as error:
        raise Refused(400, str(error)) from None


def _context(scope: Scope, query: list[tuple[str, str]], match: Match) -> Context:
    headers = {
        name.lower(): value
        for name, value in Headers(scope=scope).items()
        if name not in _HEADERS_OF_THE_HOP and not name.startswith("sec-websocket-")
    }
    return Context(dict(query), headers, match.path)


async def _open(host: Host, route: Route, topic: str, channel: str) -> Room:
    """Listen to the room.

    Raises:
        Refused: 503, its stream or NATS does not answer.
    """
    history = host.fleet.table.topics.get(route.topic)
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            await host.bus.ready()
            return await host.hub.open(route.topic, topic, channel, history)
    except (NotStored, TimeoutError) as error:
        detail = str(error) or "NATS does not answer"
        raise Refused(503, f"the room cannot be joined: {detail}", RETRY_AFTER) from None


_ENDED = object()


def _resumed(route: Route, headers: Headers, query: list[tuple[str, str]]) -> object | None:
    """What a request to resume means: None if it is none, _ENDED if there is nothing more to come.

    A browser sends `Last-Event-ID` by itself, so an end that comes back must not start a
    new run. Whatever else comes back cannot be resumed yet, and the client is told so.
    """
    last = headers.get("last-event-id") or dict(query).get("cursor")
    if not last:
        return None
    try:
        if isinstance(cursor.decode(last, route.endpoint), cursor.End):
            return _ENDED
    except Malformed:
        pass
    return last
