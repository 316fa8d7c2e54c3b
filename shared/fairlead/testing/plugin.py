"""The pytest plugin: `fairlead_system` and what it stands on.

The fixtures are plain, not async, so they go with pytest-asyncio and with anyio's plugin alike,
whatever their loops. What they need is imported when a test asks for one of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fairlead.testing.system import NatsServer, System


@pytest.fixture(scope="session")
def fairlead_nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[NatsServer]:
    """A nats-server with JetStream for the whole session, on a free port of this machine."""
    from fairlead.testing.system import NatsServer

    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        server.launch()
        yield server
    finally:
        server.close()


@pytest.fixture
def fairlead_system(fairlead_nats: NatsServer, request: pytest.FixtureRequest) -> Generator[System]:
    """An app of the test's own: `await fairlead_system.run("chat.py", edges=2)`.

    Each test has an app of its own, so nothing of one is heard in another; its processes end
    with it.
    """
    from fairlead.testing.system import System, system

    with system(fairlead_nats, request.config.invocation_params.dir, System) as made:
        yield made
