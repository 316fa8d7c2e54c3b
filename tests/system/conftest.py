"""One nats-server for all system tests; each test has an app of its own on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from support.system import NatsServer, System, nats_server, system


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats(tmp_path_factory: object) -> AsyncIterator[NatsServer]:
    folder: Path = tmp_path_factory.mktemp("nats")  # type: ignore[attr-defined]  # pytest's own
    async with nats_server(folder) as server:
        yield server


@pytest_asyncio.fixture
async def app(nats: NatsServer, tmp_path: Path) -> AsyncIterator[System]:
    """An app without processes: `await app.edge()`, `await app.worker()`."""
    async with system(nats, tmp_path) as made:
        yield made
