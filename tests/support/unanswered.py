"""A nats-server that leaves some questions to JetStream without an answer, until it is told otherwise.

What a user may not publish its server drops, so whoever asks waits in vain; as it is with a stream
whose leader has just gone.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.system import CONFIG, NatsServer, nats_server


class Silent:
    """Such a server.

    Attributes:
        server: of whom `server.url` is answered.
        url: of a user who is not, until `answer`.
    """

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self.server = server
        self.url = server.url.replace("//", "//silent:p@")
        self._config = folder / "nats.conf"

    async def answer(self) -> None:
        """Answer everybody from now on."""
        assert self.server.process is not None
        self._config.write_text(self._config.read_text().replace("$JS.API", "$NOTHING"))
        self.server.process.program.send(signal.SIGHUP)
        await self.server.process.says("Reloaded server configuration")


@asynccontextmanager
async def silent_about(question: str, folder: Path) -> AsyncIterator[Silent]:
    """Args: question: of JetStream's API, such as `STREAM.PURGE`."""
    denied = f'permissions: {{{{ publish: {{{{ deny: ["$JS.API.{question}.>"] }}}} }}}}'
    users = f"{{{{ user: all, password: p }}}}, {{{{ user: silent, password: p, {denied} }}}}"
    config = f"{CONFIG}authorization {{{{ users: [{users}] }}}}\nno_auth_user: all\n"
    async with nats_server(folder, config) as server:
        yield Silent(server, folder)
