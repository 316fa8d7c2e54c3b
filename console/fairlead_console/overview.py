"""The page, and what it asks for: how all stands, the end of a run, a try."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket

from fairlead.admin import json_response, problem_response, read_body
from fairlead_console import tryit
from fairlead_console.guard import Guard, from_elsewhere
from fairlead_console.live import Live, NoSuchRun

PAGE = Path(__file__).with_name("page")

MAX_BODY = 16 * 1024
"""Bytes of a request to end a run."""

HEADERS = {
    # Nothing from elsewhere, nothing in line, in nobody's frame.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; object-src 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class Overview:
    """What the console shows beside traces.

    Attributes:
        live: None until NATS answers.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.live: Live | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/console", self.console),
            Route("/api/live", self.stream),
            Route("/api/fleet", self.fleet),
            Route("/api/cancel", self.cancel, methods=["POST"]),
            WebSocketRoute("/api/try", self.tried),
            Mount("/", _Page(directory=PAGE, html=True)),
        ]

    async def console(self, request: Request) -> Response:
        """`GET /api/console`: whether anything may be changed, and by who asks."""
        may = self._guard.refusal(request) is None
        return json_response(200, {"read_only": self._guard.read_only, "may_change": may})

    async def fleet(self, _: Request) -> Response:
        """`GET /api/fleet`: one picture."""
        if self.live is None:
            return _not_there()
        return json_response(200, await self.live.once())

    async def stream(self, _: Request) -> Response:
        """`GET /api/live`: a picture a second, as server-sent events."""
        if self.live is None:
            return _not_there()
        return StreamingResponse(
            _events(self.live), media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )  # fmt: skip

    async def cancel(self, request: Request) -> Response:
        """`POST /api/cancel` with `{"worker","run"}`: 202 when its worker has been told."""
        refused = self._guard.refusal(request)
        if refused is None and from_elsewhere(request.headers):
            refused = problem_response(403, "a page of another origin may not change anything")
        if refused is not None:
            return refused
        if self.live is None:
            return _not_there()
        try:
            raw = await read_body(request, MAX_BODY)
            body: Any = orjson.loads(raw or b"")
            worker, run = body["worker"], body["run"]
            if not isinstance(worker, str) or not isinstance(run, str):
                raise TypeError
            await self.live.cancel(worker, run)
        except ClientDisconnect:
            return Response(status_code=400)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return problem_response(400, 'expected {"worker": "…", "run": "…"}')
        except NoSuchRun as error:
            return problem_response(404, str(error))
        return json_response(202, {"told": worker})

    async def tried(self, socket: WebSocket) -> None:
        """`/api/try`: see `tryit.py`."""
        if from_elsewhere(socket.headers):
            await socket.close()
            return
        await tryit.serve(socket, self._guard, self.live)


def _not_there() -> Response:
    return problem_response(503, "NATS was not reached yet", {"Retry-After": "1"})


async def _events(live: Live) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    async for picture in live.pictures():
        yield b"data: " + orjson.dumps(picture) + b"\n\n"


_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What the page is made of; Python's own table differs between machines."""


class _Page(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope,
        status_code: int = 200,
    ) -> Response:  # fmt: skip
        response = super().file_response(full_path, stat_result, scope, status_code)
        kind = _TYPES.get(Path(full_path).suffix)
        if kind is not None and "content-type" in response.headers:
            response.headers["content-type"] = kind
        response.headers.update(HEADERS)
        return response
