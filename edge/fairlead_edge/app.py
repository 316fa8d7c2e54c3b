"""Requests and handshakes: what is decided before anything is accepted.

Everything here ends in one of three ways: a problem (RFC 9457), a `Stream`, or a
`Connection` that the socket is handed over to.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HTTPRoute
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fairlead.admin import read_body
from fairlead.errors import BadName, Malformed
from fairlead.protocol import cursor, frames
from fairlead.protocol.cursor import RunPlace
from fairlead.protocol.envelope import Context, encode_context, grouped
from fairlead.protocol.manifest import Route
from fairlead.protocol.problems import MAX_MESSAGE, Close
from fairlead.protocol.traceparent import Traceparent
from fairlead.telemetry import Hop, unsampled
from fairlead_edge.admission import (
    CONTEXT,
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
from fairlead_edge.gathering import LIMIT, positions_of
from fairlead_edge.host import Host
from fairlead_edge.http import cutter
from fairlead_edge.joining import open_room, open_rooms, replays_of
from fairlead_edge.pages import Pages
from fairlead_edge.replay import Replay, position_of
from fairlead_edge.room import V1
from fairlead_edge.routes import WEBSOCKET, Match, room_of
from fairlead_edge.scopes import ConnectionScope
from fairlead_edge.spans import Connected, connecting, ending, receiving, trace_replays
from fairlead_edge.sse import Stream, named_event
from fairlead_edge.tally import EdgeTally
from fairlead_edge.ws import EXTENSION

# Of the hop or the handshake, not of the client.
_HEADERS_OF_THE_HOP = frozenset({"connection", "upgrade", "keep-alive", "transfer-encoding", "te"})


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
            match, id = _find(host, scope, WEBSOCKET), host.new_id()
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
        query = _query(scope)
        topic, channel = _room(match, query)
        context = _encoded_context(scope, query, match)
        settled = Settled(match.route, _inbound(host, match.route, topic, channel), context)
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
            query = _query(scope)
            run = dict(query).get("run")
            match = _find(host, scope, request.method) if run is None else _find_run(host, scope)
            rooms = _rooms(match, query)
            resumed = _resumed(match.route, request.headers, query)
            if isinstance(resumed, cursor.End):
                raise Over
            if run is not None or isinstance(resumed, RunPlace):
                asked = _asked(match.route, run, dict(query).get("key", ""), resumed)
                await self._serve_run(host, match, query, rooms[0], asked, request, send)
                return
            body = await read_body(request, MAX_MESSAGE)
            if body is None:
                raise Refused(413, f"a body has at most {MAX_MESSAGE} bytes")
            context = _encoded_context(scope, query, match)
            settled = Settled(match.route, _inbound(host, match.route, *rooms[0]), context)
            await self._serve_stream(host, settled, rooms, request, body, resumed, send)
        except Refused as refused:
            self._answered["sse", refused.status, refused.because] += 1
            await refused.response(scope, receive, send)
        except Over:
            self._answered["sse", 204, "over"] += 1
            await Response(status_code=204)(scope, receive, send)
        except (ClientDisconnect, Left):
            self._answered["sse", LEFT, "left"] += 1

    async def _serve_run(
        self, host: Host, match: Match, query: list[tuple[str, str]], room: tuple[str, str],
        asked: Asked, request: Request, send: Send,
    ) -> None:  # fmt: skip
        """Show a run that is there, or end it.

        Raises:
            Refused, Over: nothing was sent yet.
        """
        route = match.route
        context = _encoded_context(request.scope, query, match)
        settled = Settled(route, _inbound(host, route, *room), context)
        leaving = asyncio.ensure_future(_until_disconnect(request.receive))
        ends = request.method == "DELETE"
        hop, trace = receiving(host, route, request.headers, 0, "cancel" if ends else "attach")
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
        self, host: Host, settled: Settled, of: list[tuple[str, str]], request: Request, body: bytes,
        resumed: Resumed, send: Send,
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
        host: Host, settled: Settled, of: list[tuple[str, str]], body: bytes, resumed: Resumed,
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


def _inbound(host: Host, route: Route, topic: str, channel: str) -> str:
    return host.bus.subjects.inbound(route.feature, route.workflow, topic, channel)


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


def _find(host: Host, scope: Scope, way: str) -> Match:
    """The route of a request.

    Raises:
        Refused: 404 for an unknown path, 405 for a method that it does not serve.
    """
    raw_path = _path_below_the_mount(scope)
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


def _find_run(host: Host, scope: Scope) -> Match:
    """The route of a run, however it was begun: it is read with GET, and ended with DELETE.

    Raises:
        Refused: 404, there is none; 405 for other methods.
    """
    if scope["method"] not in ("GET", "DELETE"):
        detail = f"{scope['method']} with ?run= is not served; expected GET or DELETE"
        raise Refused(405, detail, {"Allow": "GET, DELETE"})
    for way in ("GET", "POST"):
        found = host.fleet.table.find(_path_below_the_mount(scope), way)
        if isinstance(found, Match):
            return found
    return _find(host, scope, "GET")


def _path_below_the_mount(scope: Scope) -> bytes:
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    root = quote(scope.get("root_path", "")).encode()
    return raw_path[len(root) :] if root and raw_path.startswith(root + b"/") else raw_path


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


def _rooms(match: Match, query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of an event stream: several, where it does nothing but show them."""
    shows = match.route.transport == "sse" and match.route.topic and not match.route.executes
    channels = list(dict.fromkeys(value for name, value in query if name == "channel"))
    if not shows or len(channels) < 2:
        return [_room(match, query)]
    if len(channels) > LIMIT:
        raise Refused(400, f"{len(channels)} channels are named; a stream shows at most {LIMIT}")
    return [_room(match, [("channel", channel)]) for channel in channels]


def _encoded_context(scope: Scope, query: list[tuple[str, str]], match: Match) -> bytes:
    """What workers learn of a request, encoded once.

    Raises:
        Refused: 431 (RFC 6585, 5), it is more than goes with each message.
    """
    headers = {
        name.lower(): value
        for name, value in Headers(scope=scope).items()
        if name not in _HEADERS_OF_THE_HOP and not name.startswith("sec-websocket-")
    }
    context = encode_context(Context(grouped(query), headers, match.path))
    if len(context) > CONTEXT:
        raise Refused(431, f"headers and query have {len(context)} bytes as JSON; {CONTEXT} fit")
    return context


def _asked(route: Route, run: str | None, key: str, resumed: Resumed) -> Asked:
    """Which run a request wants: the one that it names, or else its cursor.

    Raises:
        Refused: 404, the endpoint has no runs that could be named.
    """
    if route.transport != "sse" or not route.executes:
        raise Refused(404, f"{route.endpoint} has no runs; leave ?run= out")
    place = resumed if isinstance(resumed, RunPlace) else None
    named = run if run is not None else place.run if place is not None else ""
    seen = place if place is not None and place.run == named else None
    return Asked(named, key, seen, resumed is not None)


Resumed = str | RunPlace | cursor.End | None
"""What a client sent as its cursor: a place in a run, the end of one, or something else."""


def _resumed(route: Route, headers: Headers, query: list[tuple[str, str]]) -> Resumed:
    """What a request to resume means; None if it is none.

    A browser sends `Last-Event-ID` by itself, so an end that comes back must not start a
    new run.
    """
    last = headers.get("last-event-id") or dict(query).get("cursor")
    if not last:
        return None
    try:
        found = cursor.decode(last, route.endpoint)
        if isinstance(found, cursor.End) or (isinstance(found, RunPlace) and route.resume):
            return found
    except Malformed:
        pass
    return last
