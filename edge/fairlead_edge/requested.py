"""What a request asks for: its route, rooms, run and cursor, and what workers learn of it.

Pure: read from the path, the query and the headers, before anything is asked or opened.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

from starlette.datastructures import Headers
from starlette.types import Scope

from fairlead.errors import BadName, Malformed
from fairlead.protocol import cursor
from fairlead.protocol.cursor import RunPlace
from fairlead.protocol.envelope import Context, encode_context, grouped
from fairlead.protocol.manifest import Route
from fairlead.protocol.subjects import Subjects
from fairlead_edge import routes
from fairlead_edge.admission import CONTEXT, Refused, Settled
from fairlead_edge.attach import Asked
from fairlead_edge.gathering import LIMIT
from fairlead_edge.routes import WEBSOCKET, Match, RouteTable

Query = list[tuple[str, str]]

RoomName = tuple[str, str]
"""(topic, channel)."""

Resumed = str | RunPlace | cursor.End | None
"""What a client sent as its cursor: a place in a run, the end of one, or something else."""

# Of the hop or the handshake, not of the client.
_HEADERS_OF_THE_HOP = frozenset({"connection", "upgrade", "keep-alive", "transfer-encoding", "te"})


def find(table: RouteTable, scope: Scope, way: str) -> Match:
    """The route of a request.

    Raises:
        Refused: 404 for an unknown path, 405 for a method that it does not serve.
    """
    raw_path = _path_below_the_mount(scope)
    found = table.find(raw_path, way)
    if isinstance(found, Match):
        return found
    if way == "GET" and WEBSOCKET in found:
        # Asked over HTTP, so that a browser can learn why its handshake was refused.
        asked = table.find(raw_path, WEBSOCKET)
        assert isinstance(asked, Match)
        return asked
    methods = found - {WEBSOCKET}
    if way == WEBSOCKET or not found:
        raise Refused(404, f"{scope['path'][:200]} is no endpoint of this app" + (
            " for WebSockets" if methods else ""))  # fmt: skip
    allowed = ", ".join(sorted(methods or {"GET"}))
    raise Refused(405, f"{way} is not served here; expected {allowed}", {"Allow": allowed})


def find_run(table: RouteTable, scope: Scope) -> Match:
    """The route of a run, however it was begun: it is read with GET, and ended with DELETE.

    Raises:
        Refused: 404, there is none; 405 for other methods.
    """
    if scope["method"] not in ("GET", "DELETE"):
        detail = f"{scope['method']} with ?run= is not served; expected GET or DELETE"
        raise Refused(405, detail, {"Allow": "GET, DELETE"})
    for way in ("GET", "POST"):
        found = table.find(_path_below_the_mount(scope), way)
        if isinstance(found, Match):
            return found
    return find(table, scope, "GET")


def _path_below_the_mount(scope: Scope) -> bytes:
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    root = quote(scope.get("root_path", "")).encode()
    return raw_path[len(root) :] if root and raw_path.startswith(root + b"/") else raw_path


def query_of(scope: Scope) -> Query:
    """Raises: Refused: 400."""
    try:
        raw: bytes = scope["query_string"]
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Refused(400, "the query is not percent-encoded UTF-8") from None


def room_of(match: Match, query: Query) -> RoomName:
    """Raises: Refused: 400, that is no room."""
    try:
        return routes.room_of(match, [value for name, value in query if name == "channel"])
    except BadName as error:
        raise Refused(400, str(error)) from None


def rooms_of(match: Match, query: Query) -> list[RoomName]:
    """Those of an event stream: several, where it does nothing but show them."""
    shows = match.route.transport == "sse" and match.route.topic and not match.route.executes
    channels = list(dict.fromkeys(value for name, value in query if name == "channel"))
    if not shows or len(channels) < 2:
        return [room_of(match, query)]
    if len(channels) > LIMIT:
        raise Refused(400, f"{len(channels)} channels are named; a stream shows at most {LIMIT}")
    return [room_of(match, [("channel", channel)]) for channel in channels]


def settled(
    subjects: Subjects, scope: Scope, query: Query, match: Match, room: RoomName
) -> Settled:
    """Where what this client says goes, and what workers learn of it.

    Raises:
        Refused: 431 (RFC 6585, 5), that is more than goes with each message.
    """
    headers = {
        name.lower(): value
        for name, value in Headers(scope=scope).items()
        if name not in _HEADERS_OF_THE_HOP and not name.startswith("sec-websocket-")
    }
    context = encode_context(Context(grouped(query), headers, match.path))
    if len(context) > CONTEXT:
        raise Refused(431, f"headers and query have {len(context)} bytes as JSON; {CONTEXT} fit")
    route = match.route
    inbound = subjects.inbound(route.feature, route.workflow, *room)
    return Settled(route, inbound, context)


def run_of(route: Route, run: str | None, key: str, resumed: Resumed) -> Asked:
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


def cursor_of(route: Route, headers: Headers, query: Query) -> Resumed:
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
