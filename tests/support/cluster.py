"""Three nats-servers as one cluster, each a process that can be killed, frozen and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fairlead.dev import ports
from support.system import NatsServer, Process, until

CONFIG = """
server_name: {name}
listen: 127.0.0.1:{{port}}
max_payload: 2097152
jetstream {{{{ store_dir: "{{store}}", max_file_store: 1GB, max_memory_store: 64MB }}}}
cluster {{{{ name: test, listen: "127.0.0.1:{route}", routes: [{routes}] }}}}
"""


class Cluster:
    """Three servers.

    Attributes:
        servers: by name.
        url: of all of them, as Fairlead takes it.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        routes = {name: ports.free_port() for name in ("n1", "n2", "n3")}
        urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes.values())
        self.servers = {
            name: NatsServer(
                folder / name, CONFIG.format(name=name, route=port, routes=urls) + more
            )
            for name, port in routes.items()
        }
        self.url = self.urls(*self.servers)

    def urls(self, *names: str) -> str:
        """Of some of them, for a process that begins there."""
        return ",".join(self.servers[name].url for name in names)

    def process(self, name: str) -> Process:
        """The running one of this name."""
        process = self.servers[name].process
        assert process is not None
        return process

    async def start(self) -> None:
        await asyncio.gather(*(server.start() for server in self.servers.values()))
        await until(self._has_a_leader, "the cluster has a leader for JetStream")

    async def _has_a_leader(self) -> bool:
        said = [
            line
            for server in self.servers.values()
            if server.process is not None
            for line in server.process.program.lines
        ]
        return any("JetStream cluster new metadata leader" in line for line in said)

    def close(self) -> None:
        for server in self.servers.values():
            server.close()


@asynccontextmanager
async def cluster(folder: Path, more: str = "") -> AsyncIterator[Cluster]:
    """Args: more: of the servers' configuration, a format string as `NatsServer` has it."""
    made = Cluster(folder, more)
    try:
        await made.start()
        yield made
    finally:
        made.close()
