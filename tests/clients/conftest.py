"""The fixtures of the clients' tests: an app on the session's nats-server, and a built client."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.node import CLIENT, NODE
from support.system import NatsServer, System, system


@pytest_asyncio.fixture
async def app(fairlead_nats: NatsServer, tmp_path: Path) -> AsyncIterator[System]:
    """An app without processes: `await app.edge()`, `await app.worker()`."""
    async with system(fairlead_nats, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built JavaScript client. The build fails where it has grown too large."""
    assert (CLIENT / "node_modules").is_dir(), "no compiler; `make test` installs it"
    done = subprocess.run([NODE, "build.mjs"], cwd=CLIENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return CLIENT / "dist"
