"""A folder of files that an edge serves where the project has no route.

For development and small installations: a page, its script and its style from the origin
of the sockets, so that nothing has to be said about CORS. Larger ones have a web server.
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from fairlead_edge.routes import RouteTable

METHODS = ("GET", "HEAD")

# What a page is made of. Python's own table differs between versions and machines, and a
# browser runs no module that comes under another type.
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


class Pages:
    """The files of one folder; `/` is its index.html.

    Args:
        folder: must exist. What is saved there is served from then on.
    """

    def __init__(self, folder: Path) -> None:
        self._files = _Files(directory=folder, html=True)

    async def answer(self, scope: Scope, table: RouteTable) -> Response | None:
        """The file of a request; None where a route has the path, or there is no such file.

        A path that a route serves by another method is the route's, too.
        """
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["method"] not in METHODS or table.find(raw_path, scope["method"]):
            return None
        path = self._files.get_path(scope)
        if any(part.startswith(".") and part != "." for part in path.split(os.sep)):
            return None  # .git, .env: nobody means to show them
        try:
            return await self._files.get_response(path, scope)
        except (HTTPException, OSError):
            return None


class _Files(StaticFiles):
    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        kind = TYPES.get(Path(full_path).suffix.lower())
        if kind is not None and "content-type" in response.headers:
            response.headers["content-type"] = kind
        # Asked again each time, answered with 304: what was saved is seen at the next reload.
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
