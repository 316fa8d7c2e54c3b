"""docs/publishing.md, done: each of its programs publishes to a room that somebody listens to."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nats import connect

from fairlead.testing.clients import V1
from fairlead.testing.program import DEADLINE, running
from support.system import Edge, System, request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "publishing.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
TYPED = [line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M)
         for line in block.splitlines()]  # fmt: skip

DJANGO = """
import sys
from django.conf import settings
settings.configure(ROOT_URLCONF="site_of_django", DEBUG=True, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
from django.core.management import execute_from_command_line
from django.urls import path
import page
urlpatterns = [path("say", page.view)]
if __name__ == "__main__":
    sys.modules["site_of_django"] = sys.modules["__main__"]
    execute_from_command_line(["site", "runserver", "--noreload", "127.0.0.1:0"])
"""


class Reader:
    """Somebody who has the page, and a system whose addresses are others than the page's."""

    def __init__(self, app: System, edge: Edge, room: V1) -> None:
        self.app = app
        self.edge = edge
        self._room = room
        self.env = {"FAIRLEAD_NATS": app.nats.url, "FAIRLEAD_APP": app.app}

    def save(self, code: str) -> None:
        """A program of the page, as the module `page`."""
        self._write("page.py", code.replace("nats://127.0.0.1:4222", self.app.nats.url))

    def _write(self, name: str, code: str) -> None:
        (self.app.cwd / name).write_text(code)

    @contextmanager
    def serving(self, *argv: str, says: str) -> Iterator[str]:
        """A server of it, on a port of its own; its URL."""
        with running([sys.executable, "-u", *argv], self.app.cwd, self.env) as program:
            yield f"http://127.0.0.1:{program.wait_for(says)[1]}"

    async def runs(self, *argv: str) -> str:
        """A command that ends; what it printed."""
        ran = await asyncio.to_thread(
            subprocess.run, argv, cwd=self.app.cwd, env={**os.environ, **self.env}, capture_output=True,
            text=True, timeout=DEADLINE,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def django(self) -> None:
        self._write("site_of_django.py", DJANGO)

    async def hears(self) -> object:
        return await self._room.hears()


@pytest.fixture
async def reader(app: System) -> AsyncIterator[Reader]:
    edge, _ = await asyncio.gather(app.edge(), app.worker(str(ROOT / "examples" / "seed.py")))
    room = "/support/realtime/broadcast?channel=blue"
    await edge.serves(room)
    async with edge.v1(room) as client:
        yield Reader(app, edge, client)


async def test_an_async_function(reader: Reader) -> None:
    reader.save(PYTHON[0])
    await reader.runs(sys.executable, "-c", "import asyncio, page; asyncio.run(page.notify('7'))")
    assert await reader.hears() == {"order": "7"}


async def test_a_starlette_application(reader: Reader) -> None:
    reader.save(PYTHON[1])
    says = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"
    with reader.serving("-m", "uvicorn", "page:app", "--port", "0", says=says) as url:
        status, _, body = await request(f"{url}/orders/7", b"")
    assert status == 200
    assert b'"cursor":"' in body
    assert await reader.hears() == {"order": "7"}


async def test_a_view_of_django(reader: Reader) -> None:
    """Under its own server, which has a thread for each request."""
    reader.save(PYTHON[2])
    reader.django()
    says = r"development server at http://127\.0\.0\.1:(\d+)"
    with reader.serving("site_of_django.py", says=says) as url:
        found = await asyncio.gather(*(request(f"{url}/say") for _ in range(5)))
        assert [status for status, _, _ in found] == [204] * 5
    assert [await reader.hears() for _ in range(5)] == [{"text": "from a view"}] * 5


async def test_every_program_of_the_page_is_among_these() -> None:
    assert len(PYTHON) == 3
    assert [line.split()[0] for line in TYPED] == ["curl", "fairlead", "nats"]


async def test_curl(reader: Reader) -> None:
    command = TYPED[0].replace("127.0.0.1:8001", f"127.0.0.1:{reader.edge.admin_port}")
    assert '"cursor"' in await reader.runs("sh", "-c", f"{command} -sS")
    assert await reader.hears() == {"text": "hello"}


async def test_the_command(reader: Reader) -> None:
    await reader.runs(sys.executable, "-m", *TYPED[1].split())
    assert await reader.hears() == "hello"


async def test_any_nats_client(reader: Reader) -> None:
    _, what, subject, data = TYPED[2].split()
    assert what == "pub"
    client = await connect(reader.app.nats.url)
    await client.publish(subject.replace(".default.", f".{reader.app.app}."), data.encode())
    await client.flush()
    assert await reader.hears() == "hello"
    await client.close()
