"""The admin port: /livez, /readyz, /metrics and /publish. The only module here that needs a web server.

It is for operators and for programs of one's own, on loopback unless told otherwise:
whoever reaches it can publish. It is served by a thread with a loop of its own, so that there is
an answer while the process' loop stands still; what belongs to that loop is done there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fairlead import logs
from fairlead.errors import BadName, NotStored, TooLarge
from fairlead.metrics import Metrics
from fairlead.protocol.problems import HEADROOM, MAX_MESSAGE, problem
from fairlead.publisher import channel_or_default, parse_data
from fairlead.readiness import AdminState

log = logs.get("fairlead.admin")

WS = Literal["none", "websockets-sansio"]

SWITCH_AFTER = 0.0005
"""Seconds for which one thread may keep the interpreter while another waits for it."""

DISCARD_FOR = 0.5
"""Seconds for which the rest of a body that is too large is read and dropped."""


def json_response(status: int, body: Any, media_type: str = "application/json") -> Response:
    return Response(orjson.dumps(body), status, media_type=media_type)


def problem_response(
    status: int, detail: str | None = None, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """An RFC 9457 answer."""
    body = orjson.dumps(problem(status, detail, **members))
    return Response(body, status, headers, media_type="application/problem+json")


async def read_body(request: Request, limit: int) -> bytes | None:
    """The request's body, or None if it has more bytes than `limit`; then it is not kept.

    What a client is about to send beyond it is read and dropped for a moment: an answer is
    lost on the way when the socket closes with input unread.
    """
    announced = request.headers.get("content-length", "0")
    too_large = announced.isdecimal() and int(announced) > limit
    body = bytearray()
    stream = request.stream()
    if not too_large:
        async for chunk in stream:
            body += chunk
            if len(body) > limit:
                too_large = True
                break
    if not too_large:
        return bytes(body)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_FOR):
            async for _ in stream:
                pass
    return None


def build_app(state: AdminState) -> Starlette:
    return Starlette(routes=routes(state))


def routes(state: AdminState) -> list[Route]:
    """What every admin port answers."""

    async def livez(_: Request) -> Response:
        live, body = state.readiness.life()
        return json_response(200 if live else 503, body)

    async def readyz(_: Request) -> Response:
        ready, body = state.readiness.report()
        return json_response(200 if ready else 503, body)

    async def metrics(request: Request) -> Response:
        return metrics_response(state.metrics, request.headers.get("accept", ""))

    async def post(request: Request) -> Response:
        return await publish(state, request)

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/publish", post, methods=["POST"]),
    ]


def metrics_response(metrics: Metrics | None, accept: str) -> Response:
    """What Prometheus reads. Args: accept: the header of its request."""
    if metrics is None or not metrics.on:
        return problem_response(404, "there are no metrics here; is OTEL_SDK_DISABLED set?")
    body, content_type = metrics.exposition(accept)
    return Response(body, headers={"content-type": content_type})


T = TypeVar("T")


async def _on_its_loop(state: AdminState, work: Coroutine[Any, Any, T]) -> T:
    """Do something where it belongs; raises what that raises."""
    if state.loop is None or state.loop is asyncio.get_running_loop():
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, state.loop))


_PUBLISHED = ("topic", "channel", "data", "id")

_EXPECTED = 'expected {"topic": "...", "data": ...}'


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body is no JSON: {error}; {_EXPECTED}") from None


async def publish(state: AdminState, request: Request) -> Response:
    """The answer to `POST /publish`."""
    if state.publisher is None:
        return problem_response(503, "not connected to NATS yet", {"Retry-After": "1"})
    try:
        # JSON may write a byte of data as six.
        raw = await read_body(request, 6 * MAX_MESSAGE + HEADROOM)
        if raw is None:
            return problem_response(413, f"data is at most {MAX_MESSAGE} bytes")
        body = _json(raw)
        if not isinstance(body, dict) or not isinstance(body.get("topic"), str):
            raise ValueError(_EXPECTED)
        if "data" not in body or not isinstance(body.get("id", ""), str):
            raise ValueError("expected data, and id as a string if there is one")
        if unknown := sorted(body.keys() - _PUBLISHED):
            raise ValueError(f"unknown key {unknown[0][:80]!r}; expected {', '.join(_PUBLISHED)}")
        data_type, data = parse_data(body["data"])
        channel = channel_or_default(body.get("channel"))
        made = await _on_its_loop(
            state,
            state.publisher.publish(
                body["topic"], channel, data_type, data, body.get("id", ""),
                request.headers.get("traceparent", ""),
            ),
        )  # fmt: skip
    except ClientDisconnect:
        return Response(status_code=400)
    except TooLarge as error:
        return problem_response(413, f"data has {error}")
    except (ValueError, BadName) as error:
        return problem_response(400, str(error))
    except LookupError as error:
        return problem_response(404, str(error.args[0]))
    except NotStored as error:
        return problem_response(503, str(error), {"Retry-After": "1"})
    return json_response(200, {"cursor": made})


@asynccontextmanager
async def serve(
    app: ASGIApp, host: str, port: int, name: str, ws: WS = "none"
) -> AsyncIterator[int]:
    """Keep a port open; yields its number.

    Args:
        name: of the port, in the log. ws: who speaks WebSocket on it, as uvicorn names it.

    Raises:
        OSError: it cannot be had.
    """
    listener = listen(host, port)
    server = _server(app, ws)
    serving = asyncio.create_task(server._serve([listener]))
    try:
        yield _told(name, listener)
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def serve_apart(app: Starlette, host: str, port: int, name: str) -> AsyncIterator[int]:
    """As `serve`, but on a thread and a loop of its own: it answers while this loop stands still."""
    listener = listen(host, port)
    server = _server(app)
    # Whoever waits for the interpreter gets it after so many seconds: the loop, while the other
    # thread makes the answer to a scrape. Python's own 5 ms would be felt by every client.
    sys.setswitchinterval(SWITCH_AFTER)
    thread = threading.Thread(
        target=lambda: asyncio.run(server._serve([listener])), name="admin", daemon=True
    )
    thread.start()
    try:
        yield _told(name, listener)
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)


def _server(app: ASGIApp, ws: WS = "none") -> uvicorn.Server:
    """To be run with `_serve`, as signals are the process' business."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, ws=ws,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def _told(name: str, listener: socket.socket) -> int:
    number = int(listener.getsockname()[1])
    log.info(name, port=number)
    return number


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; on port 0 the system picks one.

    Raises:
        OSError: with the address in its text.
    """
    try:
        return socket.create_server((host, port), backlog=2048, family=_family(host))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
