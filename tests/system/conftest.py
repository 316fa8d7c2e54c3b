"""One nats-server for all system tests; each test has an app of its own on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.system import NatsServer, System, system


@pytest.fixture(scope="session")
def nats(fairlead_nats: NatsServer) -> NatsServer:
    """The one of `fairlead.testing`'s pytest plugin."""
    return fairlead_nats


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path: Path) -> AsyncIterator[System]:
    """An app without processes: `await app.edge()`, `await app.worker()`."""
    async with system(nats, tmp_path) as made:
        yield made
