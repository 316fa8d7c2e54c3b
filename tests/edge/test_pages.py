from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from fairlead.protocol.manifest import Manifest, Route
from fairlead_edge.pages import Pages
from fairlead_edge.routes import RouteTable

TABLE = RouteTable(
    [
        Manifest(
            (
                Route("f", "w", "F/w", "sse", "/routed.html", ("GET",), ""),
                Route("f", "p", "F/p", "sse", "/posted.html", ("POST",), ""),
            )
        )
    ]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page, and beside its folder what must never be served."""
    folder = tmp_path / "page"
    (folder / "inner").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in (
        *("index.html", "chat.js", "chat.css", "font.woff2", "notes.txt", "inner/index.html"),
        *(".env", "routed.html", "posted.html", "strange.unheard"),
    ):
        (folder / name).write_text(f"this is {name}")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    return folder


async def get(
    folder: Path, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes] | None:
    """(status, headers, body), or None where the edge says that there is no such endpoint."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": raw, "server": ("test", 80), "scheme": "http",
        "asgi": {"spec_version": "2.4"},
    }  # fmt: skip
    answer = await Pages(folder).answer(scope, TABLE)
    if answer is None:
        return None
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await answer(scope, receive, send)
    head, *body = sent
    found = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], found, b"".join(part.get("body", b"") for part in body)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/chat.js", "text/javascript; charset=utf-8"),
        ("/chat.css", "text/css; charset=utf-8"),
        ("/font.woff2", "font/woff2"),
        ("/notes.txt", "text/plain; charset=utf-8"),
        ("/inner/", "text/html; charset=utf-8"),
        ("/strange.unheard", "application/octet-stream"),
    ],
)
async def test_a_file_comes_with_its_type_and_is_never_taken_from_a_cache_unasked(
    folder: Path, path: str, kind: str
) -> None:
    found = await get(folder, path)
    assert found is not None
    status, headers, body = found
    assert (status, headers["content-type"]) == (200, kind)
    assert headers["cache-control"] == "no-cache"
    assert headers["x-content-type-options"] == "nosniff"
    name = path[1:] + ("index.html" if path.endswith("/") else "")
    assert body == f"this is {name}".encode()


async def test_head_has_no_body(folder: Path) -> None:
    found = await get(folder, "/chat.js", "HEAD")
    assert found is not None
    assert (found[0], found[2]) == (200, b"")
    assert found[1]["content-length"] == str(len("this is chat.js"))


async def test_what_the_browser_has_is_not_sent_again(folder: Path) -> None:
    first = await get(folder, "/chat.js")
    assert first is not None
    again = await get(folder, "/chat.js", if_none_match=first[1]["etag"])
    assert again is not None
    assert (again[0], again[2], again[1]["cache-control"]) == (304, b"", "no-cache")


@pytest.mark.parametrize(
    "path",
    [
        "/nix.html",
        "/empty/",
        "/../secret.txt",
        "/inner/../../secret.txt",
        "//secret.txt",
        "/..\\secret.txt",
        "/out.txt",
        "/.env",
        "/inner/.hidden",
        "/" + "x" * 300,
        "/chat.js/x",
        "/a\0b",
    ],
)
async def test_nothing_else_is_served(folder: Path, path: str) -> None:
    """No folder's listing, nothing outside, nothing hidden, no symbolic link that leads out."""
    assert await get(folder, path) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_only_get_and_head(folder: Path, method: str) -> None:
    assert await get(folder, "/index.html", method) is None


@pytest.mark.parametrize("path", ["/routed.html", "/posted.html"])
async def test_a_route_has_its_path_to_itself(folder: Path, path: str) -> None:
    """By whatever method it is asked: a 405 of the project is not papered over by a file."""
    assert await get(folder, path) is None
