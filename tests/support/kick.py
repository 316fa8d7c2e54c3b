"""A nats-server that can be told to close one client's connection, as a flaky network does."""

from __future__ import annotations

import json

from nats.aio.client import Client

from fairlead.testing.program import DEADLINE
from support.system import until

KICKABLE = """
listen: 127.0.0.1:{port}
max_payload: 2097152
jetstream {{ store_dir: "{store}" }}
accounts {{ SYS: {{ users: [ {{ user: sys, password: sys }} ] }}
            APP: {{ jetstream: enabled, users: [ {{ user: app, password: app }} ] }} }}
system_account: SYS
no_auth_user: app
"""
"""Configuration of such a server; who kicks connects as sys:sys."""


async def kick(system_account: Client, name: str) -> None:
    """Have the server close the connection of that name."""

    async def connection() -> tuple[str, int] | None:
        answer = await system_account.request("$SYS.REQ.SERVER.PING.CONNZ", b"", timeout=DEADLINE)
        found = json.loads(answer.data)
        cids = [each["cid"] for each in found["data"]["connections"] if each.get("name") == name]
        return (found["server"]["id"], cids[0]) if cids else None

    await until(connection, f"{name} is connected")
    server, cid = await connection() or ("", 0)
    asked = json.dumps({"cid": cid}).encode()
    await system_account.request(f"$SYS.REQ.SERVER.{server}.KICK", asked, timeout=DEADLINE)
