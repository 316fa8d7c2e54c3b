"""`fairlead doctor` before real servers that are well, and before such that are not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats

from fairlead.protocol.permissions import Role, permissions
from fairlead.protocol.subjects import Subjects
from support.cluster import cluster
from support.system import CONFIG, NatsServer, System, nats_server, system, until

BASE = "listen: 127.0.0.1:{port}\nmax_payload: 2097152\n"
STORE = 'jetstream {{ store_dir: "{store}" }}\n'

Findings = list[dict[str, str]]


async def examined(
    app: System, *flags: str, code: int, env: dict[str, str] | None = None
) -> Findings:
    """What it found, as programs are told."""
    process = app.start("doctor", "--json", *flags, env=env)
    ended = await process.ended()
    (line,) = process.program.lines
    told = json.loads(line)
    assert (ended, told["healthy"]) == (code, code == 0), line
    assert all(
        set(each) == {"check", "state", "found", "expected", "advice"} for each in told["findings"]
    )
    return list(told["findings"])


def of(findings: Findings, check: str, state: str) -> dict[str, str]:
    """The one finding of a check in a state."""
    found = [each for each in findings if (each["check"], each["state"]) == (check, state)]
    assert len(found) == 1, findings
    return found[0]


def wrong(findings: Findings) -> set[str]:
    return {each["check"] for each in findings if each["state"] == "wrong"}


@asynccontextmanager
async def on(tmp_path: Path, config: str) -> AsyncIterator[System]:
    async with nats_server(tmp_path / "nats", config) as server, system(server, tmp_path) as app:
        yield app


# A system that is well


async def test_a_system_that_is_well(app: System) -> None:
    edge = (await asyncio.gather(app.edge(), app.worker("runs.py"), app.worker("runs.py")))[0]
    await edge.serves("/runs/kept/count")
    findings = await examined(app, code=0)
    assert {each["state"] for each in findings} <= {"ok", "note"}
    for check in (
        "nats", "version", "max_payload", "jetstream storage", "jetstream memory", "clock",
        "jetstream streams", "jetstream consumers", "replicas", "streams", "permissions worker",
        "permissions edge",
    ):  # fmt: skip
        of(findings, check, "ok")
    assert of(findings, "workers", "ok")["found"] == "2 live"
    assert of(findings, "builds", "ok")["found"] == "1 known, 1 with live workers"
    assert f"127.0.0.1:{app.nats.port}" in of(findings, "nats", "ok")["found"]


async def test_it_changes_nothing_and_nobody_notices(tmp_path: Path) -> None:
    """Though it tries all that roles may do: no message is stored, and none is dropped."""
    async with on(tmp_path, CONFIG) as app:  # where no other test's rooms age meanwhile
        worker, edge = await asyncio.gather(app.worker("runs.py"), app.edge())
        await edge.serves("/runs/kept/count")
        async with (
            edge.events("/runs/kept/count?n=5&every=1") as run,
            edge.events("/runs/kept/large?n=3") as other,
        ):
            while (await run.next()).get("event") != "end":
                pass
            while (await other.next()).get("event") != "end":
                pass
        client = await nats.connect(app.nats.url)
        try:
            before = await streams(client)
            assert sum(state["last_seq"] for state in before.values()) > 3
            said = len(worker.program.lines), len(edge.program.lines)
            await examined(app, code=0)
            assert await streams(client) == before
            assert (len(worker.program.lines), len(edge.program.lines)) == said
        finally:
            await client.close()


async def streams(client: Any) -> dict[str, Any]:
    """name → state, of all that the server keeps."""
    found = json.loads((await client.request("$JS.API.STREAM.LIST", b"{}")).data)
    return {each["config"]["name"]: each["state"] for each in found["streams"]}


async def test_an_app_that_nobody_has_started_is_no_fault(app: System) -> None:
    findings = await examined(app, code=0)
    for check in ("builds", "workers"):
        of(findings, check, "note")
    of(findings, "clock", "unknown")


async def test_people_are_told_the_same_in_words(app: System, tmp_path: Path) -> None:
    process = app.start("doctor", env={"COLUMNS": "160"})
    assert await process.ended() == 0
    text = "\n".join(process.program.lines)
    assert "✓  max_payload" in text and "!  workers" in text
    assert "to do: start one: fairlead worker TARGET" in text
    assert process.program.lines[-1].startswith("0 wrong, ")


# Servers that are not


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    async with on(tmp_path, BASE) as app:
        findings = await examined(app, code=1)
    assert wrong(findings) == {"jetstream"}
    assert "-js" in of(findings, "jetstream", "wrong")["advice"]


async def test_a_max_payload_that_is_too_small(tmp_path: Path) -> None:
    async with on(tmp_path, CONFIG.replace("2097152", "1048576")) as app:
        findings = await examined(app, code=1)
    assert wrong(findings) == {"max_payload"}
    found = of(findings, "max_payload", "wrong")
    assert "1048576 bytes" in found["found"] and "1114112 bytes" in found["expected"]


LIMITED = (
    BASE
    + STORE
    + """
accounts {{ APP: {{ jetstream: {{ max_file: 4MB, max_streams: 4 }}, users: [{{ user: app, password: app }}] }} }}
no_auth_user: app
"""
)


async def test_storage_that_is_nearly_full(tmp_path: Path) -> None:
    async with on(tmp_path, LIMITED) as app:
        client = await nats.connect(app.nats.url)
        try:
            await client.jetstream().add_stream(name="others", subjects=["others"])
            for _ in range(38):
                await client.jetstream().publish("others", b"x" * 100_000)
        finally:
            await client.close()
        findings = await examined(app, code=1)
    assert wrong(findings) == {"jetstream storage"}
    found = of(findings, "jetstream storage", "wrong")
    assert "of 4.0 MiB used (9" in found["found"]
    assert "max_file" in found["advice"]
    assert of(findings, "jetstream streams", "ok")["found"] == "1 of 4 used (25%)"


def user(role: Role, *without: str) -> str:
    """One who may do what a role must, but for some."""
    allowed = permissions(Subjects("shop"), role)
    publish, subscribe = (json.dumps([s for s in some if s not in without]) for some in allowed)
    rules = f"publish: {{{{ allow: {publish} }}}}, subscribe: {{{{ allow: {subscribe} }}}}"
    return f"{{{{ user: {role}, password: x, permissions: {{{{ {rules} }}}} }}}}"


def users(*each: str) -> str:
    made = ", ".join(["{{ user: app, password: app }}", *each])
    accounts = f"accounts {{{{ APP: {{{{ jetstream: enabled, users: [ {made} ] }}}} }}}}"
    return f"{BASE}{STORE}{accounts}\nno_auth_user: app\n"


async def test_users_that_may_do_what_their_roles_need_and_no_more(tmp_path: Path) -> None:
    async with on(tmp_path, users(user(Role.EDGE), user(Role.WORKER))) as app:
        app.app = "shop"
        await app.worker("runs.py")
        for role in (Role.EDGE, Role.WORKER):
            url = app.nats.url.replace("//", f"//{role}:x@")
            findings = await examined(app, "--nats", url, "--role", role, code=0)
            of(findings, f"permissions {role}", "ok")
            of(findings, "builds", "ok")
            # No role lists the streams of the account.
            assert "STREAM.LIST" in of(findings, "streams", "unknown")["found"]
            assert f"{role}:x" not in str(findings)
        # Without its role it is taken for a worker, whose replies this user does not hear.
        url = app.nats.url.replace("//", "//edge:x@")
        findings = await examined(app, "--nats", url, code=1)
    assert wrong(findings) == {"permissions worker"}
    assert "fl.shop.inbox.worker" in of(findings, "jetstream", "unknown")["found"]
    assert "--role" in of(findings, "permissions worker", "wrong")["advice"]


async def test_what_a_user_may_not_do_is_named(tmp_path: Path) -> None:
    """Subject by subject: tests/shared/test_grants.py."""
    missing = ("fl.shop.log.>", "fl.shop.beat.*", "$JS.API.STREAM.MSG.GET.*")
    async with on(tmp_path, users(user(Role.EDGE, *missing))) as app:
        app.app = "shop"
        url = app.nats.url.replace("//", "//edge:x@")
        findings = await examined(app, "--nats", url, "--role", "edge", code=1)
    assert wrong(findings) == {"permissions edge"}
    found = of(findings, "permissions edge", "wrong")["found"]
    assert found == (
        "this user may not publish to fl.shop.log.>, $JS.API.STREAM.MSG.GET.*; "
        "may not subscribe to fl.shop.log.>, fl.shop.beat.*"
    )


async def test_a_password_that_is_wrong(tmp_path: Path) -> None:
    async with on(tmp_path, LIMITED) as app:
        app.nats.url = app.nats.url.replace("//", "//app:s3cret@")
        findings = await examined(app, code=1)
    found = of(findings, "nats", "wrong")
    assert re.search("Authorization Violation|reset by peer", found["found"])
    assert "password" in found["advice"]
    assert "s3cret" not in str(findings)


async def test_one_of_two_servers_is_dead(app: System, tmp_path: Path) -> None:
    """The rest is looked at through the one that lives."""
    await app.worker("runs.py")
    dead = NatsServer(tmp_path / "dead")
    findings = await examined(app, "--nats", f"{dead.url},{app.nats.url}", code=1)
    assert wrong(findings) == {"nats"}
    found = of(findings, "nats", "wrong")
    assert f"127.0.0.1:{dead.port}" in found["found"] and "--nats" in found["advice"]
    assert of(findings, "workers", "ok")["found"] == "1 live"


async def test_nothing_listens(tmp_path: Path) -> None:
    async with system(NatsServer(tmp_path), tmp_path) as app:
        findings = await examined(app, code=1)
    assert wrong(findings) == {"nats"}
    of(findings, "jetstream", "unknown")
    assert {each["check"] for each in findings} == {"nats", "jetstream", "open files"}


# What is left over, and what is not as it should be


async def test_streams_and_buckets_that_no_build_uses_any_more(app: System) -> None:
    """Those of a build that is gone, though it is still in the bucket; not those of another app."""
    old = await app.worker("build_old.py")
    new = await app.worker("build_new.py")
    assert await old.stop() == 0
    client = await nats.connect(app.nats.url)
    try:
        jetstream = client.jetstream()
        await jetstream.create_key_value(bucket=f"FL_{app.app}_odd")
        await jetstream.create_key_value(bucket=f"FL_{app.app}_b_manifests")
        await jetstream.add_stream(name=f"FL_{app.app}_b_x", subjects=[f"fl.{app.app}_b.log.x.*"])
    finally:
        await client.close()
    findings = await examined(app, code=0)
    left = [each for each in findings if each["check"] == "streams"]
    assert {each["state"] for each in left} == {"note"}
    told = " ".join(each["found"] for each in left)
    assert f"KV_FL_{app.app}_odd" in told
    assert f"{app.app}_b" not in told
    assert "'old'" in told and "'kept'" not in told
    assert all("nats stream rm" in each["advice"] for each in left)
    assert of(findings, "builds", "ok")["found"] == "2 known, 1 with live workers"
    await new.stop()


async def test_a_cluster_that_has_lost_a_server(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as three,
        system(next(iter(three.servers.values())), tmp_path) as app,
    ):
        await app.worker("runs.py", "--replicas", "3", env={"FAIRLEAD_NATS": three.url})
        findings = await examined(app, "--nats", three.url, code=0)
        assert of(findings, "replicas", "ok")["found"] == "3 of each stream, on 3 servers"
        lost = three.servers["n3"]
        assert lost.process is not None
        lost.process.kill()

        async def told() -> bool:
            findings = await examined(app, "--nats", three.url, code=1)
            return "n3 does not keep up" in str(findings)

        await until(told, "the copies on it are missed")
        findings = await examined(app, "--nats", three.url, code=1)
        assert wrong(findings) == {"nats", "replicas"}
        assert "start n3" in str(findings)


async def test_times_of_the_environment_are_looked_at(app: System) -> None:
    env = {"FAIRLEAD_READY_GRACE": "2s", "FAIRLEAD_DRAIN_GRACE": "30s"}
    findings = await examined(app, code=0, env=env)
    assert of(findings, "times", "note")["found"] == "FAIRLEAD_READY_GRACE is 2 s"
    assert of(findings, "times", "ok")["found"] == "FAIRLEAD_DRAIN_GRACE is 30 s"
