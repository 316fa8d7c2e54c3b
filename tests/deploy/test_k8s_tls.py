"""Certificates for NATS as docs/kubernetes.md makes them without cert-manager, and what a server makes of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from fairlead.dev import ports
from fairlead.dev.nats_server import executable
from fairlead.testing.program import DEADLINE, Program, running
from support.manifests import K8S, ROOT

SERVERS = ("nats-0.nats", "nats-1.nats", "nats-2.nats")
FILES = ("tls.crt", "tls.key", "ca.crt")

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> kubectl.log
"""


def on_the_page() -> str:
    page = (ROOT / "docs/kubernetes.md").read_text()
    (script,) = re.findall(r"```sh\n(openssl req -x509.*?)```", page, re.S)
    return str(script)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's commands were given, as they stand there."""
    folder = tmp_path_factory.mktemp("made")
    script = on_the_page()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_secret_has_the_files_that_servers_read(made: Path) -> None:
    (said,) = (made / "kubectl.log").read_text().splitlines()
    assert said.startswith("-n fairlead create secret generic nats-tls ")
    assert re.findall(r"--from-file=(\S+)", said) == list(FILES)
    conf = (K8S / "components/tls/nats.conf").read_text()
    assert {Path(path).name for path in re.findall(r'_file: "(.*)"', conf)} == set(FILES)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_proves_itself_to_clients_and_to_the_others(
    made: Path, name: str, purpose: str
) -> None:
    command = ["openssl", "verify", "-CAfile", "ca.crt", "-purpose", purpose, "-verify_hostname"]
    done = subprocess.run(
        [*command, name, "tls.crt"], cwd=made, capture_output=True, text=True, check=False
    )
    assert done.stdout == "tls.crt: OK\n", done.stderr


@pytest.fixture
def server(made: Path, tmp_path: Path) -> Iterator[tuple[Program, int]]:
    port = ports.free_port()
    files = [
        f'{kind}_file: "{made / name}"'
        for kind, name in zip(("cert", "key", "ca"), FILES, strict=True)
    ]
    (tmp_path / "nats.conf").write_text(
        f"listen: 127.0.0.1:{port}\ntls {{\n" + "\n".join(files) + "\n}\n"
    )
    with running([executable(), "-c", str(tmp_path / "nats.conf")], tmp_path) as program:
        program.wait_for("Server is ready")
        yield program, port


async def test_nats_serves_with_it_and_reads_another_when_it_is_told_to(
    made: Path, server: tuple[Program, int]
) -> None:
    """SIGHUP is what `nats-server --signal=reload` sends."""
    program, port = server
    trusted = ssl.create_default_context(cafile=str(made / "ca.crt"))
    client = await nats.connect(
        f"tls://127.0.0.1:{port}", tls=trusted, tls_hostname=SERVERS[1], allow_reconnect=False
    )
    await client.flush()
    await client.close()
    first = served(made, port)
    renew(made)
    assert served(made, port) == first, "a file that is replaced is not looked at"
    program.send(signal.SIGHUP)
    program.wait_for("Reloaded: tls")
    assert served(made, port) != first


def renew(made: Path) -> None:
    """Sign another certificate, as the page did the first."""
    lines = on_the_page().replace("\\\n", "").splitlines()
    (sign,) = [line for line in lines if line.startswith("openssl x509 -req")]
    subprocess.run(["sh", "-ec", sign], cwd=made, capture_output=True, check=True)


def served(made: Path, port: int) -> bytes:
    """The certificate that a client is shown: NATS speaks first, in plain text, and then turns to TLS."""
    trusted = ssl.create_default_context(cafile=str(made / "ca.crt"))
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as plain:
        plain.recv(4096)
        with trusted.wrap_socket(plain, server_hostname=SERVERS[1]) as secure:
            return secure.getpeercert(binary_form=True) or b""
