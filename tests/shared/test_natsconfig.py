"""nats-server takes what `fairlead nats-config` prints, and what is shipped is what it prints."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from nkeys import PREFIX_BYTE_USER, encode_seed

from fairlead import cli, natsconfig
from fairlead.dev.nats_server import executable
from fairlead.natsconfig import Cluster, Options, Tls, config
from fairlead.nkeyfiles import public_of
from fairlead.protocol.permissions import Role, permissions
from fairlead.protocol.subjects import Subjects

DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = sorted(path for path in DEPLOY.rglob("nats*.conf"))

MAIN = Cluster("main", ("nats-0.nats", "nats-1.nats", "nats-2.nats"))
TLS = Tls("/tls/tls.crt", "/tls/tls.key", "/tls/ca.crt")
PUBLIC = "UAFVVDLXZPR5U4ETVXJ54AIEGYPQGXVVEHVH6PV6OJSDVWCBOZBDXEXS"  # any well-formed one


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(app="shop", store="/var/lib/nats", file_store="10GB"),
        Options(auth=True),
        Options(auth=True, file_store="10gb", cluster=MAIN),
        Options(broker_spans=5),
        Options(auth=True, broker_spans=100, cluster=MAIN),
        Options(cluster=MAIN),
    ],
    ids=["plain", "named", "auth", "a limit", "broker spans", "all but tls", "cluster"],
)
def test_nats_server_takes_it(options: Options, tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    file.write_text(config(options))
    keys = {natsconfig.variable(role): PUBLIC for role in Role}
    keys |= {natsconfig.OPERATORS: PUBLIC, natsconfig.SYSTEM: PUBLIC}
    done = subprocess.run(
        [executable(), "-t", "-c", str(file)], capture_output=True, text=True,
        env={**os.environ, **distinct(keys), "SERVER_NAME": "nats-0"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def distinct(keys: dict[str, str]) -> dict[str, str]:
    """Two users must not have one key."""
    seeds = (encode_seed(bytes([place]) * 32, PREFIX_BYTE_USER) for place in range(len(keys)))
    return {name: public_of(seed) for name, seed in zip(keys, seeds, strict=True)}


@pytest.mark.parametrize(("cluster", "limit"), [(None, "10GB"), (MAIN, "30GB")])
def test_an_account_may_store_what_its_servers_hold(cluster: Cluster | None, limit: str) -> None:
    """Or neither doctor nor a metric could tell how full it is."""
    text = config(Options(auth=True, file_store="10GB", cluster=cluster))
    assert f"jetstream {{ max_file: {limit} }}" in text and "max_file_store: 10GB" in text


def test_tls_is_asked_of_clients_and_of_the_other_servers_who_show_a_certificate() -> None:
    text = config(Options(tls=TLS, cluster=MAIN))
    clients, servers = text.split("cluster {")
    assert 'cert_file: "/tls/tls.crt"' in clients and "verify: true" not in clients
    assert 'ca_file: "/tls/ca.crt"' in servers and "verify: true" in servers
    assert "tls://nats-0.nats:6222" in servers


@pytest.mark.parametrize("role", Role)
def test_each_role_has_its_permissions_and_a_key_from_the_environment(role: Role) -> None:
    text = config(Options(app="shop", auth=True))
    _, _, user = text.partition(f"nkey: $NATS_NKEY_{role.upper()}\n")
    publish, _, rest = user.partition("subscribe")
    subscribe, _, _ = rest.partition("] }")
    allowed = permissions(Subjects("shop"), role)
    assert quoted(publish) == list(allowed.publish)
    assert quoted(subscribe) == list(allowed.subscribe)


def quoted(text: str) -> list[str]:
    return [line.strip().strip('"') for line in text.splitlines() if line.strip().startswith('"')]


@pytest.mark.parametrize("file", SHIPPED, ids=[path.name for path in SHIPPED])
def test_a_shipped_file_is_what_its_command_prints(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = file.read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("#   fairlead nats-config ")]
    _, _, *argv = shlex.split(command)
    assert printed(argv[1:], capsys) == file.read_text(), f"make it anew: {command.strip('# ')}"


def test_there_are_shipped_files() -> None:
    assert SHIPPED


def printed(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["nats-config", *argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--tls", "a,b"], "--tls a,b: expected three paths, CERT,KEY,CA"),
        (["--cluster", "main"], "--cluster main: expected a name and hosts"),
        (["--cluster", "a b@x"], "--cluster a b@x: expected a name and hosts"),
        (["--app", "a.b"], "--app: found 'a.b'; expected 1 to 64 letters"),
        (["--auth", "some"], "--auth: found 'some'"),
    ],
)
def test_what_cannot_be_is_wrong_use(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["nats-config", *argv]) == 2
    assert line in capsys.readouterr().err
