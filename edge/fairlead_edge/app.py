"""Requests and handshakes: what is decided before anything is accepted.

Everything here ends in one of three ways: a problem (RFC 9457), a `Stream`, or a
`Connection` that the socket is handed over to.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HTTPRoute
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fairlead.admin import read_body
from fairlead.protocol import cursor, frames
from fairlead.protocol.cursor import RunPlace
from fairlead.protocol.problems import MAX_MESSAGE, Close
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop, unsampled
from fairlead_edge import requested
from fairlead_edge.admission import (
    LEFT,
    RETRY_AFTER,
    Left,
    Refused,
    Settled,
    answered,
    checked,
)  # fmt: skip
from fairlead_edge.asgi import AsgiProtocol, supports_denial
from fairlead_edge.attach import Asked, Over, attach, begin, cancel
from fairlead_edge.connection import CameBack, Connection, Protocol
from fairlead_edge.gathering import positions_of
from fairlead_edge.host import Host
from fairlead_edge.http import cutter
from fairlead_edge.joining import open_room, open_rooms, replays_of
from fairlead_edge.pages import Pages
from fairlead_edge.replay import Replay, position_of
from fairlead_edge.room import V1
from fairlead_edge.routes import WEBSOCKET, Match
from fairlead_edge.scopes import ConnectionScope
from fairlead_edge.spans import Connected, connecting, ending, receiving, trace_replays
from fairlead_edge.sse import Stream, named_event
from fairlead_edge.tally import EdgeTally
from fairlead_edge.ws import EXTENSION


class EdgeApp:
    """The ASGI side of one edge.

    Args:
        pages: a folder of files to serve where no route is; None serves none.
        tally: where it counts whom it answers, and how.

    Attributes:
        host: None until NATS answers; until then everything is refused with 503.
        draining: whether new clients are sent elsewhere.
    """

    def __init__(self, pages: Path | None, tally: EdgeTally) -> None:
        self._answered = tally.handshakes
        self._pages = Pages(pages) if pages is not None else None
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
            because = "draining" if self.draining else "starting"
            raise Refused(503, f"{why}; try again", RETRY_AFTER, because=because)
        return self.host

    # WebSocket

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        leaving = asyncio.ensure_future(receive())
        try:
            protocol = _protocol(scope, receive, send)
            host = self._ready()
            match, id = requested.find(host.fleet.table, scope, WEBSOCKET), host.new_id()
            hop = connecting(host, match.route, id, scope)
            with ending(hop):
                connection = await self._connection(host, match, id, scope, protocol, leaving, hop)
                await self._accept(connection, protocol, leaving, send, hop)
            self._answered["websocket", 101, "accepted"] += 1
            if isinstance(protocol, AsgiProtocol):
                await protocol.run()
        except Refused as refused:
            self._answered["websocket", refused.status, refused.because] += 1
            if supports_denial(scope):
                await WebSocket(scope, receive, send).send_denial_response(refused.response)
            else:
                await send({"type": "websocket.close", "code": Close.POLICY})
        except Left:
            self._answered["websocket", LEFT, "left"] += 1
        finally:
            leaving.cancel()

    @staticmethod
    async def _connection(
        host: Host, match: Match, id: str, scope: Scope, protocol: Protocol,
        leaving: asyncio.Future[Any], hop: Hop | None,
    ) -> Connection:  # fmt: skip
        """All that can be settled before a run is asked for.

        Raises:
            Refused, Left: there is to be no connection.
        """
        query = requested.query_of(scope)
        topic, channel = named = requested.room_of(match, query)
        settled = requested.settled(host.bus.subjects, scope, query, match, named)
        if match.route.checks and match.route.run != "connection":
            verdict = await checked(host.relay, id, settled, leaving, host.now(), hop=hop)
            settled.admit(verdict.who, verdict.subject)
        room = await open_room(host, match.route, topic, channel)
        v1 = frames.SUBPROTOCOL in scope.get("subprotocols", ())
        at = dict(query).get("cursor") if v1 else None
        came_back = CameBack()
        if at is not None:
            [replay] = await replays_of(host, [room], [position_of(at, room)])
            came_back = CameBack(replay is not None, replay, at)
            trace_replays(host, match.route, id, [replay], hop)
        return Connection(host, protocol, id, settled, room, v1, came_back)

    @staticmethod
    async def _accept(
        connection: Connection, protocol: Protocol, leaving: asyncio.Future[Any], send: Send,
        hop: Hop | None,
    ) -> None:  # fmt: skip
        """Make it a member of its room, have its run opened if it has one, and say 101."""
        connection.enter()
        try:
            if isinstance(connection.scope, ConnectionScope):
                connection.scope.open(hop)
                await answered(connection.scope.verdict, leaving)
            await connection.host.peers.known(connection)
            if leaving.done():
                raise Left
            leaving.cancel()
            subprotocol = frames.SUBPROTOCOL if connection.dialect == V1 else None
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        except BaseException:
            connection.closed()
            raise
        if hop is not None:
            hop.set("http.response.status_code", 101)
            connection.connected = Connected(hop.parent)
        protocol.hand_over(connection, frames.MAX_FRAME if subprotocol else MAX_MESSAGE)
        connection.opened()

    # HTTP

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            host = self._ready()
            if self._pages and (page := await self._pages.answer(scope, host.fleet.table)):
                await page(scope, receive, send)
                return
            query = requested.query_of(scope)
            run = dict(query).get("run")
            table = host.fleet.table
            if run is None:
                match = requested.find(table, scope, request.method)
            else:
                match = requested.find_run(table, scope)
            rooms = requested.rooms_of(match, query)
            resumed = requested.cursor_of(match.route, request.headers, query)
            if isinstance(resumed, cursor.End):
                raise Over("seen")
            if run is not None or isinstance(resumed, RunPlace):
                asked = requested.run_of(match.route, run, dict(query).get("key", ""), resumed)
                settled = requested.settled(host.bus.subjects, scope, query, match, rooms[0])
                await self._serve_run(host, settled, asked, request, send)
                return
            body = await read_body(request, MAX_MESSAGE)
            if body is None:
                raise Refused(413, f"a body has at most {MAX_MESSAGE} bytes")
            settled = requested.settled(host.bus.subjects, scope, query, match, rooms[0])
            await self._serve_stream(host, settled, rooms, request, body, resumed, send)
        except Refused as refused:
            self._answered["sse", refused.status, refused.because] += 1
            await refused.response(scope, receive, send)
        except Over as over:
            self._answered["sse", 204, "over"] += 1
            await Response(status_code=204, headers=over.headers)(scope, receive, send)
        except (ClientDisconnect, Left):
            self._answered["sse", LEFT, "left"] += 1

    async def _serve_run(
        self, host: Host, settled: Settled, asked: Asked, request: Request, send: Send
    ) -> None:
        """Show a run that is there, or end it.

        Raises:
            Refused, Over: nothing was sent yet.
        """
        leaving = asyncio.ensure_future(_until_disconnect(request.receive))
        ends = request.method == "DELETE"
        hop, trace = receiving(
            host, settled.route, request.headers, 0, "cancel" if ends else "attach"
        )
        try:
            with ending(hop):
                if hop is not None:
                    hop.set("fairlead.run", asked.run)
                if ends:
                    await cancel(host, settled, asked, leaving, hop)
                    raise Over
                stream = await attach(host, settled, asked, leaving, hop)
                await _shown(stream, trace, leaving, request.scope, send, hop)
        finally:
            leaving.cancel()

    async def _serve_stream(
        self, host: Host, settled: Settled, of: list[requested.RoomName], request: Request, body: bytes,
        resumed: requested.Resumed, send: Send,
    ) -> None:  # fmt: skip
        """Answer with events, or say why not.

        Raises:
            Refused: nothing was sent yet.
        """
        leaving = asyncio.ensure_future(_until_disconnect(request.receive))
        hop, trace = None, unsampled()
        if settled.route.transport == "sse":
            hop, trace = receiving(host, settled.route, request.headers, len(body), "open")
        try:
            with ending(hop):
                stream = await self._begun(host, settled, of, body, resumed, leaving, hop, trace)
                await _shown(stream, trace, leaving, request.scope, send, hop)
        finally:
            leaving.cancel()

    @staticmethod
    async def _begun(
        host: Host, settled: Settled, of: list[requested.RoomName], body: bytes, resumed: requested.Resumed,
        leaving: asyncio.Future[Any], hop: Hop | None, trace: Traceparent,
    ) -> Stream:  # fmt: skip
        """A stream of what the client asked for; raises as `_serve_stream`."""
        route = settled.route
        if route.checks and (route.transport == "websocket" or not route.executes):
            verdict = await checked(
                host.relay, host.new_id(), settled, leaving, host.now(), body, hop=hop
            )
            settled.admit(verdict.who, verdict.subject)
        if route.transport == "websocket":
            raise Refused(
                426, "this endpoint is a WebSocket; it would have been accepted",
                {"Upgrade": "websocket"},
            )  # fmt: skip
        if route.resume is not None:
            back = resumed is not None
            return await begin(host, settled, body, str(trace), hop, leaving, back)
        rooms = await open_rooms(host, route, of) if route.topic else []
        stream = Stream(host, route, rooms)
        replays: list[Replay | None] = []
        if isinstance(resumed, str) and rooms and not route.executes:
            single = len(rooms) == 1
            at = [position_of(resumed, rooms[0])] if single else positions_of(resumed, rooms)
            replays = await replays_of(host, rooms, at)
            trace_replays(host, route, stream.id, replays, hop)
        stream.who = settled.who
        if resumed is not None:
            stream.say(named_event("resumed", {"recovered": any(replays)}))
        stream.start(settled.subject, body, settled.context, trace, hop, replays)
        return stream


def _protocol(scope: Scope, receive: Receive, send: Send) -> Protocol:
    """The socket itself where the server runs our class, else what ASGI offers."""
    found = scope.get("extensions", {}).get(EXTENSION)
    return found["it"] if found is not None else AsgiProtocol(receive, send)


def _as_asgi(handler: Any) -> Any:
    """Starlette calls a class's instance as an ASGI application, a function as an endpoint."""

    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await handler(scope, receive, send)

    return Endpoint()


async def _shown(
    stream: Stream, trace: Traceparent, leaving: asyncio.Future[Any], scope: Scope, send: Send,
    hop: Hop | None,
) -> None:  # fmt: skip
    """Answer with a stream that was started, to its end; raises as `_stream`."""
    try:
        await _stream(stream, trace, leaving, send, hop)
        if stream.cut.done():
            cutter(scope)()
    finally:
        stream.closed()


async def _stream(
    stream: Stream, trace: Traceparent, leaving: asyncio.Future[Any], send: Send, hop: Hop | None
) -> None:
    """Answer: the head when the run is accepted, then what it says, until either side ends it.

    Args:
        hop: of the request; it ends with the head.

    Raises:
        Refused: the run is not to be. Left: the client is gone.
    """
    if hop is not None:
        hop.set("fairlead.connection", stream.id)
    either: set[asyncio.Future[Any]] = {stream.head, leaving}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not stream.head.done():
        raise Left
    failure = stream.head.result()
    if failure is not None:
        raise Refused.by_worker(failure)
    await stream.known()
    if hop is not None:
        hop.set("http.response.status_code", 200)
        hop.end()
        stream.connected = Connected(hop.parent)
    writing = asyncio.ensure_future(_write(stream, str(trace), send))
    ends: set[asyncio.Future[Any]] = {writing, leaving, stream.cut}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing


async def _write(stream: Stream, trace: str, send: Send) -> None:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "fairlead-trace": trace,
    }
    if stream.run:
        headers["fairlead-run"] = stream.run
        headers["fairlead-run-token"] = stream.key
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    stream.answered()
    # The head alone, so that a client sees at once that it was accepted.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async for chunk in stream.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
