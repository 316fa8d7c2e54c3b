"""The whole system over TLS, each role with a key and permissions of its own, and all else refused.

The configuration is the one that `fairlead nats-config` prints; only its port and its folders are
the test's.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nats
import nats.aio.client
import pytest
import pytest_asyncio
import trustme

import fairlead
from fairlead.dev import ports
from fairlead.protocol.permissions import LANES, Role
from fairlead.testing import system as kit
from fairlead.testing.program import DEADLINE
from support.system import Edge, NatsServer, Process, System, request, until

APP = "shop"
PROJECT = "allowed.py"


@dataclass
class Keys:
    """What an operator has made: certificates, and a seed for each role."""

    folder: Path
    public: dict[str, str] = field(default_factory=dict)

    def env(self, role: str) -> dict[str, str]:
        return {
            "FAIRLEAD_NATS_NKEY": str(self.folder / "keys" / f"{role}.nk"),
            "FAIRLEAD_NATS_CA": str(self.folder / "ca.pem"),
        }


class Shop(System):
    """An app of which each process has its role's credentials."""

    keys: Keys

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        role = argv[0] if argv[0] in ("edge", "worker") else "publisher"
        return super().start(*argv, env={**self.keys.env(role), **(env or {})})


def command(*argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fairlead", *argv], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("auth")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = ca.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    printed = command("nats-config", "--keys", str(folder / "keys"))
    return Keys(folder, dict(line.split("=") for line in printed.splitlines()))


@pytest.fixture(scope="module")
def server(keys: Keys) -> Iterator[NatsServer]:
    """nats-server as it is configured for production, on loopback."""
    made = secured(keys, "nats")
    made.launch()
    yield made
    made.close()


def secured(
    keys: Keys, name: str, *flags: str, instead: Mapping[str, str] | None = None
) -> NatsServer:
    """A server with the configuration that `fairlead nats-config` prints, but for where it is.

    Args:
        instead: what stands for some texts of it.
    """
    folder = keys.folder
    printed = command(
        "nats-config", "--app", APP, "--store", "STORE", "--tls",
        f"{folder / 'server.pem'},{folder / 'server.key'},{folder / 'ca.pem'}", *flags,
    )  # fmt: skip
    public = {f"${variable}": key for variable, key in keys.public.items()}
    for text, value in {**public, **(instead or {})}.items():
        assert text in printed
        printed = printed.replace(text, value)
    config = printed.replace("{", "{{").replace("}", "}}").replace('"STORE"', '"{store}"')
    config = config.replace("port: 4222\n", "listen: 127.0.0.1:{port}\n")
    config = re.sub(r"^http_port:.*\n", "", config, flags=re.MULTILINE)
    made = NatsServer(folder / name, config)
    made.url = made.url.replace("nats://", "tls://")
    return made


@pytest_asyncio.fixture
async def shop(server: NatsServer, keys: Keys, tmp_path: Path) -> AsyncIterator[Shop]:
    with kit.system(server, tmp_path, Shop) as made:
        made.app, made.keys = APP, keys
        yield made


async def started(shop: Shop) -> tuple[Edge, Edge]:
    """Two edges and two workers that serve."""
    first, second, *_ = await asyncio.gather(
        shop.edge(), shop.edge(), shop.worker(PROJECT), shop.worker(PROJECT)
    )
    for edge in (first, second):
        await edge.serves("/shop/v1/errors")
    return first, second


def complaints(shop: Shop) -> list[str]:
    """What any process was told by NATS that it may not do."""
    return [
        line
        for process in (*shop.edges, *shop.workers)
        for line in process.program.lines
        if "ermission" in line
    ]


async def test_rooms_with_and_without_history_and_what_was_missed(shop: Shop) -> None:
    first, second = await started(shop)
    async with first.v1("/shop/v1/chat") as ann, second.v1("/shop/v1/chat") as ben:
        await ann.send("hello")
        heard = await ben.until("message")
        assert heard["data"] == "hello"
        cursor = heard["id"]
    async with first.v1("/shop/v1/chat") as ann:
        await ann.send("missed")
        await ann.until("ack")
    async with second.v1(f"/shop/v1/chat?cursor={cursor}") as ben:
        assert (await ben.until("message"))["data"] == "missed"
    async with first.v1("/shop/v1/news") as ann, second.v1("/shop/v1/news") as ben:
        await ann.send("told")
        assert (await ben.until("message"))["data"] == "told"
    assert complaints(shop) == []


async def test_peers_connections_runs_of_rooms_and_errors_of_the_fleet(shop: Shop) -> None:
    first, second = await started(shop)
    async with first.v1("/shop/v1/talk") as ann, second.v1("/shop/v1/talk") as ben:
        await ann.send({"to": ben.id, "say": "psst"})
        assert (await ben.until("message"))["data"] == "psst"
    async with first.v1("/shop/v1/counter") as ann:
        await ann.send("one")
        assert (await ann.until("message"))["data"] == 1
    async with first.v1("/shop/v1/ticks") as ann, second.v1("/shop/v1/ticks") as ben:
        assert [(await ann.until("message"))["data"] for _ in range(3)] == [1, 2, 3]
        await ben.until("message")
    async with first.events("/shop/v1/errors") as listening:
        assert json.loads((await listening.next())["data"]) == "listening"
        async with second.v1("/shop/v1/chat") as ann:
            for _ in range(4):  # whichever of the two workers has it
                await ann.send("raise")
                assert (await ann.until("error"))["error"]["status"] == 500
        assert json.loads((await listening.next())["data"]) == "RuntimeError"
    assert complaints(shop) == []


@pytest.mark.parametrize("path", ["/shop/v1/kept", "/shop/v1/live"])
async def test_runs_are_read_elsewhere_survive_their_worker_and_are_cancelled(
    shop: Shop, path: str
) -> None:
    first, second = await started(shop)
    async with first.events(path) as stream:
        run, key = stream.headers["fairlead-run"], stream.headers["fairlead-run-token"]
        elsewhere = f"{path}?run={run}&key={key}"
        async with second.events(elsewhere) as reader:
            await reader.next()
            for worker in list(shop.workers):
                # Whichever has the run; the other one takes it up.
                worker.kill()
                await shop.worker(PROJECT)
            while (await stream.next()).get("event") != "restart":
                pass
            status, *_ = await request(second.http(elsewhere), method="DELETE")
            assert status == 204
            while (await stream.next()).get("event") != "end":
                pass
    assert complaints(shop) == []


async def test_programs_and_the_admin_port_publish(
    shop: Shop, keys: Keys, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await started(shop)
    async with first.v1("/shop/v1/chat") as ann:
        body = json.dumps({"topic": "chat", "data": "by the admin port"}).encode()
        status, *_ = await request(first.admin("/publish"), method="POST", data=body)
        assert status == 200
        assert (await ann.until("message"))["data"] == "by the admin port"
        published = shop.start("publish", "chat", "by the command")
        assert await published.ended() == 0, published.program.lines
        assert (await ann.until("message"))["data"] == "by the command"
        nkey, ca = keys.env("publisher").values()
        async with fairlead.connect(server.url, app=APP, nkey=nkey, ca=ca) as bus:
            await bus.topic("chat").publish("by a program")
        assert (await ann.until("message"))["data"] == "by a program"
        for name, value in keys.env("publisher").items():
            monkeypatch.setenv(name, value)
        async with fairlead.connect(server.url, app=APP) as bus:
            await bus.topic("chat").publish("by a program with an environment")
        assert (await ann.until("message"))["data"] == "by a program with an environment"
    assert complaints(shop) == []


# What is refused


class Intruder:
    """A program with a role's key that tries one thing after the other."""

    def __init__(self, client: nats.aio.client.Client, errors: list[str]) -> None:
        self.client = client
        self._errors = errors

    async def says(self, subject: str) -> None:
        await self.client.publish(subject, b"")

    async def hears(self, subject: str, queue: str = "") -> None:
        await self.client.subscribe(subject, queue=queue)

    async def denied(self) -> set[str]:
        """What of it the server has refused: `publish SUBJECT`, `subscription SUBJECT [QUEUE]`."""
        await self.says("the.end")  # refused to everybody, and told after all that was before
        await until(lambda: any("the.end" in error for error in self._errors), "it is refused")
        found = [
            re.search(r'for (publish|subscription) to "([^"]+)"(?: using queue "(\w+)")?', error)
            for error in self._errors
        ]
        told = {" ".join(filter(None, match.groups())) for match in found if match is not None}
        return told - {"publish the.end"}


@asynccontextmanager
async def intruder(server: NatsServer, keys: Keys, role: str) -> AsyncIterator[Intruder]:
    errors: list[str] = []

    async def error(found: Exception) -> None:
        errors.append(str(found))

    tls = ssl.create_default_context(cafile=str(keys.folder / "ca.pem"))
    seed = (keys.folder / "keys" / f"{role}.nk").read_text()
    client = await nats.connect(server.url, tls=tls, nkeys_seed_str=seed, error_cb=error)
    try:
        yield Intruder(client, errors)
    finally:
        await client.close()


@pytest.mark.parametrize("role", Role)
async def test_a_role_says_and_hears_what_its_rows_say_and_nothing_else(
    server: NatsServer, keys: Keys, role: Role
) -> None:
    expected = set()
    async with intruder(server, keys, role) as program:
        for lane in LANES:
            pattern = f"fl.{APP}.{lane.pattern}"
            subject = pattern.replace("*", "x").replace(">", "x.x")
            await program.says(subject)
            expected |= {f"publish {subject}"} if role not in lane.said_by else set()
            await program.hears(pattern, lane.queue)
            asked = f"subscription {pattern} {lane.queue}".rstrip()
            expected |= {asked} if role not in lane.heard_by else set()
            if lane.queue:
                await program.hears(pattern)
                expected.add(f"subscription {pattern}")
        # The client writes what it was told in lower case.
        assert await program.denied() == {each.lower() for each in expected}


HEARD_BY_NOBODY = (
    ">", "fl.>", f"fl.{APP}.>", "fl.other.live.>", "_INBOX.>", "$SYS.>", "$JS.EVENT.>",
    f"$KV.FL_{APP}_leases.>", f"$KV.FL_{APP}_manifests.>",
)  # fmt: skip

SAID_BY_NOBODY = (
    "fl.other.log.chat.-", "fl.other.in.support.echo.-.-", "$SYS.REQ.SERVER.PING",
    f"$JS.API.STREAM.DELETE.FL_{APP}_RUNS", f"$JS.API.STREAM.PURGE.FL_{APP}_chat_0a1b2c3d",
    f"$JS.API.STREAM.MSG.DELETE.FL_{APP}_RUNS", f"$JS.API.STREAM.RESTORE.FL_{APP}_RUNS",
    f"$JS.API.CONSUMER.CREATE.FL_{APP}_RUNS", f"$JS.API.STREAM.SNAPSHOT.FL_{APP}_RUNS",
    "$JS.API.STREAM.NAMES", "$KV.FL_other_manifests.x",
)  # fmt: skip


@pytest.mark.parametrize("role", Role)
async def test_nobody_hears_everything_speaks_for_another_app_or_breaks_a_stream(
    server: NatsServer, keys: Keys, role: Role
) -> None:
    async with intruder(server, keys, role) as program:
        for subject in HEARD_BY_NOBODY:
            await program.hears(subject)
        for subject in SAID_BY_NOBODY:
            await program.says(subject)
        expected = {f"subscription {subject}" for subject in HEARD_BY_NOBODY}
        expected |= {f"publish {subject}" for subject in SAID_BY_NOBODY}
        assert await program.denied() == {each.lower() for each in expected}


@pytest.mark.parametrize("role", [Role.EDGE, Role.PUBLISHER, Role.CONSOLE])
async def test_only_workers_change_streams_and_buckets(
    server: NatsServer, keys: Keys, role: Role
) -> None:
    changes = [
        f"$JS.API.STREAM.CREATE.FL_{APP}_chat_0a1b2c3d", f"$JS.API.STREAM.UPDATE.FL_{APP}_RUNS",
        f"$JS.API.STREAM.PURGE.FL_{APP}_RUNS", f"$KV.FL_{APP}_manifests.0a1b",
    ]  # fmt: skip
    async with intruder(server, keys, role) as program:
        for subject in changes:
            await program.says(subject)
        assert await program.denied() == {f"publish {subject}".lower() for subject in changes}


async def test_the_operator_looks_after_streams_and_says_nothing(
    server: NatsServer, keys: Keys, shop: Shop
) -> None:
    """With NATS's own tools: lists them, changes them, backs them up, deletes and restores them."""
    await started(shop)
    errors: list[str] = []
    name = f"FL_{APP}_left"
    async with intruder(server, keys, "worker") as worker:
        created = json.dumps({"name": name, "subjects": [f"fl.{APP}.log.left.*"]}).encode()
        inbox = f"fl.{APP}.inbox.worker.x"
        answers = await worker.client.subscribe(inbox)
        await worker.client.publish(f"$JS.API.STREAM.CREATE.{name}", created, reply=inbox)
        assert "error" not in json.loads((await answers.next_msg(DEADLINE)).data)
        await worker.client.publish(f"fl.{APP}.log.left.-", b"hello", reply=inbox)
        assert "error" not in json.loads((await answers.next_msg(DEADLINE)).data)
    async with intruder(server, keys, "operator") as program:
        api = program.client.jetstream()
        names = [info.config.name for info in await api.streams_info()]
        assert {name, f"FL_{APP}_RUNS"} <= set(names)
        await api.update_stream((await api.stream_info(name)).config)
        snapshot = await backed_up(program.client, name)
        assert await api.delete_stream(name)
        await restored(program.client, snapshot)
        assert (await api.stream_info(name)).state.messages == 1
        assert await api.delete_stream(name)
        for subject in (
            "$JS.API.STREAM.CREATE.left", f"$JS.API.CONSUMER.CREATE.{name}",
            f"$JS.API.STREAM.PURGE.{name}", f"$KV.FL_{APP}_leases.x",
        ):  # fmt: skip
            await program.says(subject)  # what would say it in its stead, or break what runs
            errors.append(f"publish {subject}".lower())
        for lane in LANES:
            subject = f"fl.{APP}.{lane.pattern}".replace("*", "x").replace(">", "x.x")
            await program.says(subject)
            errors.append(f"publish {subject}".lower())
        assert await program.denied() == set(errors)


class Snapshot(NamedTuple):
    """Of a stream: what it is, and its files, compressed, in pieces."""

    made_of: dict[str, Any]
    pieces: list[bytes]


async def backed_up(client: nats.aio.client.Client, stream: str) -> Snapshot:
    """A stream's snapshot (`nats stream backup`): the last piece is empty."""
    inbox = client.new_inbox()
    pieces = await client.subscribe(inbox)
    asked = json.dumps({"deliver_subject": inbox, "no_consumers": True}).encode()
    said = await client.request(f"$JS.API.STREAM.SNAPSHOT.{stream}", asked)
    about = json.loads(said.data)
    assert "error" not in about, about
    found: list[bytes] = []
    while piece := await pieces.next_msg(DEADLINE):
        if not piece.data:
            return Snapshot({"config": about["config"], "state": about["state"]}, found)
        found.append(piece.data)
        if piece.reply:  # a flow control
            await piece.respond(b"")
    raise AssertionError


async def restored(client: nats.aio.client.Client, snapshot: Snapshot) -> None:
    """`nats stream restore`: each piece is acknowledged, and the empty one with the stream's state."""
    name = snapshot.made_of["config"]["name"]
    asked = json.dumps(snapshot.made_of).encode()
    said = json.loads((await client.request(f"$JS.API.STREAM.RESTORE.{name}", asked)).data)
    assert "error" not in said, said
    for piece in snapshot.pieces:
        await client.request(said["deliver_subject"], piece, timeout=DEADLINE)
    answer = await client.request(said["deliver_subject"], b"", timeout=DEADLINE)
    assert "error" not in json.loads(answer.data), answer.data


@contextmanager
def cluster(keys: Keys) -> Iterator[list[NatsServer]]:
    """Three servers that know each other by certificate, with a leader for JetStream."""
    names = [f"nats-{number}.nats" for number in range(3)]
    routes = [ports.free_port() for _ in names]
    flags = ("--cluster", f"main@{','.join(names)}", "--file-store", "1GB")
    made: list[NatsServer] = []
    for number, route in enumerate(routes):
        where = {f"{n}:6222": f"127.0.0.1:{p}" for n, p in zip(names, routes, strict=True)}
        where |= {"port: 6222": f'listen: "127.0.0.1:{route}"', "$SERVER_NAME": f"nats-{number}"}
        made.append(secured(keys, f"nats-{number}", *flags, instead=where))
    with ExitStack() as stack:
        for server in made:
            stack.callback(server.close)
            server.launch()
        for server in made:
            assert server.process is not None
            server.process.program.wait_for("new .*metadata leader")
        yield made


async def test_what_is_read_anew_drops_nobody(shop: Shop, server: NatsServer) -> None:
    """The configuration with its certificate, which the manifests have the server do by itself."""
    first, second = await started(shop)
    async with first.v1("/shop/v1/chat") as ann, second.v1("/shop/v1/chat") as ben:
        read_anew(server)
        await ann.send("hello")
        assert (await ben.until("message"))["data"] == "hello"
    lines = [line for each in (*shop.edges, *shop.workers) for line in each.program.lines]
    assert not [line for line in lines if "NATS is away" in line]
    assert complaints(shop) == []


def read_anew(server: NatsServer) -> None:
    assert server.process is not None
    program = server.process.program
    before = len(program.lines)
    program.send(signal.SIGHUP)
    program.wait_for("Reloaded server configuration", before)


async def test_three_servers_over_tls_keep_three_copies(keys: Keys, tmp_path: Path) -> None:
    """As in production: one of them may go, with streams in the middle of their work."""
    with cluster(keys) as servers:
        whole = NatsServer(tmp_path / "nowhere")
        whole.url = ",".join(server.url for server in servers)
        with kit.system(whole, tmp_path, Shop) as shop:
            shop.app, shop.keys = APP, keys
            edge, _ = await asyncio.gather(
                shop.edge(), shop.worker(PROJECT, env={"FAIRLEAD_REPLICAS": "3"})
            )
            await edge.serves("/shop/v1/errors")
            async with intruder(servers[1], keys, "operator") as program:
                infos = await program.client.jetstream().streams_info()
            assert {info.config.num_replicas for info in infos} == {3}
            async with edge.v1("/shop/v1/chat") as ann:
                for server in servers:
                    read_anew(server)
                await ann.send("hello")
                await ann.each("message", "ack")
                process = servers[0].process
                assert process is not None
                process.kill()
                await ann.send("still here")
                await ann.each("message", "ack")
            assert complaints(shop) == []


async def test_who_has_no_key_is_not_let_in_and_the_line_says_so(shop: Shop, keys: Keys) -> None:
    await shop.edge(ready=False, env={"FAIRLEAD_NATS_NKEY": ""})
    await shop.edges[0].says("(?i)does not let this process in.*authorization violation")


async def test_a_server_that_the_ca_did_not_sign_is_not_spoken_to(
    shop: Shop, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    await shop.edge(ready=False, env={"FAIRLEAD_NATS_CA": str(tmp_path / "other.pem")})
    await shop.edges[0].says("certificate")


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("FAIRLEAD_NATS_NKEY", "missing.nk", "--nats-nkey missing.nk: No such file"),
        ("FAIRLEAD_NATS_CA", "missing.pem", "--nats-ca missing.pem: No such file"),
        ("FAIRLEAD_NATS_CREDS", "some.creds", "--nats-nkey and --nats-creds are both given"),
        ("FAIRLEAD_NATS_KEY", "some.key", "--nats-key is given without --nats-cert"),
    ],
)
async def test_credentials_that_cannot_be_used_end_the_start(
    shop: Shop, variable: str, value: str, line: str
) -> None:
    worker = shop.start(
        "worker", str(Path(__file__).parent / "projects" / PROJECT), env={variable: value}
    )
    assert await worker.ended() == 1
    await worker.says(re.escape(line))


async def test_a_password_in_the_url_is_never_told(tmp_path: Path, server: NatsServer) -> None:
    plain = NatsServer(tmp_path / "nats")
    plain.url = plain.url.replace("nats://", "nats://ann:marked-secret@")
    with kit.system(plain, tmp_path, System) as made:
        edge = made.start("edge", "--port", "0", "--admin-port", "0")
        await edge.says("NATS does not answer")
        await plain.start()
        await edge.says("admin port")
        await until(lambda: any("listens on" in line for line in edge.program.lines), "it listens")
        assert await edge.stop() == 0
        assert not [line for line in edge.program.lines if "marked-secret" in line]
    plain.close()
