"""What a user may not do is found, on a real server, for each subject that a role needs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead import grants
from fairlead.bus import Bus, BusOptions
from fairlead.protocol.permissions import Role, permissions
from fairlead.protocol.subjects import Subjects
from support.system import NatsServer, nats_server

SHOP = Subjects("Shop")  # nats-py writes what the server says in lower case


def user(name: str, role: Role, without: tuple[str, ...]) -> str:
    publish, subscribe = (
        # To nats-server an empty list allows everything.
        json.dumps([subject for subject in some if subject not in without] or ["nothing"])
        for some in permissions(SHOP, role)
    )
    rules = f"publish: {{{{ allow: {publish} }}}}, subscribe: {{{{ allow: {subscribe} }}}}"
    return f"{{{{ user: {name}, password: x, permissions: {{{{ {rules} }}}} }}}}"


def config(*users: str) -> str:
    return f"""
listen: 127.0.0.1:{{port}}
jetstream {{{{ store_dir: "{{store}}" }}}}
accounts {{{{ APP: {{{{ jetstream: enabled, users: [ {", ".join(users)} ] }}}} }}}}
"""


# All but one subject each; the answers of the bus' own round trips must be heard.
CASES = [
    (role, kind, subject)
    for role in Role
    for kind in ("publish", "subscribe")
    for subject in getattr(permissions(SHOP, role), kind)
    if subject != SHOP.errors or kind == "subscribe"
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """One with a user for each case, and one who may do all that its role needs."""
    users = [user(f"all-{role}", role, ()) for role in Role]
    users += [
        user(f"case-{number}", role, (subject,))
        for number, (role, _, subject) in enumerate(CASES)
    ]  # fmt: skip
    folder = Path(tmp_path_factory.mktemp("nats"))
    async with nats_server(folder, config(*users)) as running:
        yield running


async def denied(server: NatsServer, name: str, role: Role) -> grants.Denied:
    url = server.url.replace("//", f"//{name}:x@")
    bus = await Bus.once(BusOptions([url], SHOP, str(role), "doctor1"), 5, lambda _: None)
    try:
        return await grants.denied(bus, role, 5)
    finally:
        await bus.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_who_may_do_what_the_role_needs_is_denied_nothing(server: NatsServer) -> None:
    for role in Role:
        assert (await denied(server, f"all-{role}", role)).count == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_each_subject_that_is_missing_is_found(server: NatsServer) -> None:
    for number, (role, kind, subject) in enumerate(CASES):
        found = await denied(server, f"case-{number}", role)
        assert subject in getattr(found, kind), (role, kind, subject)
        # A subject that is both said and heard is missing for both.
        assert set(found.publish) | set(found.subscribe) == {subject}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_user_of_another_role_is_denied_what_that_does_not_need(
    server: NatsServer,
) -> None:
    found = await denied(server, "all-edge", Role.WORKER)
    assert "fl.Shop.inbox.worker.>" in found.subscribe
    assert "fl.Shop.beat.*" in found.publish
    assert "fl.Shop.log.>" not in found.publish
